"""Intervals, tests and times to learn against published numbers, against scipy, simulated, and under random input."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from blindspot.evaluation.statistics import (
    Difference,
    Noise,
    Sample,
    chance_corrected,
    clopper_pearson,
    contrast,
    detectable,
    difference,
    fisher_exact,
    holm,
    mcnemar_exact,
    noise_band,
    paired,
    run_noise,
    wilson,
)
from blindspot.evaluation.times import Bounds, reached, time_contrast

SCORES = st.lists(st.floats(0, 1), min_size=1, max_size=40)


def sample(scores: Any, size: int = 1) -> Sample:
    """Clusters of neighbours."""
    return Sample.of(np.asarray(scores, dtype=float), np.arange(len(scores)) // size)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_numbers_of_newcombe_1998_table_1(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    nothing = wilson(0, 0)
    assert (nothing.low, nothing.high, nothing.method) == (None, None, "none")


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 20))
def test_mcnemar_is_the_binomial_test_of_the_discordant_answers(b: int, c: int, same: int) -> None:
    first = np.array([1] * b + [0] * c + [1] * same)
    second = np.array([0] * b + [1] * c + [1] * same)
    expected = mcnemar([[same, b], [c, 0]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(first, second) == pytest.approx(expected)


@given(st.floats(0, 1), st.integers(1, 5000))
def test_wilson_is_that_of_statsmodels_for_any_share(share: float, n: int) -> None:
    low, high = proportion_confint(share * n, n, method="wilson")
    assert dataclasses.astuple(wilson(share * n, n))[:2] == pytest.approx((low, high), abs=1e-12)


def test_holm_gives_the_classic_example_and_skips_what_was_not_tested() -> None:
    assert holm([0.01, None, 0.04, 0.03, 0.005]) == [pytest.approx(0.03), None] + [
        pytest.approx(p) for p in (0.06, 0.06, 0.02)
    ]
    assert holm([None]) == [None]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_never_lowers_a_p_value_nor_swaps_two(p_values: list[float]) -> None:
    adjusted = np.array(holm(p_values), dtype=float)
    assert (adjusted >= np.array(p_values) - 1e-12).all() and (adjusted <= 1).all()
    assert (np.diff(adjusted[np.argsort(p_values, kind="stable")]) >= -1e-12).all()


def test_chance_correction() -> None:
    assert chance_corrected(0.25, 0.25) == 0 and chance_corrected(1.0, 0.5) == 1
    assert chance_corrected(0.4, 0.5) == pytest.approx(-0.2)
    assert (
        chance_corrected(0.4, None) is None
        and chance_corrected(1.0, 1.0) is None
        and chance_corrected(None, 0.5) is None
    )


def test_bootstrap_of_single_questions_agrees_with_scipy() -> None:
    scores = np.random.default_rng(3).random(80)
    ours = sample(scores).estimate().interval
    theirs = stats.bootstrap((scores,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(0))
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.006)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.006)


def test_copies_within_a_cluster_add_nothing() -> None:
    scores = np.random.default_rng(5).random(60)
    first = sample(scores).estimate().error
    assert sample(np.repeat(scores, 3), 3).estimate().error == pytest.approx(first)
    assert first == pytest.approx(scores.std() / np.sqrt(60), rel=0.05)


def test_cluster_bootstrap_covers_the_truth_where_questions_alone_would_not() -> None:
    rng, covered, repeats = np.random.default_rng(0), 0, 60
    for _ in range(repeats):
        scores = (rng.random(400) < np.repeat(rng.choice([0.2, 0.8], size=40), 10)).astype(float)
        interval = sample(scores, 10).estimate().interval
        covered += interval.low is not None and interval.high is not None and interval.low <= 0.5 <= interval.high
    assert covered >= 0.85 * repeats


@settings(max_examples=60)
@given(SCORES, st.integers(1, 5))
def test_interval_holds_the_mean_and_stays_within_zero_and_one(scores: list[float], size: int) -> None:
    interval = sample(scores, size).estimate().interval
    assert interval.low is not None and interval.high is not None
    assert 0 <= interval.low <= interval.high <= 1
    assert interval.low - 1e-9 <= np.mean(scores) <= interval.high + 1e-9


def test_equal_scores_still_leave_doubt() -> None:
    interval = Sample.of(np.ones(5), np.array(["a", "a", "b", "b", "c"])).estimate().interval
    assert interval.high == 1 and interval.low == pytest.approx(wilson(3, 3).low)


def test_sign_flips_agree_with_the_exact_test_of_scipy() -> None:
    differences = np.array([0.5, 1.0, -0.5, 0.25, 1.0, 0.75, -0.25, 0.5, 1.0, 0.0])
    exact = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=10**6, alternative="two-sided"
    )
    assert sample(differences).sign_flip_p() == pytest.approx(exact.pvalue, abs=0.012)


def test_run_noise_pools_within_configurations_only() -> None:
    noise = run_noise([[0.5, 0.7], [0.1, 0.1, 0.1], [0.9]])
    assert (noise.df, noise.runs, noise.variance) == (3, 5, pytest.approx(0.02 / 3))
    assert run_noise([[0.5], [0.6]]) == Noise(None, 0, 0)
    assert noise_band(Noise(0.0004, 10, 20), (2, 2)) == pytest.approx(2.228139 * 0.02, rel=1e-6)
    assert noise_band(Noise(None, 0, 0), (1, 1)) is None


def test_with_nothing_but_run_noise_the_test_is_welchs() -> None:
    a, b = [0.50, 0.54, 0.52], [0.60, 0.57, 0.63]
    test = difference(float(np.mean(a) - np.mean(b)), 1e-9, 500, 0.2, (run_noise([a]), run_noise([b])), (3, 3))
    expected: Any = stats.ttest_ind(a, b, equal_var=False)
    interval = expected.confidence_interval()
    assert test.p == pytest.approx(expected.pvalue) and test.df == pytest.approx(expected.df)
    assert (test.low, test.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_noise_that_is_one_estimate_for_both_arms_is_the_two_sample_t_test() -> None:
    """Of an arm and its replicate, or of arms that ran once."""
    a, b = [0.50, 0.54, 0.52], [0.60, 0.57, 0.63]
    both = run_noise([a, b])
    test = difference(float(np.mean(a) - np.mean(b)), 1e-9, 500, 0.2, (both, both), (3, 3))
    expected: Any = stats.ttest_ind(a, b)
    assert test.p == pytest.approx(expected.pvalue) and test.df == pytest.approx(4)


def test_the_critical_value_is_weighted_by_the_parts_of_the_error() -> None:
    """Cochran and Cox: between those of either part's degrees of freedom, and p is where the interval ends at 0."""
    noises = run_noise([[0.70, 0.75, 0.71]]), run_noise([[0.79, 0.80, 0.84]])
    test = difference(-0.09, 0.02, 60, None, noises, (3, 3))
    between = sum((noise.variance or 0.0) / 3 for noise in noises)
    expected = (between * stats.t.ppf(0.975, test.df) + 0.0004 * stats.t.ppf(0.975, 59)) / (between + 0.0004)
    assert test.error == pytest.approx((between + 0.0004) ** 0.5) and test.low is not None
    assert test.low == pytest.approx(-0.09 - expected * test.error)
    edge = difference(expected * test.error, 0.02, 60, None, noises, (3, 3))
    assert edge.p == pytest.approx(0.05) and edge.low == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("df", [1.0, 2.0, 11.0])
