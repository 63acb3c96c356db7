"""Runs against each other: tests checked against scipy and statsmodels, and nothing left out in silence."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats
from statsmodels.stats.multitest import multipletests

from blindspot.errors import UserError
from blindspot.evaluation.scores.compare import compare
from blindspot.evaluation.scores.show import print_comparison

from .score_rows import Row, box, count, mcq, pairs, random_gqa, write_run


def _counts(hits: list[bool]) -> list[Row]:
    return [count("countbenchqa", place, "3", "3" if hit else "5") for place, hit in enumerate(hits)]


def _compared(folder: Path, first: list[Row], later: list[Row], **info: Any) -> dict[str, Any]:
    """Two runs, of which ``info`` changes what run.json says of the later."""
    return compare([write_run(folder / "a", first), write_run(folder / "b", later, **info)])


def _row(found: dict[str, Any], benchmark: str, metric: str = "overall") -> dict[str, Any]:
    return next(row for row in found["comparisons"] if (row["benchmark"], row["metric"]) == (benchmark, metric))


def test_single_questions_are_compared_by_mcnemar(tmp_path: Path) -> None:
    later = [True] * 18 + [False] * 2 + [True] * 9 + [False] * 21
    row = _row(_compared(tmp_path, _counts([True] * 20 + [False] * 30), _counts(later)), "countbenchqa")
    assert row["test"] == "mcnemar"
    assert row["difference"] == pytest.approx(7 / 50)
    assert row["p"] == pytest.approx(stats.binomtest(2, 11, 0.5).pvalue, rel=1e-5)
    change_q = np.repeat([-1.0, 1.0, 0.0], [2, 9, 39])
    error = change_q.std() / 50**0.5
    assert row["error"] == pytest.approx(error, rel=0.05)
    half = stats.t.ppf(0.975, 49) * row["error"]
    assert (row["low"], row["high"]) == pytest.approx((0.14 - half, 0.14 + half), rel=1e-4)
    assert row["resolves"] == pytest.approx(2.801585 * row["error"], rel=1e-4)


def test_questions_that_share_a_picture_are_swapped_together(tmp_path: Path) -> None:
    rows = random_gqa(300, seed=0, per_image=10)
    changed = [row | {"raw": row["answer"]} if row["groups"]["cluster"] in set("0123") else row for row in rows]
    row = _row(_compared(tmp_path, rows, changed), "gqa")
    assert row["test"] == "permutation" and row["clusters"] == 30
    assert row["p"] == pytest.approx(1 / 8, abs=0.02)  # four clusters changed, all in one direction: 2 of 16 swaps


def test_pairs_are_units_of_their_own(tmp_path: Path) -> None:
    first, later = ([(True, True)] * hits + [(True, False)] * (20 - hits) for hits in (4, 12))
    found = _compared(tmp_path, pairs(first), pairs(later))
    assert _row(found, "mmvp")["test"] == "permutation"
    row = _row(found, "mmvp", "pair_accuracy")
    assert row["test"] == "mcnemar" and row["units"] == 20
    assert row["p"] == pytest.approx(2 / 2**8, rel=1e-5)


def test_overlaps_are_compared_where_both_runs_gave_a_box(tmp_path: Path) -> None:
    right, half, point = "[0.1, 0.2, 0.5, 1.0]", "[0.1, 0.2, 0.3, 1.0]", "[0.5, 0.5]"
    said = (point, right, half, half), (right, point, right, right)
    row = _row(
        _compared(tmp_path, *([box(n, raw) for n, raw in enumerate(raws)] for raws in said)), "coco_boxes", "iou"
    )
    assert (row["clusters"], row["a_value"], row["b_value"]) == (2, 0.5, 1.0)


def test_holm_runs_over_all_overall_scores_shown(tmp_path: Path) -> None:
    runs = []
    for name, hits in (("a", 20), ("b", 32), ("c", 24)):
        rows = _counts([place < hits for place in range(50)]) + pairs([(place < hits, True) for place in range(40)])
        runs.append(write_run(tmp_path / name, rows))
    found = compare(runs)
    main = [row for row in found["comparisons"] if row["metric"] == "overall"]
    assert found["family"] == {"tests": 4, "metric": "overall", "benchmarks": ["mmvp", "countbenchqa"]}
    adjusted = multipletests([row["p"] for row in main], method="holm")[1]
    assert [row["p_holm"] for row in main] == pytest.approx(list(adjusted), rel=1e-4)
    assert all(row["p_holm"] is None for row in found["comparisons"] if row["metric"] != "overall")
    assert {row["significant"] for row in main} == {True, False}


def test_only_shared_questions_count_and_it_is_said(tmp_path: Path) -> None:
    found = _compared(tmp_path, _counts([True] * 6), _counts([True] * 4 + [False] * 4)[2:])
    assert _row(found, "countbenchqa")["n"] == 4
    assert any("4 questions shared, of 6 in the first run and 6 in the later" in note for note in found["notes"])


def test_every_difference_of_the_runs_is_said(tmp_path: Path) -> None:
    rows = [mcq("mmvp", place, "A", "A", set="0", cluster="0") for place in range(2)]
    swapped = [
        row | {"answer": "B", "choices": {"A": "Closed", "B": "Open"}, "prompt": "other", "images": []} for row in rows
    ]
    changed = {"prompts": "paper", "condition": {"blind": "none", "swap": True}}
    notes = "\n".join(_compared(tmp_path, rows + _counts([True]), swapped, **changed)["notes"])
    for expected in (
        'prompts differs: "paper" against "llava"',
        'condition.blind differs: "none" against null',
        "condition.swap differs: true against false",
        "mmvp: 2 of 2 questions were asked with another prompt",
        "mmvp: 2 of 2 questions showed another number of pictures",
        "mmvp: 2 of 2 questions have another right answer",
        "countbenchqa: only the first run has it",
    ):
        assert expected in notes


def test_groups_are_those_of_the_first_run_even_if_it_has_none(tmp_path: Path) -> None:
    rows = pairs([(True, True), (True, False)])
    bare = [row | {"groups": {}} for row in rows]
    found = _compared(tmp_path, bare, rows)
    assert [row["units"] for row in found["comparisons"]] == [4]
    assert any("mmvp: incomplete: no pair_accuracy" in note for note in found["notes"])


def test_other_data_are_not_compared(tmp_path: Path) -> None:
    rows = _counts([True] * 4)
    digests = {"countbenchqa": {"digest": "other"}, "mmvp": {"digest": "0123456789"}}
    found = _compared(tmp_path, rows + pairs([(True, True)]), rows + pairs([(True, False)]), benchmarks=digests)
    assert {row["benchmark"] for row in found["comparisons"]} == {"mmvp"}
    assert any("countbenchqa: made from other data (01234567, other); not compared" in note for note in found["notes"])


def test_files_of_answers_need_no_run_json(tmp_path: Path) -> None:
    files = [
        write_run(tmp_path / name, _counts(hits)) / "countbenchqa" / "answers.jsonl"
        for name, hits in (("a", [True, True]), ("b", [True, False]))
    ]
    found = compare(files)
    assert [run["name"] for run in found["runs"]] == ["a/countbenchqa", "b/countbenchqa"]
    assert _row(found, "countbenchqa")["difference"] == -0.5
    assert any("no run.json" in note for note in found["notes"])


def test_a_question_in_common_is_needed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no shared questions"):
        _compared(tmp_path, _counts([True]), pairs([(True, True)]))
    with pytest.raises(UserError, match="at least two runs"):
        compare([tmp_path / "a"])


def test_hostile_names_are_shown_as_text(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a[bold]", _counts([True] * 3))
    later = write_run(tmp_path / "b\x1b[2J", _counts([True, False, False]), prompts="\x1b]0;title\x07[red]")
    console = Console(file=io.StringIO(), width=150, force_terminal=False)
    print_comparison(compare([first, later]), console, details=True)
    shown = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert "a[bold]" in shown and "[red]" in shown
    assert "\x1b" not in shown and "\x07" not in shown


@settings(max_examples=4)
@given(seed=st.integers(0, 99), skills=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_turning_a_pair_round_turns_the_sign(tmp_path_factory: pytest.TempPathFactory, seed: int, skills: Any) -> None:
    folder = tmp_path_factory.mktemp("runs")
    runs = [write_run(folder / f"{place}", random_gqa(40, seed, skill)) for place, skill in enumerate(skills)]
    forth, back = compare(runs), compare(runs[::-1])
    for ours, theirs in zip(forth["comparisons"], back["comparisons"], strict=True):
        assert (ours["p"], ours["resolves"]) == (theirs["p"], theirs["resolves"])
        assert ours["p"] is None or 0 < ours["p"] <= 1
        if ours["difference"] is not None:
            assert ours["difference"] == -theirs["difference"] and ours["low"] == pytest.approx(-theirs["high"])
            assert ours["low"] <= ours["difference"] <= ours["high"]


def test_a_metric_says_how_many_questions_it_rests_on(tmp_path: Path) -> None:
    rows = random_gqa(50, seed=0)
    found = _compared(tmp_path, rows, rows)
    assert [_row(found, "gqa", name)["n"] for name in ("overall", "choose", "spatial")] == [50, 10, 0]
