"""Studies of real size at a ten-thousandth: what they make is as published, and a run on it goes to the page."""

import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from blindspot.benchmarks.registry import BENCHMARKS, SETS, select
from blindspot.benchmarks.sources import download
from blindspot.cli import app
from blindspot.encoders import ENCODERS, native_grid
from blindspot.errors import UserError
from blindspot.evaluation.paper import load as load_paper
from blindspot.evaluation.run.opening import open_local
from blindspot.evaluation.run.runner import prepare
from blindspot.files import locked
from blindspot.model.formats.tower import image_processor, read_tower
from blindspot.reporting.diagnosis import load_arms
from blindspot.reporting.run import load_plan
from blindspot.reporting.tables import score_table
from blindspot.studies.loading import load_study, save_study, shipped_studies
from blindspot.studies.needs import fetch
from blindspot.studies.plan import columns, plan_steps, write_plan
from blindspot.studies.real import evaluate_step
from blindspot.studies.rehearsal import BOXES, FORMS, ROWS, write_benchmark, write_encoder, write_model, write_rows
from blindspot.studies.schema import DATA_SETS
from blindspot.studies.status import read_status
from blindspot.studies.step import StepContext, open_folder
from tests.evaluation.test_api_answerer import Toy

ROOT = Path(__file__).parents[2]
STUDY = """
extends: paper
name: small
title: Two encoders
arms:
  base: {image_size: 64, connector: mlp, language_model: lmsys/vicuna-7b-v1.5}
  named:
    - {id: siglip, label: SigLIP, encoder: google/siglip-base-patch16-256}
    - {id: aimv2, label: AIMv2, encoder: apple/aimv2-large-patch14-224, against: [siglip],
       stages: {connector: {batch: 128}}}
benchmarks: [mmvp, tallyqa]
diagnose: [counterfactuals]
models:
  - {id: paligemma, label: PaliGemma, model: google/paligemma2-3b-mix-224}
  - {id: onevision, label: LLaVA-OneVision, model: llava-hf/llava-onevision-qwen2-7b-ov-hf, block: Others}
  - {id: served, label: Served, model: "http://127.0.0.1:9/v1", served: toy}
"""

REHEARSE = ("study", "small.yaml", "--scale", "rehearsal", "--seeds", "1")  # of two, diagnoses take a minute


