"""Which samples each step sees, and how a global batch becomes packs: pure functions of seed and step."""

import heapq
from collections.abc import Callable, Sequence

import numpy as np

ESTIMATED_BATCHES = 200
Permute = Callable[[int], np.ndarray]
"""Epoch -> a permutation of all samples."""


def shuffled(samples: int, seed: int, epoch: int) -> np.ndarray:
    """Every epoch in a new random order."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(samples)


class Order:
    """The samples of every step.

    Args:
        samples: how many there are.
        batch: samples of a step; at most all.
        permute: the order of an epoch.
        total: samples of all steps together. Epochs then follow each other without a gap, and the last step has what
            is left; without it, an epoch has whole batches only, and what is left of its samples is not seen.
    """

    def __init__(self, samples: int, batch: int, permute: Permute, total: int | None = None) -> None:
        self._batch, self._permute, self._total = batch, permute, total
        if total is None:
            self._batch = min(batch, samples)
            samples -= samples % self._batch
        self._samples = samples
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> np.ndarray:
        """Numbers of the samples of ``step``, both counted from 0."""
        end = (step + 1) * self._batch
        places = range(step * self._batch, end if self._total is None else min(end, self._total))
        return np.array([self._sample(*divmod(place, self._samples)) for place in places], np.int64)

    def _sample(self, epoch: int, place: int) -> int:
        if epoch != self._epoch:
            self._epoch, self._permutation = epoch, self._permute(epoch)
        return self._permutation[place]


def llava_order(
    words_r: np.ndarray, pictured_r: np.ndarray, batch: int, ranks: int, seed: int, epoch: int = 0
) -> np.ndarray:
    """The order of an epoch under LLaVA's ``group_by_modality_length``.

    A global batch is ``batch * ranks`` rows in this order, of which each rank takes ``batch`` in a row. It holds rows
    with pictures only or without only, except the last, of both. Within it the longest row goes first, each to the
    rank that has the fewest words yet: ranks are even, and no rank's rows are of one length
    (``llava_trainer.py`` of LLaVA 1.5; LLaVA counts accumulation as ranks).

    Args:
        words_r: words of each row.
        pictured_r: whether it has a picture.
        batch: rows a rank.
        ranks: ranks times steps of accumulation.
        seed: of the shuffling. Torch's generator, which LLaVA has, would shuffle otherwise.
        epoch: counted from 0.

    Returns:
        A permutation of the rows, shape (rows,).
    """
    generator = np.random.default_rng(seed + epoch)
    kinds = [generator.permutation(np.flatnonzero(pictured_r == kind)) for kind in (True, False)]
    batches, rest = [], []
    for rows in kinds:
        whole = len(rows) - len(rows) % (batch * ranks)
        batches += np.split(rows[:whole], range(batch * ranks, whole, batch * ranks)) if whole else []
        rest.append(rows[whole:])
    ordered = [_deal(batches[number], words_r, batch, ranks) for number in generator.permutation(len(batches))]
    return np.concatenate([*ordered, np.sort(np.concatenate(rest))])


def _deal(rows: np.ndarray, words_r: np.ndarray, batch: int, ranks: int) -> np.ndarray:
    """The rows of a global batch, those of the first rank first."""
    hands: list[list[int]] = [[] for _ in range(ranks)]
    heap = [(0, rank) for rank in range(ranks)]
    for row in rows[np.argsort(-words_r[rows], kind="stable")]:
        words, rank = heapq.heappop(heap)
        hands[rank].append(int(row))
        if len(hands[rank]) < batch:
            heapq.heappush(heap, (words + int(words_r[row]), rank))
    return np.concatenate(hands)


def balanced_packs(tokens: Sequence[int], capacity: int, ranks: int) -> list[list[int]]:
    """Deal the rows of a global batch into packs of even length, as many for each rank and as few as hold them.

    Args:
        tokens: of each row.
        capacity: most tokens a pack may have; a single row may have more.
        ranks: the number of packs is a multiple of it.

    Returns:
        For each pack the places of its rows in ``tokens``; a pack may be empty.
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


def padded_share(tokens_r: np.ndarray, order: np.ndarray, batch: int) -> float:
    """The share of padding where every ``batch`` rows of ``order`` are padded to their longest."""
    starts_b = np.arange(0, len(order), batch)
    sizes_b = np.diff(starts_b, append=len(order))
    room = int(np.maximum.reduceat(tokens_r[order], starts_b) @ sizes_b)
    return 1 - int(tokens_r[order].sum()) / room


def packed_share(tokens_r: np.ndarray, order: np.ndarray, batch: int, ranks: int, capacity: int) -> float:
    """The share of waiting where each ``batch * ranks`` rows of ``order`` are packed, and packs wait for the longest.

    A pack needs no padding; this is the time that the others of a step are idle, in tokens. Over
    `ESTIMATED_BATCHES` global batches, as it hardly varies.
    """
    used = room = 0
    for start in range(0, min(len(order), ESTIMATED_BATCHES * batch * ranks), batch * ranks):
        tokens = tokens_r[order[start : start + batch * ranks]].tolist()
        lengths = [sum(tokens[place] for place in pack) for pack in balanced_packs(tokens, capacity, ranks)]
        used += sum(tokens)
        room += max(lengths) * len(lengths)
    return 1 - used / room
