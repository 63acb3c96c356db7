"""Large files, keys and disk of studies: nothing is hashed, retrained or filled up without need and without a word."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.studies import step as stepping
from blindspot.studies.budget import peak
from blindspot.studies.engine import Scheduler
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.rehearsal import write_benchmark
from blindspot.studies.status import read_status
from blindspot.studies.step import KEEP, Damage, Done, Room, Step, mark_done, read_done, refuse_full, remove_weights
from tests.studies.conftest import REAL as STUDY

RunReal = Callable[..., tuple[set[str], str]]
TENSOR = b'{"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]}}'
WEIGHTS = len(TENSOR).to_bytes(8, "little") + TENSOR + bytes(8)
STEP = Step("instruct/siglip/seed0", "instruct", "siglip", 0, None, {"recipe": "llava"}, {}, 1.0, "key")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed; those of 1,000 bytes and more are large."""
    names: list[str] = []
    whole = stepping.sha256_file
    monkeypatch.setattr(stepping, "LARGE_BYTES", 1000)
    monkeypatch.setattr(stepping, "sha256_file", lambda path: names.append(path.name) or whole(path))
    return names


@pytest.fixture
def finished(tmp_path: Path, hashed: list[str]) -> Path:
    """The folder of a finished step with a large file and a small one."""
    folder = tmp_path / "step"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(300_000))
    (folder / "log.jsonl").write_text("{}\n")
    mark_done(folder, STEP, 1.0, {})
    hashed.clear()
    return folder


def test_a_large_file_is_hashed_once_for_each_time_of_change(finished: Path, hashed: list[str], tmp_path: Path) -> None:
    assert read_done(finished, STEP) and hashed == ["log.jsonl"]
    hashed.clear()
    copy = Path(shutil.copytree(finished, tmp_path / "copy", copy_function=shutil.copyfile))
    os.utime(copy / "model.safetensors", (1, 1))
    assert read_done(copy, STEP) and sorted(hashed) == ["log.jsonl", "model.safetensors"], "time alone is no damage"
    hashed.clear()
    assert read_done(copy, STEP) and hashed == ["log.jsonl"], "the new time was recorded"
    assert read_done(copy, STEP).content == read_done(finished, STEP).content  # pyright: ignore


def test_what_an_older_version_recorded_is_completed_and_what_a_newer_one_did_is_no_damage(
    finished: Path, hashed: list[str]
) -> None:
    said = json.loads((finished / "done.json").read_text())
    (finished / "done.json").write_text(
        json.dumps({key: said[key] for key in ("key", "step", "seconds", "files", "inputs")})
    )
    for expected in (2, 1):
        hashed.clear()
        assert read_done(finished, STEP) and len(hashed) == expected
    (finished / "done.json").write_text(json.dumps({**said, "of_tomorrow": 1}))
    assert read_done(finished, STEP)


@pytest.mark.parametrize("place", [0, 65_535, -65_536, -1, None])
def test_damage_at_the_ends_or_in_size_is_found_though_the_time_is_the_same(finished: Path, place: int | None) -> None:
    path = finished / "model.safetensors"
    stat, content = path.stat(), bytearray(path.read_bytes())
    if place is None:
        content = content[:-1]
    else:
        content[place] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(Damage, match=r"model\.safetensors is damaged"):
        read_done(finished, STEP)


