"""Numbers of a run: the specification's worked examples, closed forms and independent computations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from blindspot.benchmarks.mme import COGNITION, PERCEPTION
from blindspot.errors import UserError
from blindspot.evaluation.scores.report import habits
from blindspot.evaluation.statistics import resampled_sums

from .score_rows import Row, answers_of, box, count, mcq, numbers, pairs, random_gqa, text, yes_no


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
