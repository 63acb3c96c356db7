"""A run beside published scores: what may be compared is, and what may not says why."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rules import LMMS_EVAL, OFFICIAL
from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.evaluation.scores.verify import DATASETS, INSIDE, NOT_COMPARABLE, OUTSIDE, published, verify

from .score_rows import mcq, write_run

SHARED = Path("/work/shared/paper/published_2026.csv")


def _run(folder: Path, right: int, **info: object) -> Path:
    """A run of MindCube-tiny with 400 questions, so many of them right."""
    rows = [mcq("mindcube", n, "A", "A." if n < right else "B.", setting="among", cluster=str(n)) for n in range(400)]
    told = {"answerer": {"model": "Qwen/Qwen2.5-VL-3B-Instruct"}, "prompts": "qwen2_5_vl"}
    return write_run(folder, rows, **told | info)


def _verdicts(folder: Path) -> dict[tuple[str, str], tuple[str, str]]:
    return {(row["dataset"], row["source"]): (row["verdict"], row["why"]) for row in verify(folder)["rows"]}


def test_a_published_score_is_inside_or_outside_in_the_words_of_its_harness(tmp_path: Path) -> None:
    tiny, easi, other = "MindCubeBench_tiny_raw_qa", "EASI (backend=VLMEvalKit)", "EASI (backend=lmms-eval)"
    near, far = (_verdicts(_run(tmp_path / str(right), right)) for right in (152, 250))
    assert near[tiny, easi] == (INSIDE, "") and far[tiny, easi] == (OUTSIDE, "")  # 38.0 and 62.5 beside 37.88
    assert near[tiny, other][0] == NOT_COMPARABLE and "other prompt" in near[tiny, other][1]
    assert "21,154" in near["MindCubeBench_raw_qa", easi][1]
    of_other = _verdicts(_run(tmp_path / "lmms", 152, prompts=LMMS_EVAL))
    assert of_other[tiny, other][0] == INSIDE and of_other[tiny, easi][0] == NOT_COMPARABLE
    of_authors = _verdicts(_run(tmp_path / "own", 152, prompts=OFFICIAL))
    assert of_authors[tiny, "Paper"][0] == INSIDE


@pytest.mark.parametrize(
    ("info", "why"),
    [
        ({"limit": 400}, "other subset: 400 questions"),
        ({"condition": {"blind": "grey", "swap": False}}, "other question: blind grey"),
        ({"prompts": "plain"}, "other prompt"),
        ({"benchmarks": {"mindcube": {"notes": ["400 questions, published 1,050"]}}}, "published 1,050"),
    ],
)
def test_what_was_asked_otherwise_is_not_compared(info: dict[str, object], why: str, tmp_path: Path) -> None:
    found = _verdicts(_run(tmp_path / "run", 152, **info))
    assert all(verdict == NOT_COMPARABLE for verdict, _ in found.values())
    assert all(why in said for (dataset, _), (_, said) in found.items() if "tiny" in dataset)


def test_who_has_no_published_score_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no published score of mine; of: Qwen2"):
        verify(_run(tmp_path / "run", 1, answerer={"model": "mine"}))
    run = write_run(tmp_path / "other", [mcq("mmvp", 0, "A", "A")], answerer={"model": "Qwen2.5-VL-3B-Instruct"})
    with pytest.raises(UserError, match=r"none of the benchmarks .* mindcube"):
        verify(run)
    with pytest.raises(UserError, match="not a run folder"):
        verify(tmp_path / "absent")


def test_published_scores_are_the_shared_ones_and_their_metrics_exist() -> None:
    for name, dataset in DATASETS.items():
        metrics = [metric.name for metric in BENCHMARKS[dataset.benchmark].metrics]
        assert {dataset.metric, *dict(dataset.of_rules).values()} <= {*metrics}, name
    assert {row["dataset"] for row in published()} == {*DATASETS}
    if not SHARED.is_file():
        pytest.skip("the shared file of published scores is not on this machine")
    shipped = Path(__file__).parents[2] / "blindspot" / "evaluation" / "published_2026.csv"
    assert shipped.read_bytes() == SHARED.read_bytes()


def test_the_command_prints_it(tmp_path: Path) -> None:
    run = str(_run(tmp_path / "run", 152))
    shown = CliRunner().invoke(app, ["benchmarks", "--verify", run], env={"COLUMNS": "120"})
    assert shown.exit_code == 0, shown.output
    for expected in ("37.88", "38.0", "inside", "not comparable", "other prompt"):
        assert expected in shown.output
    assert json.loads(CliRunner().invoke(app, ["benchmarks", "--verify", run, "--json"]).stdout)["rows"][0]["n"] == 400
