"""Weights that nothing needs any more go where asked, and what was made of them stays done."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from blindspot.errors import UserError
from blindspot.studies.step import Done, remove_weights
from blindspot.studies.study import run_study
from tests.studies.conftest import REAL

HERE = Path(__file__).parent


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Rehearse a study of real size over toy steps; returns which steps were carried out."""
    (tmp_path / "small.yaml").write_text(REAL)
    monkeypatch.syspath_prepend(HERE)
    trace = tmp_path / "trace"
    monkeypatch.setenv("TOY_TRACE", str(trace))

    def call(keep: str = "all") -> str:
        trace.write_text("")
        console = Console(file=io.StringIO())
        name, out = str(tmp_path / "small.yaml"), tmp_path / "run"
        run_study(name, out=out, scale="rehearsal", console=console, registry="toy_steps:STEPS", keep=keep)
        return trace.read_text()

    return call


def weights(run: Path) -> set[str]:
    return {path.parents[1].name.split("_")[0] for path in run.glob("steps/*/model/*.safetensors")}


@pytest.mark.parametrize(
    ("keep", "left"), [("all", {"connector", "instruct"}), ("last", {"instruct"}), ("scores", set())]
)
def test_steps_without_their_weights_stay_done(
    tmp_path: Path, run: Callable[..., str], keep: str, left: set[str]
) -> None:
    assert run(keep=keep).count("instruct/siglip") == 4, "a training and an evaluation from each of two seeds"
    assert weights(tmp_path / "run") == left
    assert len(list((tmp_path / "run/models").iterdir())) == (6 if "instruct" in left else 0)
    assert run() == "", "nothing is trained again, whatever is kept"
    assert run(keep="scores") == "" and not weights(tmp_path / "run")
    (done,) = (tmp_path / "run/steps").glob("instruct_siglip_seed0-*/done.json")
    assert list(json.loads(done.read_text())["removed"]) == ["model/model.safetensors"]
    assert "nested/result.json" in json.loads(done.read_text())["files"]


def test_weights_stay_until_all_that_reads_them_is_done(
    tmp_path: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_BREAK", "evaluate/instruct=user")
    with pytest.raises(UserError, match="crooked"):
        run(keep="scores")
    assert "instruct" in weights(tmp_path / "run")
    monkeypatch.delenv("TOY_BREAK")
    run(keep="scores")
    assert not weights(tmp_path / "run")


def test_what_would_be_retrained_is_one_line_and_done_only_if_its_folders_go(
    tmp_path: Path, run: Callable[..., str]
) -> None:
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
    assert {line.split()[0] for line in run(keep="scores").splitlines()} == {
        "connector/siglip/seed1",
        "instruct/siglip/seed1",
        "evaluate/instruct/siglip/seed1",
    }
    assert not weights(tmp_path / "run")


def test_a_record_that_names_files_elsewhere_removes_none_of_them(tmp_path: Path, run: Callable[..., str]) -> None:
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


@pytest.mark.parametrize(
    ("study", "keep", "message"),
    [
        ("paper", "some", "--keep: some: should be one of all, last, scores"),
        ("miniature", "last", "study miniature is a miniature, whose weights are small; leave out --keep"),
    ],
)
def test_what_cannot_be_kept_is_one_line(tmp_path: Path, study: str, keep: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run_study(study, out=tmp_path / "run", keep=keep)
