"""The greedy answers of a batch, each row only as long as it takes; and how likely given answers are."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from blindspot.evaluation.answerers.prefix import State, advance


class Said(NamedTuple):
    """A row's answer.

    Attributes:
        row: which.
        ids: without the token that ended it.
        stopped: ``end`` or ``length``.
    """

    row: int
    ids: list[int]
    stopped: str


def greedy(model: Any, state: State, limits: Sequence[int], ends: Collection[int]) -> Iterator[Said]:
    """The likeliest token again and again, until it is one of ``ends`` or a row reaches its limit.

    Rows leave the batch once half of it is done, so that one long answer does not keep all others computing.

    Args:
        model: whose state it is.
        state: behind the prompts; is used up.
        limits: most tokens of each row's answer.
        ends: tokens that end an answer.
    """
    said: dict[int, list[int]] = {row: [] for row in range(len(limits))}
    place = list(said)
    while said:
        token_b = state.logits_bv.argmax(dim=-1)
        for row, token in zip(place, token_b.tolist(), strict=True):
            if row not in said:
                continue
            if token in ends:
                yield Said(row, said.pop(row), "end")
                continue
            said[row].append(token)
            if len(said[row]) == limits[row]:
                yield Said(row, said.pop(row), "length")
        if not said:
            return
        if 2 * len(said) <= len(place):
            left_b = torch.tensor([number for number, row in enumerate(place) if row in said], device=token_b.device)
            place = [row for row in place if row in said]
            token_b = token_b[left_b]
            state.pick(left_b)
        advance(model, state, token_b[:, None])


def likelihoods(model: Any, state: State, options: Sequence[Mapping[str, Sequence[int]]]) -> list[dict[str, float]]:
    """Log-probability of each row's answers, summed over their tokens.

    Args:
        model: whose state it is.
        state: behind the prompts; is used up.
        options: of each row its answers' tokens by label.
    """
    first_bv = state.logits_bv.log_softmax(dim=-1)
    sums = [{label: float(first_bv[row, ids[0]]) for label, ids in few.items()} for row, few in enumerate(options)]
    longer = [(row, label, ids) for row, few in enumerate(options) for label, ids in few.items() if len(ids) > 1]
    if not longer:
        return sums
    most = max(len(ids) for _, _, ids in longer)
    ids_bn = torch.tensor([[*ids, *[0] * (most - len(ids))] for _, _, ids in longer], device=first_bv.device)
    state.pick(torch.tensor([row for row, _, _ in longer], device=first_bv.device))
    logits_bnv = advance(model, state, ids_bn[:, :-1])
    next_bn = of_tokens(logits_bnv, ids_bn[:, 1:])
    for (row, label, ids), values in zip(longer, next_bn.tolist(), strict=True):
        sums[row][label] += sum(values[: len(ids) - 1])
    return sums


def of_tokens(logits_bnv: Tensor, ids_bn: Tensor) -> Tensor:
    """Log-probabilities of tokens, shape (batch, n)."""
    return logits_bnv.log_softmax(dim=-1).gather(-1, ids_bn[..., None])[..., 0]
