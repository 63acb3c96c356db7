"""Answers by transformers' own ``generate``, every prompt from its beginning; for any model."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from blindspot.evaluation.answerers.decoding import Said, of_tokens
from blindspot.evaluation.answerers.prefix import on_device
from blindspot.evaluation.answerers.rows import Row
from blindspot.evaluation.answerers.settings import Settings


class Forced(LogitsProcessor):
    """Makes rows say what they are told.

    Args:
        ids_bn: the tokens.
    """

    def __init__(self, ids_bn: Tensor) -> None:
        self._left = iter(ids_bn.unbind(dim=1))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        next_b = next(self._left).to(scores.device)
        return torch.full_like(scores, -torch.inf).scatter(1, next_b[:, None], 0.0)


def alike(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """The rows in parts that one call can answer: inputs that stack, answers of one length, at most ``most``."""
    found: dict[Any, list[Row]] = {}
    for row in rows:
        shapes = tuple((name, value.shape[1:]) for name, value in sorted(row.media.items()))
        found.setdefault((shapes, row.limit), []).append(row)
    return [part[start : start + most] for part in found.values() for start in range(0, len(part), most)]


@torch.no_grad()
def generate(model: Any, rows: Sequence[Row], settings: Settings) -> Iterator[Said]:
    """Answers of rows that are `alike`."""
    inputs = padded(model, rows, settings.pad)
    limit = rows[0].limit
    if settings.own is None:
        out_bl = model.generate(**inputs, **settings.arguments, max_new_tokens=limit)
    else:
        out_bl = settings.own(inputs, limit)
    start = 0 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    for number, ids in enumerate(out_bl[:, start:].tolist()):
        end = next((place for place, token in enumerate(ids) if token in settings.ends), None)
        yield Said(number, ids[:end], "length" if end is None else "end")


def likelihood(model: Any, row: Row, settings: Settings) -> dict[str, float]:
    """Log-probability of a row's answers, summed over their tokens."""
    options = list(row.options.values())
    most = max(map(len, options))
    ids_bn = torch.tensor([[*ids, *ids[-1:] * (most - len(ids))] for ids in options])
    logits_bnv = forced(model, [row] * len(options), ids_bn, settings)
    token_bn = of_tokens(logits_bnv, ids_bn.to(logits_bnv.device))
    sums = [sum(values[: len(ids)]) for values, ids in zip(token_bn.tolist(), options, strict=True)]
    return dict(zip(row.options, sums, strict=True))


@torch.no_grad()
def forced(model: Any, rows: Sequence[Row], ids_bn: Tensor, settings: Settings) -> Tensor:
    """Logits behind the rows' prompts while they say ``ids_bn``, shape (batch, n, vocabulary)."""
    out = model.generate(
        **padded(model, rows, settings.pad),
        **{**settings.arguments, "eos_token_id": None},  # what is to be said is said to its end
        max_new_tokens=ids_bn.shape[1],
        logits_processor=LogitsProcessorList([Forced(ids_bn)]),
        output_logits=True,
        return_dict_in_generate=True,
    )
    return torch.stack(out.logits, dim=1).float()


def padded(model: Any, rows: Sequence[Row], pad: int) -> dict[str, Tensor]:
    """Inputs of ``generate``, padded on the left."""
    longest = max(len(row.ids) for row in rows)
    missing = [longest - len(row.ids) for row in rows]
    inputs = {
        "input_ids": torch.tensor([[pad] * pads + [*row.ids] for pads, row in zip(missing, rows, strict=True)]),
        "attention_mask": torch.tensor([[0] * pads + [1] * (longest - pads) for pads in missing]),
    }
    for name in rows[0].types:
        types = [torch.nn.functional.pad(row.types[name], (pads, 0)) for pads, row in zip(missing, rows, strict=True)]
        inputs[name] = torch.cat(types)
    inputs |= {name: torch.cat([row.media[name] for row in rows]) for name in rows[0].media}
    return on_device(model, inputs)