def write_own(folder: Path) -> Path:
    """Questions of a user's own in ``mine.jsonl``."""
    Image.new("RGB", (64, 48), (200, 30, 30)).save(folder / "door.png")
    rows = [{"image": "door.png", "question": f"Is door {n} left?", "answer": ["yes", "no"][n % 2]} for n in range(4)]
    (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / "mine.jsonl"


@pytest.mark.parametrize("name", FORMS)
def test_every_benchmark_is_read_with_all_that_the_paper_prints_of_it(name: str, tmp_path: Path) -> None:
    write_benchmark(tmp_path, name, seed=0)
    collection = BENCHMARKS[name].read(tmp_path / name)
    assert collection.form == "tsv" and len(collection.questions) >= 16
    assert collection.images.read(collection.questions[0].images[0]).startswith(b"\x89PNG")
    printed = {metric for benchmark, metric in (column.key for column in load_paper().columns) if benchmark == name}
    for metric in (one for one in BENCHMARKS[name].metrics if one.name in printed):
        for term in metric.terms:
            labelled = [one for one in collection.questions if term.where.items() <= one.groups.items()]
            assert labelled, f"{metric.name}: nobody is {dict(term.where)}"


def test_boxes_are_read_from_cocos_form(tmp_path: Path) -> None:
    write_benchmark(tmp_path, "coco_boxes", seed=0)
    questions = BENCHMARKS["coco_boxes"].read(tmp_path / "coco_boxes").questions
    assert len(questions) >= 16 and {one.groups["picture"] for one in questions} == {"96x96"}


def test_no_benchmark_of_the_paper_is_left_out() -> None:
    assert set(FORMS) == set(SETS["paper"])


@pytest.mark.parametrize(
    "name", [one.id for family in ENCODERS.values() for one in family.checkpoints if family.name != "aimv2_native"]
)
def test_an_encoder_has_the_format_and_the_sizes_of_the_released_one(name: str, tmp_path: Path) -> None:
    write_encoder(tmp_path, name)
    family, released = next((f, one) for f in ENCODERS.values() for one in f.checkpoints if one.id == name)
    config, tensors = read_tower(tmp_path, {})
    published = released.config()
    assert config.model_type == published.model_type and config.hidden_size == 32
    assert (native_grid(config), config.patch_size) == (native_grid(published), published.patch_size)
    assert sum(tensor.numel() for tensor in tensors.values()) < 200_000
    assert type(image_processor(tmp_path, config)) is type(family.image_processor(released.size, config.patch_size))


def test_rows_lie_where_the_published_ones_do(tmp_path: Path) -> None:
    for name, data in DATA_SETS.items():
        write_rows(tmp_path, data, seed=0)
        rows = json.loads((tmp_path / data.file).read_text())
        pictured = [row["image"] for row in rows if "image" in row]
        assert len(rows) == ROWS and all((tmp_path / data.images / image).is_file() for image in pictured)
        assert (len(pictured) < ROWS) == (name == "llava-mix665k"), "a mix has rows without a picture"
        assert all(row["conversations"][0]["from"] == "human" for row in rows)


@pytest.mark.parametrize("name", [name for name in shipped_studies() if load_study(name).recipe == "llava"])
def test_every_shipped_study_of_real_size_can_be_rehearsed(name: str) -> None:
    study = load_study(name, "rehearsal")
    assert study.rehearsed and not study.meaningful and study.seeds == 2 and study.arms.replicate
    assert {arm.id for arm in study.arms.named} == {arm.id for arm in load_study(name).arms.named}


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the study was rehearsed, with commands' options checked before and after."""
    tmp_path = tmp_path_factory.mktemp("rehearsed")
    (tmp_path / "small.yaml").write_text(STUDY.replace("[mmvp, tallyqa]", "[mmvp, tallyqa, coco_boxes, mine.jsonl]"))
    write_own(tmp_path)

    def call(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "blindspot", *REHEARSE, *options]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests/studies/trackers'}", "TRACKED": str(tmp_path / "tracked")}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)

    assert "a rehearsal makes what it reads and takes no --data" in call("--data", "x").stderr
    first = call("--tracker", "trackio")
    assert first.returncode == 0, first.stderr
    run = tmp_path / "runs" / "small-rehearsal"
    results = json.loads((run / "results.json").read_text())
    assert not results["meaningful"] and len(results["arms"]) == 5  # with the replicate, and no server
    answers = [json.loads(line) for path in run.glob("steps/evaluate*/answers.jsonl") for line in path.open()]
    assert len({row["raw"] for row in answers}) > 3 and max(len(row["raw"]) for row in answers) < 60, "words that end"
    assert "mean nothing" in (run / "report" / "index.html").read_text()
    again = call()
    assert again.returncode == 0 and "everything is done already" in again.stdout
    return run


def test_a_rehearsal_goes_to_the_page_and_is_found_done(rehearsed: Path) -> None:
    assert (rehearsed / "report" / "index.html").is_file()


def test_a_tracker_hears_what_arms_and_models_of_real_size_score(rehearsed: Path) -> None:
    told = {row["run"].partition("/")[2]: row for row in map(json.loads, (rehearsed.parents[1] / "tracked").open())}
    scores = json.loads((rehearsed / "results.json").read_text())["scores"]
    for row in (row for row in scores if row["seed"] is not None and row["split"] == "iid"):
        step = f"steps/evaluate_{row['stage']}*_{row['arm']}_seed{row['seed']}-*"
        of = [told[folder.name][row["column"]] for folder in rehearsed.glob(step) if row["column"] in told[folder.name]]
        assert of == [pytest.approx(row["score"], abs=1e-5)]
    assert any("loss" in row for name, row in told.items() if name.startswith("instruct_"))


def test_report_and_status_open_no_weights_and_nothing_takes_long(rehearsed: Path) -> None:
    code = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from blindspot.cli import app
app(sys.argv[1:], standalone_mode=False)
assert any("plan.json" in name for name in opened)
assert not [name for name in opened if name.endswith(".safetensors")]
"""
    for arguments in (["status", str(rehearsed)], ["report", str(rehearsed)]):
        subprocess.run(
            [sys.executable, "-c", code, *arguments], check=True, capture_output=True, cwd=rehearsed.parents[1]
        )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = [sys.executable, "-m", "blindspot", *REHEARSE]
    subprocess.run(again, check=True, capture_output=True, cwd=rehearsed.parents[1])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_the_pages_questions_have_their_pictures(rehearsed: Path) -> None:
    gallery = json.loads((rehearsed / "results.json").read_text())["gallery"]
    assert {pick["column"].partition("/")[0] for pick in gallery} == {"mmvp", "tallyqa", "mine"}
    page, kept = (rehearsed / "report" / "index.html").read_text(), [*(rehearsed / "report" / "pictures").iterdir()]
    assert page.count('class="photo"') == len(gallery) <= len(kept) and "not at hand" not in page
    assert all(path.read_bytes().startswith(b"\xff\xd8") for path in kept)


def test_boxes_of_all_models_stand_side_by_side(rehearsed: Path) -> None:
    """Figure 4 of the paper."""
    shown = json.loads((rehearsed / "results.json").read_text())["localisation"]
    arms = {"siglip", "aimv2", "replicate", "paligemma", "onevision"}
    assert shown and all({answer["arm"] for answer in pick["answers"]} == arms for pick in shown)
    assert all(pick["box"] and pick["units"] == [96, 96] for pick in shown)
    said = [answer for pick in shown for answer in pick["answers"]]
    assert all((answer["box"] is not None) == (answer["raw"] in BOXES) for answer in said)
    assert "Where the arms see it" in (rehearsed / "report" / "index.html").read_text()


def test_diagnoses_of_a_rehearsal_are_on_its_page(rehearsed: Path) -> None:
    trained = ("siglip", "aimv2", "replicate")
    plan = load_plan(rehearsed)
    found = load_arms(rehearsed, plan)
    assert {label for label, _ in found} == {arm.label for arm in plan.arms if arm.id in trained}
    assert len(found) == len(trained)
    for _, tables in found:
        assert tables["counterfactuals"]["shares"].rows
    page = (rehearsed / "report" / "index.html").read_text()
    assert "Where it can be read, and what answers follow" in page and (rehearsed / "report/figures").is_dir()


def test_models_stand_beside_the_arms(rehearsed: Path) -> None:
    results = json.loads((rehearsed / "results.json").read_text())
    arms = {arm["id"]: arm for arm in results["arms"]}
    assert [arms[name]["block"] for name in ("paligemma", "onevision")] == ["Frontier models", "Others"]
    own = [row for row in results["scores"] if row["arm"] == "paligemma"]
    assert {(row["stage"], row["seed"]) for row in own} == {("instruct", None), ("instruct", 0)}
    assert all(row["low"] <= row["score"] <= row["high"] for row in own)
    compared = {pair[side] for pair in results["pairs"] for side in ("a", "b")}
    assert not compared & {"paligemma", "onevision"}, "how much another training would differ is not known"
    first, last = (score_table(results, stage) for stage in ("connector", "instruct"))
    assert first and last and "Frontier models" not in dict(first.blocks)
    cells = [cell for name in ("Frontier models", "Others") for row in dict(last.blocks)[name] for cell in row.cells]
    assert len(cells) == 2 * len(last.columns) and not any(cell.best for cell in cells), "the best is an arm"
    page = (rehearsed / "report" / "index.html").read_text()
    assert "LLaVA-OneVision" in page and "trained from random weights" not in page


@pytest.mark.parametrize("model_id", [model.model for model in load_study("paper").models])
def test_every_model_of_the_paper_that_is_shipped_says_a_word_and_ends(model_id: str, tmp_path: Path) -> None:
    write_model(tmp_path, model_id)
    write_benchmark(tmp_path, "mmvp", seed=0)
    evaluation = prepare(select("mmvp"), tmp_path, lambda: open_local(str(tmp_path / model_id), device="cpu"), limit=4)
    assert not evaluation.run(tmp_path / "out")
    rows = [json.loads(line) for line in (tmp_path / "out/mmvp/answers.jsonl").open()]
    assert rows and all(0 < len(row["raw"]) < 20 for row in rows)


@pytest.mark.parametrize(
    "name", ["mine/vlm", "allenai/Molmo-7B-D-0924", "./Qwen2.5-VL", "/x/Qwen2.5-VL", "../qwen2-vl", "a/b/qwen2-vl"]
)
def test_a_model_that_is_not_written_is_named_with_those_that_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"ORGANISATION/NAME\) of llava, .*qwen2_5_vl.* this is none$") as refused:
        write_model(tmp_path, name)
    assert name in str(refused.value) and not list(tmp_path.iterdir())


def test_a_served_model_is_asked_by_its_name_with_its_key_and_status_counts_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINE", "secret")
    with Toy() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = STUDY.replace("http://127.0.0.1:9/v1", server.url).replace("served: toy", "served: toy, key_env: MINE")
        (tmp_path / "mine.yaml").write_text(text)
        study = load_study(tmp_path / "mine.yaml")
        save_study(study, tmp_path / "study.yaml")
        steps = plan_steps(study, "")
        write_plan(tmp_path, study, steps)
        step = next(step for step in steps if step.arm == "served")
        write_benchmark(tmp_path / "data", "mmvp", seed=0)
        seen: list[tuple[int, int, dict[str, int]]] = []

        def report(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
            (running,) = read_status(tmp_path).to_dict()["running"]
            seen.append((step, steps, running["at"]))

        with locked(tmp_path):
            open_folder(folder := tmp_path / step.folder)
            evaluate_step(StepContext(step, folder, {}, report, tmp_path / "data"))
        server.shutdown()
    assert seen[-1][:2] == (16, 16) and len(seen) == 17
    assert all((at["step"], at["steps"]) == (answered, total) for answered, total, at in seen), "as status tells it"
    assert {request["model"] for request in server.requests} == {"toy"}
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    assert (folder / "answers.jsonl").is_file() and "secret" not in (folder / "run.json").read_text()


def test_a_users_own_questions_are_a_benchmark_of_a_study_whose_keys_hold_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write_own(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(STUDY.replace("[mmvp, tallyqa]", "[mmvp, ./mine.jsonl]"))
    (tmp_path / "plain.yaml").write_text(STUDY.replace("[mmvp, tallyqa]", "[mmvp]"))

    def keys(name: str = "mine.yaml") -> dict[str, str]:
        return {step.id: step.key for step in plan_steps(load_study(name), "") if step.kind == "evaluate"}

    study, first = load_study("mine.yaml"), keys()
    assert "mine/mean" in {column["id"] for column in columns(study)}
    assert first.keys() == keys("plain.yaml").keys() and not {*first.values()} & {*keys("plain.yaml").values()}
    save_study(study, tmp_path / "study.yaml")
    monkeypatch.chdir(tmp_path.parent)
    assert load_study(tmp_path / "study.yaml") == study, "from wherever it is read"
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 48), (20, 30, 200)).save(tmp_path / "door.png")
    assert not {*keys().values()} & {*first.values()}, "another picture is another question"
    second = keys()
    own.write_text(own.read_text().replace("yes", "no"))
    assert not {*keys().values()} & {*second.values()}
    step = next(step for step in plan_steps(load_study("mine.yaml"), "") if step.arm == "served")
    own.write_text(own.read_text().replace("no", "yes"))
    write_benchmark(tmp_path / "data", "mmvp", seed=0)
    with pytest.raises(UserError, match="has changed since the study began; repeat the command"):
        evaluate_step(StepContext(step, tmp_path / step.folder, {}, lambda *told, **more: None, tmp_path / "data"))
    own.unlink()
    with pytest.raises(UserError, match="jsonl is not there"):
        keys()
    result = CliRunner().invoke(app, ["study", "mine.yaml", "--plan"])
    assert result.exit_code == 2 and "mine.jsonl is not there" in result.output and "Traceback" not in result.output


def test_an_encoder_that_is_not_listed_is_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    with pytest.raises(UserError, match="mine/vit: a rehearsal makes the checkpoints"):
        write_encoder(tmp_path, "mine/vit")


def test_all_that_a_study_needs_is_downloaded_and_what_is_missing_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text(STUDY.replace("[mmvp, tallyqa]", "[mmvp]"))
    fakes = {  # each leaves what the real one would
        "hf": 'while [ "$1" != --local-dir ]; do shift; done; mkdir -p "$2"; cd "$2"; for f in model.safetensors '
        "tokenizer.json blip_laion_cc_sbu_558k.json llava_v1_5_mix665k.json; do "
        "printf '\\2\\0\\0\\0\\0\\0\\0\\0{}' > $f; done",  # a header of two bytes, and no weights
        "unzip": 'while [ "$1" != -d ]; do shift; done; for f in . train2017 images train_images VG_100K VG_100K_2; do '
        'mkdir -p "$2/$f"; echo x > "$2/$f/x"; done',
        "curl": "true",
    }
    (tmp_path / "bin").mkdir()
    for name, body in fakes.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\necho {name} >> {tmp_path}/calls\n{body}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    data, study, told = tmp_path / "my data", load_study(tmp_path / "small.yaml"), list[str]()
    write_benchmark(data, "mmvp", seed=0)
    missing = fetch(study, data, told.append)
    assert len(missing) == 1 and missing[0].startswith("ocr_vqa/images: ocr_vqa/images is not in"), missing
    assert (data / "checkpoints" / "lmsys" / "vicuna-7b-v1.5" / "model.safetensors").is_file()
    assert not any("mmvp" in command for command in told), "it was there"
    before = (tmp_path / "calls").read_text()
    assert len(fetch(study, data, told.append)) == 1
    assert (tmp_path / "calls").read_text() == before + "hf\n", "only what is missing is tried again"


def test_a_download_that_fails_is_named_and_the_rest_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)
    for name in ("hf", "curl", "unzip"):
        (tmp_path / name).write_text("#!/bin/bash\nexit 7\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(download, "get", lambda *arguments: (_ for _ in ()).throw(UserError("no network")))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    missing = fetch(load_study(tmp_path / "small.yaml"), tmp_path / "data", lambda command: None)
    assert "lmsys/vicuna-7b-v1.5: `hf download lmsys/vicuna-7b-v1.5" in missing[0] and missing[0].endswith("failed")
    assert [line for line in missing if line.endswith("no network")] == ["mmvp: no network", "tallyqa: no network"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("language_model: lmsys/vicuna-7b-v1.5", "language_model: {own}", "not folders"),
        ("language_model: lmsys/vicuna-7b-v1.5", "language_model: ../up", "not folders"),
        (
            "benchmarks:",
            "connector: {{data: {{file: {own}/rows.json, images: images}}}}\nbenchmarks:",
            "relative to --data",
        ),
        ("benchmarks:", "instruct: {{data: {{file: rows.json, images: ../out}}}}\nbenchmarks:", "relative to --data"),
    ],
)
def test_a_rehearsal_writes_over_nothing_of_the_users(tmp_path: Path, old: str, new: str, said: str) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "rows.json").write_text("mine")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32}
    (own / "config.json").write_text(json.dumps(config))
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY.replace(old, new.format(own=own)))
    with pytest.raises(UserError, match=said):
        plan_steps(load_study(path, "rehearsal"), "code")
    assert (own / "rows.json").read_text() == "mine" and sorted(item.name for item in own.iterdir()) == [
        "config.json", "rows.json",
    ]  # fmt: skip


def test_other_code_is_rehearsed_again_and_retrains_nothing_real(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(STUDY)

    def keys(scale: str, code: str) -> set[str]:
        return {step.key for step in plan_steps(load_study(tmp_path / "small.yaml", scale), code)}

    assert not keys("rehearsal", "old") & keys("rehearsal", "new")
    assert keys("full", "old") == keys("full", "new")
