"""Which samples each step sees, and how a global batch becomes packs: pure functions of seed and step."""

import heapq
from collections.abc import Callable, Sequence

import numpy as np


def shuffled(samples: int, seed: int, epoch: int) -> np.ndarray:
    """Every epoch in a new random order."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(samples)


class Order:
    """The samples of every step: ``batch`` of them, by an epoch's permutation of all.

    With a ``total`` of samples of all steps, epochs follow each other without a gap, and the last step has what is
    left; without it, an epoch has whole batches only, and what is left of its samples is not seen.
    """

    def __init__(
        self, samples: int, batch: int, permute: Callable[[int], np.ndarray], total: int | None = None
    ) -> None:
        self._batch, self._permute, self._total = batch, permute, total
        if total is None:
            self._batch = min(batch, samples)
            samples -= samples % self._batch
        self._samples = samples
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> np.ndarray:
        """Numbers of the samples of ``step``, both counted from 0."""
        end = (step + 1) * self._batch
        chosen = []
        for place in range(step * self._batch, end if self._total is None else min(end, self._total)):
            epoch, place = divmod(place, self._samples)
            if epoch != self._epoch:
                self._epoch, self._permutation = epoch, self._permute(epoch)
            chosen.append(self._permutation[place])
        return np.array(chosen, np.int64)


def llava_order(
    words_r: np.ndarray, pictured_r: np.ndarray, batch: int, ranks: int, seed: int, epoch: int = 0
) -> np.ndarray:
    """The order of an epoch under LLaVA's ``group_by_modality_length``.

    A global batch is ``batch * ranks`` rows in this order, of which each rank takes ``batch`` in a row. It holds rows
    with pictures only or without only, except the last, of both. Within it the longest row goes first, each to the
    rank that has the fewest words yet: ranks are even, and no rank's rows are of one length
    (``llava_trainer.py`` of LLaVA 1.5, which counts accumulation as ranks, and shuffles with torch's generator).
    ``words_r`` are the words of each row, ``pictured_r`` whether it has a picture.
    """
    generator = np.random.default_rng(seed + epoch)
    size = batch * ranks
    batches, rest, ordered = [], [], []
    for rows in [generator.permutation(np.flatnonzero(pictured_r == kind)) for kind in (True, False)]:
        whole = len(rows) - len(rows) % size
        batches += np.split(rows[:whole], range(size, whole, size)) if whole else []
        rest.append(rows[whole:])
    for number in generator.permutation(len(batches)):
        rows = batches[number]
        hands: list[list[int]] = [[] for _ in range(ranks)]
        heap = [(0, rank) for rank in range(ranks)]
        for row in rows[np.argsort(-words_r[rows], kind="stable")]:
            words, rank = heapq.heappop(heap)
            hands[rank].append(int(row))
            if len(hands[rank]) < batch:
                heapq.heappush(heap, (words + int(words_r[row]), rank))
        ordered += hands
    return np.concatenate([*ordered, np.sort(np.concatenate(rest))]).astype(np.int64)


def balanced_packs(tokens: Sequence[int], capacity: int, ranks: int) -> list[list[int]]:
    """Deal rows of so many ``tokens`` into packs of even length, as few as hold them, a multiple of ``ranks``.

    A pack, given as the places of its rows in ``tokens``, has at most ``capacity`` tokens unless a single row has more,
    and may be empty.
    """
    longest_first = sorted(range(len(tokens)), key=lambda place: -tokens[place])
    most = max(capacity, tokens[longest_first[0]])
    count = ranks * max(1, -(-sum(tokens) // (most * ranks)))
    while True:
        packs: list[list[int]] = [[] for _ in range(count)]
        heap = [(0, number) for number in range(count)]
        for place in longest_first:
            length, number = heapq.heappop(heap)
            packs[number].append(place)
            heapq.heappush(heap, (length + tokens[place], number))
        if max(length for length, _ in heap) <= most:
            return packs
        count += ranks
