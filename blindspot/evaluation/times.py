"""Steps to learn: when a run reaches a level, known to lie between two probes, and contrasts of such times.

Suffixes: ``s`` seeds. Times are in training steps, contrasts in natural logarithms, so that the effect of an arm is a
ratio; bounds that are not known are infinite.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy  # loads its parts when they are first used

from blindspot.evaluation.statistics import CONFIDENCE, PERMUTATIONS

LEVEL = 0.9
"""The score that a run must reach, where nothing else is said."""
_EXACT = 13
"""Most seeds of which all swaps of sides are gone through."""
_GRID = 120
"""Deviations that are tried, each 4 to 8 % above the one before."""
Bounds = tuple[float, float]
"""The two steps that a time lies between."""


@dataclass(frozen=True)
class TimeEffect:
    """A contrast of logarithms of times; None where it cannot be computed."""

    value: float | None  # infinite where one side was never learned
    low: float | None = None  # with ``high``: interval of confidence ``CONFIDENCE``; an infinite end is open
    high: float | None = None
    p: float | None = None  # two-sided
    deviation: float | None = None  # of the contrast between seeds
    seeds: int = 0  # those that say something about it


def reached(probes: Sequence[tuple[float, float]], level: float = LEVEL) -> Bounds:
    """The two steps between which a run reaches a level: at the first of two probes in a row that show it.

    Args:
        probes: step and score, in the order of steps.
        level: the least score that counts.

    Returns:
        The last probe before (0 without one) and that probe; infinite where it is not seen, after the last probe that
        a later one could not turn into the first of two.
    """
    before = 0.0
    for (step, score), (_, following) in pairwise(probes):
        if score >= level and following >= level:
            return before, step
        before = step
    if probes and probes[-1][1] < level:
        before = probes[-1][0]
    return before, np.inf


def time_contrast(weights: Mapping[Any, float], bounds_s: Sequence[Mapping[Any, Bounds]]) -> TimeEffect:
    """A weighted sum of log times, taken at each seed apart; of one arm with weight 1, the log of its typical time.

    The sum of a seed lies between the ends that follow from those of its arms. Over seeds it is normal, so times are
    log-normal and interval-censored; its mean and deviation maximise the likelihood (Kalbfleisch and Prentice 2002,
    section 3.2, of intervals). The interval is the profile likelihood's, cut
    where n log(1 + t^2 / (n - 1)) is: t of the paired test, which it is where nothing is censored. Seeds that tell one
    side alone bound it at least as their own ends do, taken for exact. ``p``: what the seeds expect their sum to be
    without an effect, given their ends, with signs swapped at random (a permutation of the sides within seeds); all
    swaps are gone through up to 13 seeds. n seeds cannot have p below 2^(1 - n).

    Args:
        bounds_s: per seed the bounds of each arm's time.
    """
    ends_s = [(_total(weights, own, 0), _total(weights, own, 1)) for own in bounds_s]
    low_s, high_s = np.array([ends for ends in ends_s if np.isfinite(ends).any()]).reshape(-1, 2).T
    seeds = len(low_s)
    if not seeds:
        return TimeEffect(None)
    fit = _Fit(low_s, high_s)
    value = fit.best()
    if seeds < 2:
        return TimeEffect(value, seeds=seeds)
    t = -float(scipy.special.stdtrit(seeds - 1, (1 - CONFIDENCE) / 2))
    cut = fit.profile(value) - seeds / 2 * np.log1p(t**2 / (seeds - 1))
    low = max(fit.end(value, cut, -1), _bound(low_s, -t))
    high = min(fit.end(value, cut, 1), _bound(high_s, t))
    deviation = fit.deviation(value) * (seeds / (seeds - 1)) ** 0.5 if np.isfinite(value) else None
    return TimeEffect(value, min(low, value), max(high, value), _swapped(fit.expected()), deviation, seeds)


def _total(weights: Mapping[Any, float], bounds: Mapping[Any, Bounds], end: int) -> float:
    """The lower (0) or upper (1) end of a weighted sum of log times."""
    with np.errstate(divide="ignore"):
        each = [one * np.log(bounds[arm][end if one > 0 else 1 - end]) for arm, one in weights.items() if one]
    open_end = -np.inf if end == 0 else np.inf
    return open_end if open_end in each else float(sum(each))


def _bound(end_s: np.ndarray, t: float) -> float:
    """The end of the interval of t if every seed's sum were at its end; open if one is."""
    if not np.isfinite(end_s).all():
        return float(np.sign(t)) * np.inf
    return float(end_s.mean() + t * end_s.std(ddof=1) / len(end_s) ** 0.5)


