"""The real steps at a size that takes seconds: the same results however they are run, and what each stage trains."""

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.files import read_jsonl
from blindspot.reporting import collect
from blindspot.scenes.sampling import test_questions as draw_test
from blindspot.studies import corpus as corpus_module
from blindspot.studies import steps as step_functions
from blindspot.studies.corpus import Corpus
from blindspot.studies.engine import seed_everything
from blindspot.studies.loading import load_study
from blindspot.studies.steps import column_scores, probe_steps
from tests.studies.conftest import wait_for

ROOT = Path(__file__).parents[2]
STUDY = """
name: tiny
title: A tiny study
source: scenes
arms: {families: [clip, aimv2], positions: [learned, axial]}
seeds: 1
data: {train: 30, test: 2, probe: 4}
model: {image: 32, patch: 8, width: 16, heads: 2, mlp: 24, encoder_layers: 1, language_layers: 1, rotary_base: 100}
text: {about: mixed, steps: 3, batch: 4, lr: 5e-3}
encoder: {captions: places, steps: 3, batch: 4, lr: 3e-3}
connector: {steps: 3, batch: 2, lr: 2e-2}
instruct: {encoder: trained, steps: 2, batch: 2, lr: 4e-2}
"""
COMMAND = """
import sys
from pathlib import Path
from blindspot.studies.study import run_study
run_study(sys.argv[1], out=Path(sys.argv[2]), workers=1, tracker=(sys.argv[3:] or [None])[0])
print("torch loaded:", "torch" in sys.modules)
"""
CLI = """
import sys
from blindspot.cli import app
app(sys.argv[1:], standalone_mode=False)
print("loaded:", {"matplotlib", "scipy.stats", "statsmodels", "torch"} & set(sys.modules) or "nothing heavy")
"""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.yaml").write_text(STUDY)
    return folder


@pytest.fixture(scope="module")
def run(home: Path, run_inline: Callable[..., Path]) -> Path:
    """A complete run that was never interrupted."""
    whole = run_inline(home / "tiny.yaml", home / "whole")
    collect(whole)
    return whole


def command(home: Path, out: str, *tracker: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "tiny.yaml", out, *tracker],
        cwd=home,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/studies/trackers'}", "TRACKED": str(home / "tracked")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def results(run: Path) -> dict[str, bytes]:
    """Everything that steps made, and ``results.json``."""
    files = [path for path in (run / "steps").rglob("*") if path.is_file() and path.name != "done.json"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in [*files, run / "results.json"]}


def step_folder(run: Path, name: str) -> Path:
    (found,) = run.glob(f"steps/{name}-*")
    return found


def test_the_run_is_complete_and_its_models_have_names(run: Path) -> None:
    scored = json.loads((run / "results.json").read_text())
    assert {arm["id"] for arm in scored["arms"]} == {"clip-learned", "clip-axial", "aimv2-learned", "aimv2-axial"}
    assert {row["column"] for row in scored["scores"]} == {column["id"] for column in scored["columns"]}
    assert not [note for note in scored["notes"] if "not done" in note or "no column" in note]
    assert len(list(run.glob("models/*-seed0/config.json"))) == 4
    assert not [*run.rglob("checkpoints"), *run.rglob("error.txt")]
    for log in (*run.glob("steps/instruct_*/log.jsonl"), *run.glob("steps/encoder_*/log.jsonl")):
        last = json.loads(log.read_text().splitlines()[-1])
        assert last["step"] == last["steps"] and last["loss"] > 0


@pytest.fixture(scope="module")
def killed(home: Path) -> Path:
    """The same run with a tracker in other processes, killed and damaged on the way."""
    other = home / "other"
    killed = command(home, "other", "trackio")

    def second_instruct_step_begun() -> bool:
        return len(list(other.glob("steps/instruct_*"))) >= 2

    wait_for(second_instruct_step_begun, killed, 120)
    killed.kill()
    killed.communicate(timeout=10)
    done = sorted(path.parent for path in other.glob("steps/instruct_*/done.json"))
    weights = done[0] / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)
    assert not (other / "results.json").exists()

    finished = command(home, "other", "trackio")
    printed, _ = finished.communicate(timeout=120)
    assert finished.returncode == 0, printed
    assert "rebuilding instruct/" in printed and "model/model.safetensors is damaged" in printed
    collect(other)
    return other


def test_killed_and_damaged_in_other_processes_it_ends_with_the_same_bits(run: Path, killed: Path) -> None:
    whole = results(run)
    assert {name.split("/")[1].split("_")[0] for name in whole if name.startswith("steps")} >= {"instruct", "evaluate"}
    assert results(killed) == whole


