"""Batches under LLaVA's sampler and under packing, and the share of padding that each way leaves."""

import heapq
from collections.abc import Sequence

import numpy as np


def llava_order(
    words_r: np.ndarray, pictured_r: np.ndarray, batch: int, ranks: int, seed: int | Sequence[int]
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

    Returns:
        A permutation of the rows, shape (rows,).
    """
    generator = np.random.default_rng(seed)
    kinds = [generator.permutation(np.flatnonzero(pictured_r == kind)) for kind in (True, False)]
    batches, rest = [], []
    for shuffled in kinds:
        whole = len(shuffled) - len(shuffled) % (batch * ranks)
        batches += np.split(shuffled[:whole], range(batch * ranks, whole, batch * ranks)) if whole else []
        rest.append(shuffled[whole:])
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
    sums = _padded(tokens_r[order], batch)
    return 1 - int(tokens_r[order].sum()) / sums


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


ESTIMATED_BATCHES = 200


def _padded(tokens_r: np.ndarray, batch: int) -> int:
    """Tokens with padding."""
    whole = len(tokens_r) - len(tokens_r) % batch
    rest = tokens_r[whole:]
    longest = tokens_r[:whole].reshape(-1, batch).max(axis=1).sum() * batch
    return int(longest) + (int(rest.max()) * len(rest) if len(rest) else 0)