def test_what_no_look_finds_is_found_by_hashing(finished: Path, hashed: list[str]) -> None:
    path = finished / "model.safetensors"
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[150_000] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert read_done(finished, STEP)
    told: list[str] = []
    with pytest.raises(Damage, match=r"model\.safetensors is damaged"):
        read_done(finished, STEP, verify=True, tell=told.append)
    assert told == ["Hashing model.safetensors of instruct/siglip/seed0, 300.0 kB"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """All that the study needs, as small as it can be."""
    folder = tmp_path / "data"
    for name in ("google/siglip-base-patch16-256", "lmsys/vicuna-7b-v1.5"):
        (folder / "checkpoints" / name).mkdir(parents=True)
        (folder / "checkpoints" / name / "model.safetensors").write_bytes(WEIGHTS)
        (folder / "checkpoints" / name / "tokenizer.json").write_text("{}")
    pictures = ("coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K", "vg/VG_100K_2")
    for name in (*pictures, "LLaVA-Pretrain/images"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.jpg").touch()
    for name in ("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "llava_v1_5_mix665k.json"):
        (folder / name).write_text("[]")
    for name in ("mmvp", "vsr"):
        write_benchmark(folder, name, seed=0)
    return folder


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], float]], None]:
    """Invent the free space of every disk."""

    def have(free: Callable[[], float]) -> None:
        usage = lambda path: shutil._ntuple_diskusage(10**15, 0, int(free()))  # noqa: E731  # pyright: ignore
        monkeypatch.setattr(shutil, "disk_usage", usage)

    return have