def test_what_is_detectable_is_that_of_the_noncentral_t(df: float) -> None:
    effect = detectable([(0.25, df)], tests=4)
    assert effect is not None
    found = stats.nct.sf(stats.t.ppf(1 - 0.0125 / 2, df), df, effect / 0.5)
    assert found == pytest.approx(0.8, abs=2e-3)
    assert detectable([(0.0, df)]) is None


def test_shares_of_failed_runs_are_exact() -> None:
    assert clopper_pearson(0, 3) == (0, pytest.approx(1 - 0.025 ** (1 / 3)))
    assert clopper_pearson(2, 2)[1] == 1
    assert fisher_exact((3, 3), (0, 3)) == pytest.approx(0.1)


def test_columns_joined_are_their_mean() -> None:
    first, second = np.random.default_rng(4).random((2, 30))
    both = Sample.joined([sample(first, 2), sample(second, 3)])
    assert both.value == pytest.approx((first.mean() + second.mean()) / 2)
    assert (both.clusters, both.most) == (25, 1)


def test_without_a_second_run_the_questions_decide() -> None:
    test = difference(0.1, 0.02, 31, 0.003, (Noise(None, 0, 0),) * 2, (1, 1))
    assert (test.p, test.noise_included, test.error) == (0.003, False, 0.02)
    assert test.low == pytest.approx(0.1 - 2.042272 * 0.02, abs=1e-6)


