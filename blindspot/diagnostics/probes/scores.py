"""Scores of probes with their intervals, and differences between them, all from the same resampled pictures."""

from collections.abc import Sequence

import numpy as np

from blindspot.diagnostics.base import Value, bounds, resampled_means
from blindspot.diagnostics.probes.readouts import Outcome
from blindspot.evaluation.statistics import is_binary, wilson


class Scores:
    """Scores of several outcomes on the same pictures: 1 - lost / stake, share of right units or R2.

    Args:
        outcomes: to compare.
        chosen_s: whether each picture counts.
        classes: whether what was read is a class.
    """

    def __init__(self, outcomes: Sequence[Outcome], chosen_s: np.ndarray, classes: bool) -> None:
        self.n, self._classes = int(chosen_s.sum()), classes
        self._lost_so = np.stack([outcome.lost_s[chosen_s] for outcome in outcomes], axis=1)
        self._stake_so = np.stack([outcome.stake_s[chosen_s] for outcome in outcomes], axis=1)
        self._apart_o = [float(outcome.apart_s[chosen_s].mean()) for outcome in outcomes]
        drawn = resampled_means(np.hstack([self._lost_so, self._stake_so]))
        lost_ro, stake_ro = np.hsplit(drawn, 2)
        self._drawn_ro = 1 - lost_ro / stake_ro
        self.value_o = 1 - self._lost_so.sum(axis=0) / self._stake_so.sum(axis=0)

    def row(self, at: int) -> Value:
        """Score of one outcome: Wilson where every picture is right or wrong, else bootstrap."""
        value = float(self.value_o[at])
        low, high = bounds(self._drawn_ro[:, at])
        lost_s = self._lost_so[:, at]
        single = bool((self._stake_so[:, at] == 1).all()) and is_binary(lost_s)
        if self._classes and (single or np.ptp(lost_s) == 0):
            interval = wilson(value * self.n, self.n)
            low, high = interval.low, interval.high
        return {"value": value, "low": low, "high": high, "n": self.n}

    def error(self, at: int) -> float | None:
        """Mean distance of what was read from the truth, where it is no class."""
        return None if self._classes else self._apart_o[at]

    def difference(self, first: int, second: int) -> Value:
        """Score of one outcome minus that of another, with a paired bootstrap."""
        low, high = bounds(self._drawn_ro[:, first] - self._drawn_ro[:, second])
        value = float(self.value_o[first] - self.value_o[second])
        return {"value": value, "low": low, "high": high, "n": self.n}