REAL = STUDY.replace("extends: paper", "extends: paper\nmodels: []")
CHANGES = {
    "nothing but a comment": ("# A comment.", "# Another, and longer."),
    "the title": ("title: Two arms", "title: Two encoders"),
    "a label": ("label: SigLIP,", "label: Sigmoid,"),
    "the order of benchmarks": ("[mmvp, vsr]", "[vsr, mmvp]"),
    "the order of arms": (
        "    - {id: siglip,",
        "    - {id: mine, label: M, encoder: openai/clip-vit-large-patch14}\n    - {id: siglip,",
    ),
    "counts, which estimates read": (
        "benchmarks",
        "instruct: {data: {file: llava_v1_5_mix665k.json, images: ., rows: 665298, with_image: 1, text_tokens: 290, "
        "supervised_tokens: 9}}\nbenchmarks",
    ),
    "a setting at its default": ("benchmarks", "connector: {clip: 1.0}\nbenchmarks"),
    "models beside the arms": ("models: []", "models: [{id: m, label: M, model: google/gemma-3-4b-it}]"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_computes_nothing_else_is_in_no_key(change: str, tmp_path: Path) -> None:
    old, new = CHANGES[change]
    assert old in REAL

    def keys(text: str) -> dict[str, str]:
        (tmp_path / "mine.yaml").write_text(text)
        return {step.id: step.key for step in plan_steps(load_study(tmp_path / "mine.yaml"), "")}

    assert keys(REAL).items() <= keys(REAL.replace(old, new)).items()


def test_a_label_or_a_title_redoes_nothing_and_a_rate_what_follows_from_it(tmp_path: Path, run: RunReal) -> None:
    everything, _ = run()
    assert len(everything) == 1 + 3 * 2 * 4
    renamed = STUDY.replace("Two arms", "Others").replace("label: SigLIP,", "label: Sigmoid,")
    again, printed = run(renamed)
    assert again == set() and "everything is done already" in printed
    again, printed = run(STUDY.replace("benchmarks", "instruct: {lr: 1e-5}\nbenchmarks"))
    stage_2 = {name for name in everything if name.startswith(("instruct", "evaluate/instruct"))}
    assert again == stage_2
    first, *_ = printed.splitlines()
    assert first == "12 finished steps are made again: siglip, axial, replicate: instruct.lr was 2e-05, is 1e-05"
    assert "again" in printed and "are of no step that this study has now; they hold" in printed
    status = read_status(tmp_path / "run")
    assert {folder.name.split("_")[0] for folder in status.left_over} == {"instruct", "evaluate"}
    assert len(status.left_over) == 12 and status.to_dict()["left_over"][0]["bytes"] > 0
    again, printed = run()
    assert again == set(), "the folders of before are still there"
    for folder in read_status(tmp_path / "run").left_over:
        shutil.rmtree(folder)
    assert run() == (set(), printed) and not read_status(tmp_path / "run").left_over


def test_an_arm_that_changes_is_named_with_what_changed(run: RunReal) -> None:
    run()
    again, printed = run(STUDY.replace("positions: axial", "positions: mixed"))
    assert {name.split("/")[-2] for name in again} == {"axial"} and len(again) == 8
    assert "finished steps are made again: axial: positions.scheme was " in printed.splitlines()[0]


def test_steps_are_made_again_on_demand_with_what_depends_on_them_and_once(
    run: RunReal, monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    assert run(redo=["evaluate/instruct/siglip"])[0] == {f"evaluate/instruct/siglip/seed{seed}" for seed in (0, 1)}
    assert run(redo=["instruct/axial/seed0"])[0] == {"instruct/axial/seed0", "evaluate/instruct/axial/seed0"}
    monkeypatch.setenv("TOY_BREAK", "evaluate/instruct/siglip/seed1=user")
    with pytest.raises(UserError, match="crooked"):
        run(redo=["connector/siglip"], workers=1)
    monkeypatch.delenv("TOY_BREAK")
    again, _ = run(redo=["connector/siglip"], workers=1)
    assert not any(name.startswith(("connector", "instruct")) for name in again), "the same command goes on"
    assert "evaluate/instruct/siglip/seed1" in again
    assert run() == (set(), run()[1])
    with pytest.raises(UserError, match=r'--redo evaluate/instrct: no step .* did you mean "evaluate/instruct"\?'):
        run(redo=["evaluate/instrct"])


def test_what_cannot_be_made_again_for_want_of_weights_is_not_thrown_away(
    run: RunReal,
) -> None:
    run(keep="scores")
    with pytest.raises(UserError, match="needs weights that --keep removed; to retrain"):
        run(redo=["evaluate/instruct/siglip/seed0"])
    assert run()[0] == set()


def test_a_step_of_other_code_is_kept_and_named(
    run: RunReal, data: Path, disk: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk(lambda: 10**13)
    made, printed = run(REAL, None, data=data)
    assert len(made) == 2 * 4 and "by other code" not in printed
    assert "more on the disk at a time" in printed and "with --keep scores" in printed
    monkeypatch.setattr("blindspot.studies.study.code_version", lambda everything: "mended")
    made, printed = run(REAL, None, data=data)
    assert not made and "8 finished steps were made by other code and are kept (--redo STEP): connector/" in printed
    made, printed = run(REAL, None, data=data, redo=["evaluate"])
    assert len(made) == 4
    assert "4 finished steps were made by other code" in run(REAL, None, data=data)[1]


def test_a_checkpoint_that_is_cut_short_is_named_before_anything_starts(
    run: RunReal, data: Path, disk: Callable, tmp_path: Path
) -> None:
    disk(lambda: 10**13)
    path = data / "checkpoints/lmsys/vicuna-7b-v1.5/model.safetensors"
    for content in (WEIGHTS[:-1], WEIGHTS[:20], WEIGHTS[:4], b"", b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(
            UserError, match=r"^lmsys/vicuna-7b-v1.5 \(a whole model.safetensors\) that study .*: missing"
        ):
            run(REAL, None, data=data)
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_stops_the_study_before_a_step(
    run: RunReal, data: Path, disk: Callable, tmp_path: Path
) -> None:
    steps = tmp_path / "run/steps"
    disk(lambda: 10**9 if len(list(steps.glob("*/done.json"))) >= 2 else 10**13)
    with pytest.raises(UserError) as stopped:
        run(REAL, None, data=data)
    assert str(stopped.value).startswith("instruct/") and "\n" not in str(stopped.value)
    assert "it writes about 246.4 GB and the disk" in str(stopped.value) and "has 1.0 GB free" in str(stopped.value)
    done = {path.parent.name for path in steps.glob("*/done.json")}
    assert len(done) == 2 and not list(steps.glob("instruct_*/log.jsonl"))
    with pytest.raises(UserError, match=r"GB with --keep all, .* with --keep scores are needed; free some"):
        run(REAL, None, data=data)
    disk(lambda: 10**13)
    assert len(run(REAL, None, data=data)[0]) == 8 - 2


def test_what_a_step_has_written_and_what_runs_beside_it_count(tmp_path: Path, disk: Callable) -> None:
    one, other = (replace(STEP, id=name, room=Room(0, 0, 1000)) for name in ("one", "other"))
    disk(lambda: 1500)
    refuse_full(tmp_path, one, [])
    with pytest.raises(UserError, match=r"one: .* 2.0 kB and .* 1.5 kB free"):
        refuse_full(tmp_path, one, [other])
    (tmp_path / other.folder).mkdir(parents=True)
    (tmp_path / other.folder / "checkpoint").write_bytes(bytes(600))
    refuse_full(tmp_path, one, [other])


@settings(max_examples=15)
@given(keep=st.sampled_from(sorted(KEEP)), sizes=st.lists(st.integers(1, 60), min_size=27, max_size=27))
def test_the_peak_is_what_the_engine_has_on_the_disk_at_most(
    keep: str, sizes: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    run, file = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("study") / "small.yaml"
    file.write_text(STUDY)
    planned = plan_steps(load_study(file, "rehearsal"), "")
    size = {step.id: sizes[number] for number, step in enumerate(planned)}
    rooms = {name: Room(3 * n, 2 * n, 7 * n % 64 + 3 * n) for name, n in size.items()}
    steps = [replace(step, room=rooms[step.id], estimate=1.0 + size[step.id] % 7) for step in planned]
    scheduler, seen = Scheduler(steps, run, keep), 0
    while task := scheduler.start(lambda step: True):
        held = sum(path.stat().st_size for path in run.rglob("*") if path.is_file() and path.name != "done.json")
        seen = max(seen, held + task.step.room.working)
        task.folder.mkdir(parents=True)
        (task.folder / "log.jsonl").write_bytes(bytes(size[task.step.id]))
        (task.folder / "model.safetensors").write_bytes(bytes(2 * size[task.step.id]))
        scheduler.finish(task.step, mark_done(task.folder, task.step, 1.0, task.contents))
    assert scheduler.complete and peak(steps, keep) == seen
    assert peak(steps, keep, done=[step.id for step in steps]) == 0


def test_weights_go_as_early_as_they_can(tmp_path: Path) -> None:
    """So that a study of 27 runs has room where one has."""
    study = load_study("paper-controlled")
    steps = plan_steps(study, "")
    one = max(step.room.working for step in steps)
    peaks = {keep: peak(steps, keep) for keep in KEEP}
    assert peaks["scores"] < 1.05 * one < peaks["last"] < peaks["all"]
    weights = {keep: sum(step.room.weights for step in steps if step.kind not in KEEP[keep]) for keep in KEEP}
    assert peaks["all"] > weights["all"] > peaks["last"] - one > 0.9 * weights["last"]


def test_downloads_are_refused_where_they_do_not_fit_sizes_first(
    tmp_path: Path, data: Path, disk: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.yaml").write_text(REAL)
    shutil.rmtree(data / "coco")
    disk(lambda: 37e9)
    monkeypatch.setattr("subprocess.run", lambda *_, **__: pytest.fail("something was downloaded"))
    call = ["data", "get", str(tmp_path / "small.yaml"), "--data", str(data)]
    result = CliRunner().invoke(app, call, env={"COLUMNS": "500"})
    assert result.exit_code == 2 and "Traceback" not in result.output
    head, table = result.output.index("19.0 GB to download, which takes at most 38.0 GB"), result.output.index("coco")
    assert table < head < result.output.index("what is missing takes about 38.0 GB and the disk of")
    with (data / "coco_train2017.zip").open("wb") as archive:
        archive.truncate(2 * 10**9)  # an attempt that was broken off
    ran: list[object] = []
    monkeypatch.setattr("subprocess.run", lambda *arguments, **_: ran.append(arguments) or pytest.skip.Exception("ran"))
    result = CliRunner().invoke(app, call, env={"COLUMNS": "500"})
    assert "17.0 GB to download, which takes at most 36.0 GB" in result.output and ran


def test_models_that_are_only_evaluated_have_sizes(data: Path) -> None:
    from blindspot.studies.needs import needs

    study = load_study("paper")
    assert all(need.size > 6e9 for need in needs([], data, models=study.models))
    own = study.models[0].model_copy(update={"model": str(data / "checkpoints/lmsys/vicuna-7b-v1.5")})
    (need,) = needs([], data, models=[own])
    assert need.here and need.size == len(WEIGHTS) + 2


def weights(run: Path) -> set[str]:
    return {path.parents[1].name.split("_")[0] for path in run.glob("steps/*/model/*.safetensors")}


@pytest.mark.parametrize(
    ("keep", "left"), [("all", {"connector", "instruct"}), ("last", {"instruct"}), ("scores", set())]
)
def test_steps_without_their_weights_stay_done(tmp_path: Path, run: RunReal, keep: str, left: set[str]) -> None:
    carried, _ = run(keep=keep)
    assert sum("instruct/siglip" in name for name in carried) == 4, (
        "a training and an evaluation from each of two seeds"
    )
    assert weights(tmp_path / "run") == left
    assert len(list((tmp_path / "run/models").iterdir())) == (6 if "instruct" in left else 0)
    assert run()[0] == set(), "nothing is trained again, whatever is kept"
    assert run(keep="scores")[0] == set() and not weights(tmp_path / "run")
    (done,) = (tmp_path / "run/steps").glob("instruct_siglip_seed0-*/done.json")
    assert list(json.loads(done.read_text())["removed"]) == ["model/model.safetensors"]
    assert "nested/result.json" in json.loads(done.read_text())["files"]


def test_weights_stay_until_all_that_reads_them_is_done(
    tmp_path: Path, run: RunReal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_BREAK", "evaluate/instruct=user")
    with pytest.raises(UserError, match="crooked"):
        run(keep="scores")
    assert "instruct" in weights(tmp_path / "run")
    monkeypatch.delenv("TOY_BREAK")
    run(keep="scores")
    assert not weights(tmp_path / "run")


def test_what_would_be_retrained_is_one_line_and_done_only_if_its_folders_go(tmp_path: Path, run: RunReal) -> None:
    run(keep="scores")
    steps = tmp_path / "run/steps"
    shutil.rmtree(next(steps.glob("evaluate_instruct_siglip_seed1-*")))
    needed = [next(steps.glob(f"{kind}_siglip_seed1-*")) for kind in ("connector", "instruct")]
    with pytest.raises(UserError) as caught:
        run()
    assert str(caught.value) == (
        "evaluate/instruct/siglip/seed1 has to be made and needs weights that --keep removed; "
        f"to retrain connector/siglip/seed1, instruct/siglip/seed1, remove {needed[0]} {needed[1]}"
    )
    for folder in needed:
        shutil.rmtree(folder)
    assert run(keep="scores")[0] == {
        "connector/siglip/seed1",
        "instruct/siglip/seed1",
        "evaluate/instruct/siglip/seed1",
    }
    assert not weights(tmp_path / "run")


def test_a_record_that_names_files_elsewhere_removes_none_of_them(tmp_path: Path, run: RunReal) -> None:
    run(keep="scores")
    (tmp_path / "mine").write_text("mine")
    (done,) = (tmp_path / "run/steps").glob("evaluate_instruct_siglip_seed0-*/done.json")
    done.write_text(json.dumps(json.loads(done.read_text()) | {"removed": {"../../../mine": "0"}}))
    with pytest.raises(
        UserError, match="to retrain connector/siglip/seed0, instruct/siglip/seed0, remove"
    ):  # a damaged step is made again
        run(keep="scores")
    assert (tmp_path / "mine").exists()


def test_what_a_step_made_is_the_same_without_its_weights(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_text("a")
    done = Done("key", "step", 1.0, {"a.safetensors": "1", "log.jsonl": "2"}, {})
    done.write(tmp_path)
    without = remove_weights(tmp_path)
    assert without.content == done.content and list(without.files) == ["log.jsonl"]
    assert not (tmp_path / "a.safetensors").exists() and remove_weights(tmp_path) == without