@given(st.floats(0, 0.3), st.floats(0.001, 0.2), st.floats(0, 0.01), st.integers(1, 10))
def test_training_noise_never_narrows_an_interval(value: float, error: float, variance: float, runs: int) -> None:
    without = difference(value, error, 10_000, 0.5, (Noise(None, 0, 0),) * 2, (runs, runs))
    with_noise = difference(value, error, 10_000, 0.5, (Noise(variance, 8, 16),) * 2, (runs, runs))
    assert without.low is not None and with_noise.low is not None and with_noise.low <= without.low + 1e-9


def test_no_difference_anywhere_is_not_certainty() -> None:
    zero = sample(np.zeros(50))
    assert zero.difference_error() == pytest.approx(np.sqrt(2) / 52)
    assert zero.sign_flip_p() == 1.0


def test_one_cluster_tells_nothing_about_a_difference() -> None:
    only = sample([1.0, 0.5], 2)
    assert only.difference_error() is None and only.sign_flip_p() is None
    test = difference(0.75, None, 1, None, (Noise(0.01, 3, 4),) * 2, (2, 2))
    assert (test.value, test.low, test.p) == (0.75, None, None)


@given(st.permutations(range(12)))
def test_neither_the_order_of_items_nor_the_names_of_clusters_count(order: list[int]) -> None:
    scores, clusters = np.linspace(0, 1, 12), np.arange(12) // 2
    mixed = Sample.of(scores[order], np.array([f"cluster {10 - name}" for name in clusters[order]]))
    assert mixed.estimate() == sample(scores, 2).estimate()
    change, turned = sample(scores - 0.4, 2), Sample.of(scores[order] - 0.4, clusters[order])
    assert change.sign_flip_p() == turned.sign_flip_p() and change.difference_error() == turned.difference_error()


def test_runs_of_the_same_items_are_averaged_item_by_item() -> None:
    first, second = np.random.default_rng(2).integers(0, 2, (2, 40)).astype(float)
    pooled = Sample.combined([sample(first, 2), sample(second, 2)], [0.5, 0.5])
    assert pooled.estimate() == sample((first + second) / 2, 2).estimate()
    assert paired(sample(first), sample(second)).p_questions == pytest.approx(mcnemar_exact(first, second))
    assert paired(pooled, pooled).p_questions == 1.0


def test_a_weighted_sum_of_means_is_one_estimate() -> None:
    """A benchmark's total over parts of unequal size: means first, then their weights; one draw serves all parts."""
    scores = np.random.default_rng(3).integers(0, 2, 120).astype(float)
    term, clusters = np.repeat([0, 1], [30, 90]), np.arange(120) // 2
    both = Sample.of(scores, clusters, term, [0.5, 0.5]).estimate()
    expected = (scores[:30].mean() + scores[30:].mean()) / 2
    assert both.value == pytest.approx(expected)
    assert both.interval.method == "bootstrap" and both.interval.low is not None and both.interval.low < expected
    first, second = (sample(scores[part], 2).estimate().error or 0.0 for part in (slice(0, 30), slice(30, 120)))
    assert both.error == pytest.approx(np.hypot(first, second) / 2, rel=0.15)
    flipped = Sample.of(scores - 0.5, clusters, term, [0.5, 0.5]).sign_flip_p()
    assert flipped is not None and flipped > 0.01
    lacking = Sample.of(scores[:30], clusters[:30], term[:30], [0.5, 0.5])
    assert (lacking.value, lacking.missing) == (pytest.approx(scores[:30].mean()), 1)


