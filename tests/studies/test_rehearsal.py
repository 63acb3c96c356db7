"""Studies of real size at a ten-thousandth: what they make is as published, and a run on it goes to the page."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from blindspot.benchmarks.registry import BENCHMARKS, SETS, select
from blindspot.benchmarks.sources import download
from blindspot.cli import app
from blindspot.encoders import ENCODERS, native_grid
from blindspot.errors import UserError
from blindspot.evaluation.paper import load as load_paper
from blindspot.evaluation.run.opening import open_local
from blindspot.evaluation.run.runner import prepare
from blindspot.model.formats.tower import image_processor, read_tower
from blindspot.reporting.tables import score_table
from blindspot.studies.loading import load_study, save_study, shipped_studies
from blindspot.studies.needs import fetch
from blindspot.studies.plan import plan_steps
from blindspot.studies.real import evaluate_step
from blindspot.studies.rehearsal import FORMS, ROWS, write_benchmark, write_encoder, write_model, write_rows
from blindspot.studies.schema import DATA_SETS
from blindspot.studies.step import StepContext
from tests.evaluation.test_api_answerer import Toy

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
models:
  - {id: qwen2.5-vl, label: Qwen2.5-VL, model: Qwen/Qwen2.5-VL-7B-Instruct}
  - {id: onevision, label: LLaVA-OneVision, model: llava-hf/llava-onevision-qwen2-7b-ov-hf, block: Others}
  - {id: served, label: Served, model: "http://127.0.0.1:9/v1", served: toy}
"""


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


def test_a_miniature_has_no_rehearsal() -> None:
    with pytest.raises(UserError, match='scale "rehearsal": unknown'):
        load_study("miniature", "rehearsal")


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the study was rehearsed, with commands' options checked before and after."""
    tmp_path = tmp_path_factory.mktemp("rehearsed")
    (tmp_path / "small.yaml").write_text(STUDY)

    def call(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "blindspot", "study", "small.yaml", "--scale", "rehearsal", *options]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)

    assert "a rehearsal makes what it reads and takes no --data" in call("--data", "x").stderr
    first = call()
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


def test_models_stand_beside_the_arms(rehearsed: Path) -> None:
    results = json.loads((rehearsed / "results.json").read_text())
    arms = {arm["id"]: arm for arm in results["arms"]}
    assert [arms[name]["block"] for name in ("qwen2.5-vl", "onevision")] == ["Frontier models", "Others"]
    own = [row for row in results["scores"] if row["arm"] == "qwen2.5-vl"]
    assert {(row["stage"], row["seed"]) for row in own} == {("instruct", None), ("instruct", 0)}
    assert all(row["low"] <= row["score"] <= row["high"] for row in own)
    compared = {pair[side] for pair in results["pairs"] for side in ("a", "b")}
    assert not compared & {"qwen2.5-vl", "onevision"}, "how much another training would differ is not known"
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


def test_a_served_model_is_asked_by_its_name_with_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "secret")
    with Toy() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        text = STUDY.replace("http://127.0.0.1:9/v1", server.url).replace("served: toy", "served: toy, key_env: MINE")
        (tmp_path / "mine.yaml").write_text(text)
        study = load_study(tmp_path / "mine.yaml")
        save_study(study, tmp_path / "study.yaml")
        step = next(step for step in plan_steps(study, "") if step.arm == "served")
        write_benchmark(tmp_path / "data", "mmvp", seed=0)
        step.config["benchmarks"] = ["mmvp"]
        (folder := tmp_path / step.folder).mkdir(parents=True)
        evaluate_step(StepContext(step, folder, {}, lambda *_, **__: None, tmp_path / "data"))
        server.shutdown()
    assert {request["model"] for request in server.requests} == {"toy"}
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer secret"}
    assert (folder / "answers.jsonl").is_file() and "secret" not in (folder / "run.json").read_text()


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
        "tokenizer.json blip_laion_cc_sbu_558k.json llava_v1_5_mix665k.json; do echo x > $f; done",
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


def test_what_cannot_be_downloaded_for_a_study_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for arguments, said in (
        (("small", "--form", "tsv"), "--form tsv: is of a single benchmark"),
        (("miniature",), "study miniature draws what it reads"),
        (("small", "--data", str(tmp_path / "file" / "in")), "choose another folder"),
        ((str(tmp_path / "none.yaml"),), "cannot read study"),
    ):
        result = CliRunner().invoke(app, ["data", "get", *arguments])
        assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output
