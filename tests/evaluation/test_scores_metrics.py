"""Numbers of a run, and of runs against each other: worked examples, closed forms, scipy and statsmodels."""

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

from blindspot.benchmarks.mme import COGNITION, PERCEPTION
from blindspot.errors import UserError
from blindspot.evaluation.scores.compare import compare
from blindspot.evaluation.scores.report import habits
from blindspot.evaluation.scores.show import print_comparison
from blindspot.evaluation.statistics import resampled_sums

from .score_rows import Row, answers_of, box, count, mcq, numbers, pairs, random_gqa, text, write_run, yes_no


def test_mme_adds_accuracy_and_pictures_with_both_right_per_category() -> None:
    rows = []
    for category in PERCEPTION + COGNITION:
        for picture, raws in enumerate((("Yes", "No"), ("Yes", "Yes"))):
            label = f"{category}/{picture}"
            for gold, raw in zip(("Yes", "No"), raws, strict=True):
                rows.append(yes_no("mme", len(rows), gold, raw, category=category, set=label, cluster=label))
    assert numbers(rows, "category/OCR")["value"] == pytest.approx(125)
    assert numbers(rows, "perception")["value"] == pytest.approx(1250)
    assert numbers(rows, "cognition")["value"] == pytest.approx(500)
    assert numbers(rows)["value"] == pytest.approx(1750 / 2800)


def test_cvbench_is_the_mean_of_its_sources() -> None:
    hits = [("coco", True), ("coco", True), ("coco", True), ("coco", False), ("ade20k", True), ("ade20k", False)]
    rows = [
        mcq("cvbench_2d", place, "A", "A" if hit else "B", source=source) for place, (source, hit) in enumerate(hits)
    ]
    found = numbers(rows)
    assert found["value"] == pytest.approx(0.625)
    assert found["interval"] == "bootstrap"
    assert numbers(rows, "coco")["interval"] == "wilson"


def test_mmvp_counts_questions_and_pairs() -> None:
    rows = pairs([(True, False), (True, True), (False, True), (True, True)])
    assert numbers(rows)["value"] == pytest.approx(0.75)
    assert numbers(rows, "pair_accuracy")["value"] == pytest.approx(0.5)


def test_vsr_counts_an_unreadable_answer_as_wrong_and_as_no() -> None:
    golds, raws = ("Yes", "No", "Yes", "No"), ("Yes", "?", "No", "No")
    rows = [yes_no("vsr", place, *both) for place, both in enumerate(zip(golds, raws, strict=True))]
    found = habits(answers_of(rows), "vlmevalkit-2025-09")
    assert numbers(rows)["value"] == pytest.approx(0.5)
    assert (found["precision"], found["recall"], found["f1"]) == pytest.approx((1, 0.5, 2 / 3))
    assert (found["yes_rate"], found["yes_gold"], found["unparsed"]) == pytest.approx((0.25, 0.5, 0.25))


@pytest.mark.parametrize("right", [0, 7, 10])
def test_a_share_of_single_questions_has_wilsons_interval(right: int) -> None:
    rows = [count("countbenchqa", place, "3", "3" if place < right else "5") for place in range(10)]
    found = numbers(rows)
    golden = stats.binomtest(right, 10).proportion_ci(0.95, method="wilson")
    assert found["interval"] == "wilson"
    assert (found["low"], found["high"]) == pytest.approx((golden.low, golden.high))
    assert found["error"] == pytest.approx((right / 10 * (1 - right / 10) / 10) ** 0.5)


def test_the_bootstrap_has_the_error_of_a_mean_of_clusters() -> None:
    rows = random_gqa(2000, seed=1, per_image=10)
    found = numbers(rows)
    by_image = np.array([row["raw"] == row["answer"] for row in rows], dtype=float).reshape(-1, 10).mean(axis=1)
    error = by_image.std() / len(by_image) ** 0.5
    assert found["interval"] == "bootstrap" and found["clusters"] == 200
    assert found["error"] == pytest.approx(error, rel=0.05)
    assert found["low"] == pytest.approx(found["value"] - 1.96 * error, abs=0.15 * error)
    assert found["high"] == pytest.approx(found["value"] + 1.96 * error, abs=0.15 * error)


def test_drawing_kinds_of_clusters_is_drawing_clusters() -> None:
    rng = np.random.default_rng(5)
    table_cj = np.stack([rng.integers(0, 4, 60), rng.integers(3, 6, 60)], axis=1).astype(float)
    ours_r = np.divide(*resampled_sums(table_cj).T)
    drawn_rj = np.array([table_cj[rng.integers(0, 60, 60)].sum(axis=0) for _ in range(4000)])
    plain_r = drawn_rj[:, 0] / drawn_rj[:, 1]
    assert stats.ks_2samp(ours_r, plain_r).pvalue > 0.001


def test_what_can_be_resolved_follows_from_the_error() -> None:
    rows = [count("countbenchqa", place, "3", "3" if place < 300 else "5") for place in range(400)]
    found = numbers(rows)
    assert found["resolves"] == pytest.approx((1.959964 + 0.841621) * (0.75 * 0.25 / 400) ** 0.5, rel=1e-5)
    perfect = numbers(rows[:300])
    assert perfect["error"] == 0 and 0 < perfect["resolves"] < 0.02