def test_a_tracker_hears_every_step_and_score_once_more_after_a_kill(killed: Path, home: Path) -> None:
    told: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for line in (home / "tracked").read_text().splitlines():
        row = json.loads(line)
        told[row.pop("run").removeprefix("other/")][row.pop("step")] = row
    logs = {path.parent.name: list(read_jsonl(path)) for path in killed.glob("steps/*/log.jsonl")}
    assert {name for name in told if not name.startswith("evaluate")} == logs.keys()
    for name, rows in logs.items():
        losses = {row["step"]: row["loss"] for row in rows if "loss" in row}
        assert {step: row["loss"] for step, row in told[name].items() if "loss" in row} == losses
    for row in json.loads((killed / "results.json").read_text())["scores"]:
        if row["seed"] is not None and row["split"] == "iid":
            (step,) = killed.glob(f"steps/evaluate_{row['stage']}_{row['arm']}_seed{row['seed']}-*")
            assert told[step.name][1][row["column"]] == pytest.approx(row["score"], abs=1e-5)


def test_a_second_call_does_nothing_without_torch_and_restores_the_names_of_models(run: Path, home: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run / "steps").rglob("*")}
    (run / "models" / "clip-axial-seed0").unlink()  # as if killed right after the last step
    again = command(home, "whole")
    printed, _ = again.communicate(timeout=60)
    assert again.returncode == 0, printed
    assert "everything is done already" in printed and "torch loaded: False" in printed
    assert {path: path.stat().st_mtime_ns for path in (run / "steps").rglob("*")} == before
    assert (run / "models" / "clip-axial-seed0" / "config.json").is_file()


def test_a_finished_study_prints_what_it_found_and_remakes_only_what_was_touched(
    run: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def again() -> list[str]:
        done = CliRunner().invoke(app, ["study", "tiny.yaml", "--out", "whole"])
        assert done.exit_code == 0, done.output
        return done.stdout.splitlines()

    def made() -> dict[Path, int]:
        paths = [run / "results.json", *run.glob("tables/*"), *run.glob("report/**/*")]
        return {path: path.stat().st_mtime_ns for path in paths if path.is_file()}

    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "100")
    first, files = again(), made()
    assert len(files) > 8
    alone = [sys.executable, "-c", CLI, "study", "tiny.yaml", "--out", "whole"]
    second = subprocess.run(alone, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert second.stdout.splitlines() == [*first, "loaded: nothing heavy"] and made() == files, second.stderr
    contents = {path: path.read_bytes() for path in files}
    for path in (run / "results.json", next(run.glob("tables/*.csv")), run / "report" / "index.html"):
        path.write_bytes(contents[path].replace(b"0", b"1"))
    next(run.glob("report/figures/*.svg")).unlink()
    again()
    assert {path: path.read_bytes() for path in files} == contents


def test_evaluation_of_a_stage_has_every_question_once(run: Path) -> None:
    asked = [json.loads(line) for line in (step_folder(run, "data") / "test.jsonl").read_text().splitlines()]
    for folder in run.glob("steps/evaluate_*"):
        rows = [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]
        assert sorted(row["id"] for row in rows) == sorted(question["id"] for question in asked)


class Trained:
    """Weights of a variant before and after a training step of a run."""

    def __init__(self, contexts: Any, run: Path, out: Path, kind: str, arm: str, encoder: str = "trained") -> None:
        study = load_study(run / "study.yaml")
        study = study.model_copy(update={"instruct": study.instruct.model_copy(update={"encoder": encoder})})
        context = contexts(run, study)[f"{kind}/{arm}/seed0"]
        train = step_functions.train_variant
        self.before: dict[str, Tensor] = {}
        self.after: dict[str, Tensor] = {}

        def watched(model: Any, *arguments: Any, **options: Any) -> None:
            self.before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            train(model, *arguments, **options)
            self.after = dict(model.state_dict())

        out.mkdir()
        seed_everything(context.step.config["seed"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_functions, "train_variant", watched)
            step_functions.STEPS[kind](replace(context, folder=out))

    def changed(self) -> set[str]:
        """Parts with a weight that training changed."""
        names = [name for name, tensor in self.before.items() if not torch.equal(tensor, self.after[name])]
        return {part for part in ("vision_tower", "multi_modal_projector", "language_model", "lm_head")
                for name in names if part in name}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "encoder", "parts"),
    [
        ("connector", "trained", {"multi_modal_projector"}),
        ("instruct", "frozen", {"multi_modal_projector", "language_model", "lm_head"}),
        ("instruct", "trained", {"multi_modal_projector", "language_model", "lm_head", "vision_tower"}),
    ],
)
@pytest.mark.parametrize("arm", ["clip-learned", "aimv2-axial"])
def test_each_stage_changes_its_parts_only(
    contexts: Any, run: Path, tmp_path: Path, kind: str, encoder: str, parts: set[str], arm: str
) -> None:
    trained = Trained(contexts, run, tmp_path / "step", kind, arm, encoder)
    assert trained.changed() == parts
    tables = [tensor for name, tensor in trained.after.items() if "position_embedding.weight" in name]
    assert len(tables) == 1 and bool((tables[0] == 0).all()) == arm.endswith("axial")
    if kind == "instruct" and encoder == "trained":
        moved = [name for name, tensor in trained.after.items() if not torch.equal(tensor, trained.before[name])]
        assert any("position_embedding" in name for name in moved) == arm.endswith("learned")