def test_the_interval_of_a_contrast_by_hand() -> None:
    test = contrast([0.1, 0.3, 0.5], 0.03, 100, 1)
    squared = 0.0009 + 0.04 / 3
    half = (0.0009 * stats.t.ppf(0.975, 99) + 0.04 / 3 * stats.t.ppf(0.975, 2)) / squared**0.5
    assert (test.low, test.high) == (pytest.approx(0.3 - half), pytest.approx(0.3 + half))


def test_without_an_error_of_questions_it_is_the_paired_t_test() -> None:
    first, second = np.random.default_rng(0).normal(size=(2, 5))
    test, known = contrast((first - second).tolist(), 0.0, 50, 100), stats.ttest_rel(first, second)
    interval = known.confidence_interval(0.95)
    assert (test.value, test.p, test.df) == (pytest.approx((first - second).mean()), pytest.approx(known.pvalue), 4)
    assert (test.low, test.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_what_a_seed_does_to_all_arms_is_no_noise() -> None:
    seed = np.array([0.0, 0.05, -0.1])
    arms = np.array([0.2, 0.5, 0.9])[:, None] + seed
    test = contrast((arms[2] - arms[0]).tolist(), 1e-6, 50, 1)
    assert (test.low, test.high) == (pytest.approx(0.7, abs=1e-5), pytest.approx(0.7, abs=1e-5))


@pytest.mark.parametrize(("values", "error"), [([0.2], 0.02), ([0.2, 0.3], None)])
def test_one_seed_or_one_cluster_leaves_noise_unknown(values: list[float], error: float | None) -> None:
    assert contrast(values, error, 50, 1) == Difference(float(np.mean(values)))


def test_intervals_stay_within_what_a_contrast_can_be() -> None:
    assert contrast([0.8, 1.0], 0.2, 50, 1).high == 1.0
    assert contrast([1.1, 1.3], 0.2, 50, 2).high == 2.0


@pytest.mark.parametrize(
    ("scores", "bounds"),
    [
        ([0.2, 0.95, 0.5, 0.9, 0.92], (120, 160)),
        ([0.95, 0.95], (0, 40)),
        ([0.2, 0.3, 0.4], (120, np.inf)),
        ([0.2, 0.3, 0.95], (80, np.inf)),
        ([], (0, np.inf)),
    ],
)
def test_a_level_is_reached_at_the_first_of_two_probes_in_a_row(scores: list[float], bounds: Bounds) -> None:
    assert reached([(40 * number, score) for number, score in enumerate(scores, start=1)]) == bounds


def exact(times: list[float]) -> list[Bounds]:
    return [(time * 0.9999, time) for time in times]


def test_times_that_are_known_make_the_paired_t_interval_of_their_logarithms() -> None:
    a, b = np.array([480.0, 160, 1080, 300, 420]), np.array([80.0, 120, 240, 100, 250])
    sides = [dict(zip("ab", pair, strict=True)) for pair in zip(exact(a.tolist()), exact(b.tolist()), strict=True)]
    found = time_contrast({"a": 1.0, "b": -1.0}, sides)
    logs = np.log(a / b)
    low, high = stats.t.interval(0.95, 4, logs.mean(), stats.sem(logs))
    assert found.value == pytest.approx(logs.mean(), abs=1e-3)
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))
    assert found.deviation == pytest.approx(logs.std(ddof=1), rel=0.05)
    signs = stats.permutation_test((logs,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found.p == pytest.approx(signs.pvalue)


def test_an_arm_that_never_learns_gives_a_bound_on_one_side() -> None:
    sides = [{"a": (1280.0, np.inf), "b": (time - 40.0, time)} for time in (80.0, 120.0, 240.0)]
    found, turned = (time_contrast({"a": sign, "b": -sign}, sides) for sign in (1.0, -1.0))
    assert found.value == found.high == np.inf and found.low is not None and 0 < found.low < np.log(1280 / 240)
    assert found.p == 0.25 and found.deviation is None
    assert (turned.value, turned.low, turned.high) == (-np.inf, -np.inf, pytest.approx(-found.low, abs=1e-3))


def test_what_says_nothing_is_not_tested() -> None:
    never = [{"a": (1280.0, np.inf), "b": (1280.0, np.inf)}] * 3
    assert time_contrast({"a": 1.0, "b": -1.0}, never).value is None
    assert time_contrast({"a": 1.0, "b": -1.0}, []).p is None
    alone = time_contrast({"a": 1.0, "b": -1.0}, [{"a": (100.0, 140.0), "b": (40.0, 80.0)}])
    assert (alone.seeds, alone.p, alone.low) == (1, None, None)


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(2, 32), st.integers(2, 32)), min_size=2, max_size=6), st.integers(1, 9))
def test_a_longer_step_moves_no_ratio_and_an_interval_holds_its_value(cells: list[tuple[int, int]], by: int) -> None:
    def contrast(step: float) -> tuple[float, float, float]:
        sides = [{"a": (step * (a - 1), step * a), "b": (step * (b - 1), step * b)} for a, b in cells]
        found = time_contrast({"a": 1.0, "b": -1.0}, sides)
        assert found.value is not None and found.low is not None and found.high is not None
        return found.low, found.value, found.high

    low, value, high = contrast(40.0)
    assert low <= value <= high
    assert contrast(40.0 * by) == pytest.approx((low, value, high), abs=0.02)


