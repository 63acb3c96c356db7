"""Which samples each step sees: a pure function of seed and step."""

from collections.abc import Callable

import numpy as np

from blindspot.training.data.batching import llava_order

Permute = Callable[[int], np.ndarray]
"""Epoch -> a permutation of all samples."""


class Order:
    """The samples of every step. Epochs follow each other without a gap, so each sample comes once in each.

    Args:
        samples: how many there are.
        batch: samples of a step.
        total: samples of all steps together; the last step has what is left of them.
        permute: the order of an epoch.
    """

    def __init__(self, samples: int, batch: int, total: int, permute: Permute) -> None:
        self._samples, self._batch, self._total, self._permute = samples, batch, total, permute
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> list[int]:
        """Numbers of the samples of ``step``, counted from 0."""
        places = range(step * self._batch, min((step + 1) * self._batch, self._total))
        return [self._sample(*divmod(place, self._samples)) for place in places]

    def _sample(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, self._permute(epoch)
        return int(self._permutation[place])


class Shuffled:
    """Every epoch in a new random order."""

    def __init__(self, samples: int, seed: int) -> None:
        self._samples, self._seed = samples, seed

    def __call__(self, epoch: int) -> np.ndarray:
        return np.random.Generator(np.random.PCG64([self._seed, epoch])).permutation(self._samples)


class Grouped:
    """Every epoch as LLaVA's sampler orders it; see `llava_order` for the arguments."""

    def __init__(self, words_r: np.ndarray, pictured_r: np.ndarray, batch: int, ranks: int, seed: int) -> None:
        self._words_r, self._pictured_r = words_r, pictured_r
        self._batch, self._ranks, self._seed = batch, ranks, seed

    def __call__(self, epoch: int) -> np.ndarray:
        return llava_order(self._words_r, self._pictured_r, self._batch, self._ranks, self._seed + epoch)