class _Fit:
    """The likelihood of a normal mean and deviation, given ends of each value."""

    def __init__(self, low_s: np.ndarray, high_s: np.ndarray) -> None:
        self._low_s, self._high_s = low_s, high_s
        width_s = (high_s - low_s)[np.isfinite(high_s - low_s)]
        ends = np.concatenate([low_s, high_s])
        ends = ends[np.isfinite(ends)]
        self._span = float(np.ptp(ends)) + 1.0
        self._reach = float(ends.min()) - 20 * self._span, float(ends.max()) + 20 * self._span
        # Ends say nothing of a deviation below that of a value anywhere between them.
        least = max(float(np.median(width_s)) / 12**0.5 if len(width_s) else 0.0, 1e-3)
        self._grid = np.geomspace(least, max(4 * self._span, 2 * least), _GRID)

    def best(self) -> float:
        """The most likely mean."""
        for side, end_s in ((np.inf, self._high_s), (-np.inf, self._low_s)):
            if (end_s == side).all():
                return side
        found = scipy.optimize.minimize_scalar(lambda mean: -self.profile(mean), bounds=self._reach, method="bounded")
        return float(found.x)  # pyright: ignore[reportAttributeAccessIssue]

    def profile(self, mean: float) -> float:
        """The log likelihood at the deviation that makes it largest."""
        return 0.0 if np.isinf(mean) else float(self._likelihood(mean).max())

    def deviation(self, mean: float) -> float:
        """The most likely deviation around a mean, of those in the grid."""
        return float(self._grid[np.argmax(self._likelihood(mean))])

    def end(self, value: float, cut: float, side: int) -> float:
        """Where the profile falls to a level on one side of the most likely mean; infinite if it does not."""
        far, start = self._reach[side > 0], value if np.isfinite(value) else self._reach[side < 0]
        if value == side * np.inf or self.profile(far) > cut:
            return side * np.inf
        return float(scipy.optimize.brentq(lambda mean: self.profile(mean) - cut, start, far, xtol=1e-6))

    def expected(self) -> np.ndarray:
        """Each value's expectation if the mean is 0."""
        deviation = self.deviation(0.0)
        low_s, high_s = self._low_s / deviation, self._high_s / deviation
        densities = np.exp(-(low_s**2) / 2) - np.exp(-(high_s**2) / 2)
        return deviation * densities / (2 * np.pi) ** 0.5 / np.exp(_log_mass(low_s, high_s))

    def _likelihood(self, mean: float) -> np.ndarray:
        low_sd, high_sd = ((end_s - mean)[:, None] / self._grid for end_s in (self._low_s, self._high_s))
        return _log_mass(low_sd, high_sd).sum(axis=0)


def _log_mass(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Log of the standard normal probability between two ends, from the tail that keeps its digits."""
    right = low > 0
    low, high = np.where(right, -high, low), np.where(right, -low, high)
    return scipy.special.log_ndtr(high) + np.log1p(
        -np.minimum(np.exp(scipy.special.log_ndtr(low) - scipy.special.log_ndtr(high)), 1 - 1e-15)
    )


def _swapped(value_s: np.ndarray) -> float:
    """Two-sided p value of values' sum when signs are swapped at random, the observed ones counted."""
    seeds = len(value_s)
    if seeds <= _EXACT:
        sign_rs = 1.0 - 2 * (np.arange(2**seeds)[:, None] >> np.arange(seeds) & 1)
    else:
        drawn_rs = np.random.default_rng([0, 2]).integers(0, 2, (PERMUTATIONS, seeds))
        sign_rs = np.concatenate([np.ones((1, seeds)), 1.0 - 2 * drawn_rs])
    reached = np.abs(value_s.sum()) - 1e-9 * np.abs(value_s).sum()
    return float((np.abs(sign_rs @ value_s) >= reached).mean())
