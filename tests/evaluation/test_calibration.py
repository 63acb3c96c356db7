"""Errors of a family and coverage in 400 simulated studies, within what so few can show."""

import runpy
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

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