def test_chance_is_the_benchmarks_own_or_that_of_the_options() -> None:
    rows = [mcq("cvbench_2d", 0, "A", "A", source="coco"), mcq("cvbench_2d", 1, "A", "B", source="ade20k")]
    rows[1]["choices"] = dict(zip("ABCD", "1234", strict=True))
    assert numbers(rows)["chance"] == pytest.approx(3 / 8)
    assert numbers(rows, "ade20k")["chance"] == pytest.approx(1 / 4)
    assert numbers(pairs([(True, False)]))["chance_corrected"] == pytest.approx(0)
    assert numbers([text("gqa", 0, "yes", "yes")])["chance"] is None


def test_the_same_words_about_two_pictures_are_two_boxes() -> None:
    rows = [box(0, "[0.1, 0.2, 0.5, 1.0]"), box(1, "[0.1, 0.2, 0.5, 1.0]", picture="2000x1000")]
    assert (numbers(rows)["value"], numbers(rows[:1])["value"], numbers(rows[1:])["value"]) == (0.5, 1.0, 0.0)


def test_samples_of_a_question_are_averaged_and_the_questions_stay_the_units() -> None:
    def told(number: int, gold: str, *raws: str, **groups: str) -> Row:
        first, *further = raws
        return mcq("mmvp", number, gold, first, **groups) | {"further": [{"raw": raw} for raw in further]}

    rows = [
        told(0, "A", "A", "A", "B", set="0", cluster="0"),  # two of three; most say A
        told(1, "B", "B", "hm", "B", set="0", cluster="0"),  # two of three; most of what is read says B
        told(2, "A", "hm", "A", "B", set="1", cluster="1"),  # one of three; A was said first
        told(3, "B", "A", "A", "hm", set="1", cluster="1"),  # none
    ]
    found = numbers(rows)
    assert found["value"] == pytest.approx(5 / 12) and (found["n"], found["units"], found["clusters"]) == (4, 4, 2)
    assert [found["samples"][name]["value"] for name in ("pass", "majority")] == [0.75, 0.75]
    assert found["samples"]["count"] == 3 and found["unparsed"] == pytest.approx(3 / 12)
    both = numbers(rows, "pair_accuracy")  # of the first pair both are right in the first sample alone
    assert both["value"] == pytest.approx(1 / 6) and both["samples"]["pass"]["value"] == 0.5
    again = numbers([{**row, "further": [{"raw": row["raw"]}] * 9} for row in rows])
    plain = numbers([{**row, "further": []} for row in rows])
    assert {name: again[name] for name in plain} == plain  # ten equal answers say no more than one


def test_questions_with_unequal_samples_are_refused() -> None:
    rows = [mcq("mmvp", n, "A", "A") | {"further": [{"raw": "A"}] * n} for n in (1, 2)]
    with pytest.raises(UserError, match="3 samples, but the rows before it have 2"):
        numbers(rows)
    with pytest.raises(UserError, match="further must be a list"):
        numbers([mcq("mmvp", 0, "A", "A") | {"further": "A"}])


def test_the_best_constant_answer_gets_no_pair_right() -> None:
    rows = pairs([(True, True)] * 3)
    assert (numbers(rows)["constant"], numbers(rows)["constant_answer"]) == (0.5, "A")
    assert numbers(rows, "pair_accuracy")["constant"] == 0
    words = [text("gqa", place, gold, "?") for place, gold in enumerate(("left", "yes", "yes", "red"))]
    assert (numbers(words)["constant"], numbers(words)["constant_answer"]) == (0.5, "yes")


def test_parts_without_questions_are_left_out_and_counted() -> None:
    found = numbers([mcq("cvbench_2d", place, "A", "AB"[place], source="coco") for place in range(2)])
    assert (found["value"], found["missing_terms"]) == (0.5, 1)
    empty = numbers([mcq("cvbench_2d", 0, "A", "A", source="coco")], "ade20k")
    assert (empty["value"], empty["low"], empty["n"], empty["interval"]) == (None, None, 0, "none")


def test_a_set_is_resampled_as_one_even_over_two_pictures() -> None:
    rows = [mcq("ccbench", place, "A", "A", set=str(place // 4), cluster=f"picture {place // 2}") for place in range(8)]
    assert numbers(rows)["clusters"] == 2


@settings(max_examples=40)
@given(hits=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=12), seed=st.randoms())
def test_of_pairs(hits: list[tuple[bool, bool]], seed: "np.random.Generator") -> None:
    rows = pairs(hits)
    single, both = numbers(rows), numbers(rows, "pair_accuracy")
    assert both["value"] <= single["value"] + 1e-12
    for found in (single, both):
        assert found["low"] - 1e-12 <= found["value"] <= found["high"] + 1e-12
        assert found["low"] >= 0 and found["high"] <= 1
    seed.shuffle(rows)
    assert numbers(rows) == single and numbers(rows, "pair_accuracy") == both


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