def test_a_stage_begins_where_the_one_before_ended(contexts: Any, run: Path, tmp_path: Path) -> None:
    connector = Trained(contexts, run, tmp_path / "connector", "connector", "clip-axial")
    instruct = Trained(contexts, run, tmp_path / "instruct", "instruct", "clip-axial")
    assert instruct.before.keys() == connector.after.keys()
    assert all(torch.equal(tensor, connector.after[name]) for name, tensor in instruct.before.items())


def test_so_few_pictures_that_none_has_a_caption_is_one_line(contexts: Any, run: Path, tmp_path: Path) -> None:
    study = load_study(run / "study.yaml")
    study = study.model_copy(update={"data": study.data.model_copy(update={"train": 1})})
    with pytest.raises(UserError, match="so few pictures that none"):
        step_functions.data(replace(contexts(run, study)["data"], folder=tmp_path))


def test_probes_show_no_picture_of_training_or_test(run: Path) -> None:
    corpus = Corpus(step_folder(run, "data"))
    others = {picture.tobytes() for picture in (*corpus.images, *corpus.pictures("test")[:, 0])}
    probes = [picture.tobytes() for picture in corpus.pictures("probe")[:, 0]]
    assert len(probes) > 0 and not others & set(probes)
    asked = Counter(question.benchmark for question in corpus.questions("probe"))
    assert asked == Counter(dict.fromkeys({one.benchmark for one in corpus.questions("test")}, 4))


def test_a_probe_that_leaks_into_the_test_is_refused(
    contexts: Any, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leaking(split: Any, count: int, seed: int, others: Any = (), name: str | None = None, sizes: Any = ()) -> Any:
        if name != "probe":
            return draw_test(split, count, seed, others)
        scenes, questions = draw_test(split, count, seed, others, name)
        tested, _ = draw_test(split, count, seed)
        return [tested[0], *scenes[1:]], questions

    monkeypatch.setattr(corpus_module, "test_questions", leaking)
    with pytest.raises(ValueError, match="1 pictures of probes are in training or test"):
        step_functions.data(replace(contexts(run, load_study(run / "study.yaml"))["data"], folder=tmp_path))


def test_a_study_has_four_hundred_probes_a_column_that_stand_at_two_steps_a_doubling() -> None:
    assert load_study("miniature").data.probe == load_study("why").data.probe == 400
    assert probe_steps(320) == [30, 42, 60, 85, 120, 170, 240, 320]
    assert probe_steps(240)[-2:] == [170, 240] and probe_steps(2) == [2]


def test_stage_2_writes_what_probes_found_after_their_steps(run: Path) -> None:
    for folder in run.glob("steps/instruct_*"):
        rows = [json.loads(line) for line in (folder / "probes.jsonl").read_text().splitlines()]
        assert [(row["step"], row["questions"]) for row in rows] == [(2, {"cvbench_relation": 4})]
        assert all(
            row["right"].keys() == {"cvbench_relation"} and 0 <= row["right"]["cvbench_relation"] <= 1 for row in rows
        )


def test_a_pair_scores_as_its_worse_half() -> None:
    rows = [
        {"id": f"{column}{number}", "benchmark": column, "groups": {"cluster": f"{number // 2}"}, "score": score}
        for column in ("mmvp", "vsr")
        for number, score in enumerate((1.0, 0.0, 1.0, 1.0))
    ]
    assert column_scores(rows) == {"mmvp": 0.5, "vsr": 0.75}
