"""Carrying out diagnostics: what is kept, what is not repeated, what is refused; and the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.diagnostics import run as carrying
from blindspot.diagnostics.base import Budget, Findings, Table
from blindspot.diagnostics.probes import fits
from blindspot.diagnostics.registry import DIAGNOSTICS, plots_of
from blindspot.diagnostics.run import claim, diagnose, open_vlm
from blindspot.errors import UserError
from blindspot.model.variant import save
from blindspot.reporting import drawing, write_report
from blindspot.reporting.diagnosis import write_diagnosis
from blindspot.studies import diagnosing
from blindspot.studies.step import Step, StepContext
from tests.diagnostics.known import random_subject
from tests.evaluation.tiny_families import checkpoint
from tests.reporting.checker import Checker, mark_done
from tests.reporting.conftest import write_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names in the order in which stand-ins for diagnostics run; ``third`` can't be made."""
    ran: list[str] = []

    def stand_in(name: str) -> Callable[..., Findings]:
        def run(*_: Any) -> Findings:
            ran.append(name)
            if name == "third":
                raise UserError("not of this model")
            row = {"value": np.float32(1 / 3), "low": np.nan, "high": -0.0, "n": np.int64(2)}
            return Findings([Table("numbers", "Numbers", [row], ("A note.",))], {"shown": np.eye(2)})

        return run

    monkeypatch.setattr(carrying, "run_of", stand_in)
    return ran


def test_each_is_kept_as_soon_as_it_is_done_and_not_repeated(done: list[str], tmp_path: Path) -> None:
    subject, told = random_subject(), []
    diagnose(subject, ["third", "first"], Budget(), tmp_path, lambda *said: told.append(said))
    assert told == [("third", 0, 1), ("first", 0, 1)]
    left_out = {"name": "third", "title": "Left out", "notes": ["not of this model"], "rows": []}
    assert json.loads((tmp_path / "third.json").read_text())["tables"] == [left_out]
    written = json.loads((tmp_path / "first.json").read_text())
    row = {"value": 0.333333, "low": None, "high": 0.0, "n": 2}
    assert written["tables"] == [{"name": "numbers", "title": "Numbers", "notes": ["A note."], "rows": [row]}]
    assert np.array_equal(np.load(tmp_path / "first.npz")["shown"], np.eye(2))
    diagnose(subject, ["first", "second"], Budget(), tmp_path, lambda *_: None)
    assert done == ["third", "first", "second"]


def test_a_folder_is_of_one_diagnosis(tmp_path: Path) -> None:
    assert claim(tmp_path, "a", "w", ["probes", "norms"], Budget()) == ["probes", "norms"]
    (tmp_path / "probes.json").write_text("{}")
    assert claim(tmp_path, "a", "w", ["probes", "norms"], Budget(batch=1)) == ["norms"]
    others = [("b", "w", Budget()), ("a", "v", Budget()), ("a", "w", Budget(stimuli=9)), ("a", "w", Budget(seed=1))]
    for model, weights, budget in others:
        with pytest.raises(UserError, match="holds a diagnosis with"):
            claim(tmp_path, model, weights, ["norms"], budget)
    (tmp_path / "diagnosis.json").write_text("{")
    with pytest.raises(UserError, match=r"diagnosis\.json"):
        claim(tmp_path, "a", "w", ["norms"], Budget())


def test_a_device_that_is_not_there_is_named(tmp_path: Path) -> None:
    model = checkpoint("llava", tmp_path / "llava")
    for device in ("gpu", "cuda:99"):
        with pytest.raises(UserError, match=f"cannot use device {device}: "):
            open_vlm(model, device)


def test_the_command_writes_a_page_and_goes_on_where_it_was(tmp_path: Path) -> None:
    model, out = checkpoint("llava", tmp_path / "llava"), tmp_path / "out"
    wanted = ["diagnose", str(model), "--out", str(out), "--stimuli", "16", "--only"]
    first = CliRunner().invoke(app, [*wanted, "norms"])
    assert first.exit_code == 0 and (out / "index.html").exists(), first.output
    before = (out / "norms.json").stat().st_mtime_ns
    again = CliRunner().invoke(app, [*wanted, "norms,coherence"])
    assert again.exit_code == 0 and (out / "coherence.json").exists(), again.output
    assert (out / "norms.json").stat().st_mtime_ns == before
    other = CliRunner().invoke(app, [*wanted, "norms", "--seed", "1"])
    assert other.exit_code == 2 and "holds a diagnosis with seed 0, not 1" in " ".join(other.output.split())


def test_a_study_step_runs_all_eight_on_a_random_network_into_both_pages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosing, "STIMULI", 16)
    monkeypatch.setattr(fits, "STEPS", 20)
    monkeypatch.setitem(drawing._RC, "pdf.fonttype", 3)  # the usual fonts take most of the time
    subject = random_subject()
    save(subject.model, tmp_path / "instruct" / "model")
    subject.processor.save_pretrained(tmp_path / "instruct" / "model")
    arm = {"id": "clip-learned", "label": "LLaVA-CLIP", "axes": {"family": "clip", "positions": "learned"}}
    column = {"id": "vsr", "label": "VSR", "paper": "VSR", "chance": 0.5}
    run = write_run(tmp_path / "run", per_column=4, seeds=(0,), columns=[column], arms=[arm])
    config = {"seed": 0, "diagnose": list(DIAGNOSTICS)}
    step = Step("diagnose/clip", "diagnose", "clip-learned", 0, None, config, {"instruct": "instruct"}, 1.0, "key")
    folder, told = run / step.folder, set()
    folder.mkdir()
    inputs = {"instruct": tmp_path / "instruct"}
    diagnosing.diagnose(StepContext(step, folder, inputs, lambda *_, phase="", **__: told.add(phase)))
    assert told == set(DIAGNOSTICS)
    for name in DIAGNOSTICS:
        tables = plots_of(name).ROWS
        written = {
            table["name"]: table["rows"] for table in json.loads((folder / f"{name}.json").read_text())["tables"]
        }
        assert written.keys() == tables.keys()
        for table, kind in tables.items():
            keys = {key for row in written[table] for key in row}
            assert keys == kind.__annotations__.keys(), f"{name}: {table}"

    page, sentences = write_diagnosis(folder)
    assert sentences[0].startswith("No task is answered better than by guessing")
    assert "There but not used" not in " ".join(sentences) and "left out" not in " ".join(sentences)
    assert all(one.question in Checker(page).text for one in DIAGNOSTICS.values())

    mark_done(folder)
    plan = json.loads((run / "plan.json").read_text())
    plan["steps"].append({"id": step.id, "kind": "diagnose", "folder": step.folder, "arm": step.arm, "seed": 0})
    (run / "plan.json").write_text(json.dumps(plan))
    text = Checker(write_report(run)).text
    assert "Where it can be read, and what answers follow" in text
    assert "Best read-out at each stage" in text and "order of tokens" in text
