"""Steps to learn: from probes to intervals of time, and contrasts of their logarithms against what is known of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from blindspot.evaluation.times import Bounds, reached, time_contrast


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