SIMULATED: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[2] / "perf" / "calibration.py"))
STUDIES = 400
MOST, LEAST = 0.06, 0.93
"""Of family-wise error, and of intervals that hold the truth."""


def within(family: float, holds: float, tests: int, most: float = MOST) -> bool:
    """Whether neither is further off than one such run in a thousand would be."""
    return (
        family * STUDIES <= stats.binom.ppf(0.999, STUDIES, most)
        and holds >= LEAST - 3.1 * (LEAST * (1 - LEAST) / (STUDIES * tests)) ** 0.5
    )


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("noisy", [(), (0,), (0, 2), (0, 2, 4, 6)])
def test_arms_without_a_difference_have_few_asterisks_whatever_their_noise(seeds: int, noisy: tuple[int, ...]) -> None:
    family, worst, holds = SIMULATED["of_pairs"](STUDIES, seeds, noisy)
    assert within(family, holds, 4) and worst * STUDIES <= stats.binom.ppf(0.999, STUDIES, 0.06)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_failures_alike_in_both_arms_make_no_difference(seeds: int) -> None:
    family, _, holds = SIMULATED["of_failures"](STUDIES, seeds)
    assert within(family, holds, 4)


@pytest.mark.parametrize(("seeds", "between"), [(3, 1.0), (3, 20.0), (5, 3.0), (8, 1.0), (12, 20.0)])
def test_claims_without_an_effect_are_seldom_held(seeds: int, between: float) -> None:
    family, _, holds = SIMULATED["of_claims"](STUDIES, seeds, between)
    assert within(family, holds, 8)


@pytest.mark.parametrize("seeds", [3, 8])
def test_what_is_called_detectable_is_found_in_four_of_five_studies(seeds: int) -> None:
    power, _, _ = SIMULATED["of_claims"](100, seeds, 3.0, 1.0)
    assert 0.7 < power < 0.87


@pytest.mark.parametrize(("seeds", "fails", "ratio"), [(3, 0.0, 1.0), (5, 0.1, 1.0), (8, 0.0, 6.0), (12, 0.1, 1.0)])
def test_ratios_of_steps_hold_the_truth(seeds: int, fails: float, ratio: float) -> None:
    family, _, holds = SIMULATED["of_times"](STUDIES // 2, seeds, fails, ratio)
    assert family <= 0.1 and holds > 0.89


def test_thirty_clusters_of_questions_are_enough() -> None:
    missed, _, held = SIMULATED["of_clusters"](STUDIES, 30)
    assert missed < 0.1 and held > 0.89
