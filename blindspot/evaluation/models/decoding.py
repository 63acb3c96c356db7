"""How a model generates: greedily, on top of common beginnings or by ``generate``; and how likely given answers are."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from blindspot.evaluation.adapters import Adapter
from blindspot.evaluation.models.prefix import State, advance, on_device
from blindspot.evaluation.models.rows import Row

HARMLESS = {
    "bos_token_id",
    "cache_implementation",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "min_p",
    "pad_token_id",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "typical_p",
    "use_cache",
}
"""Keys of a generation config that do not change which token is the likeliest."""
NEUTRAL = {"num_beams": 1, "repetition_penalty": 1.0, "_from_model_config": True}
STRETCHED = ("dynamic", "longrope")
"""Rotary positions that turn otherwise once a text is long; a beginning alone does not know how long it gets."""


@dataclass(frozen=True)
class Settings:
    """How a model generates.

    Attributes:
        arguments: of ``generate``.
        own: inputs and longest answer to ids of prompts and answers, for a model without transformers' ``generate``.
        ends: tokens that end an answer.
        pad: the token to pad with.
        obstacle: why a beginning cannot be computed once for several prompts, or None.
    """

    arguments: Mapping[str, Any]
    own: Callable[[Any, int], Tensor] | None
    ends: frozenset[int]
    pad: int
    obstacle: str | None


def settings_of(model: Any, processor: Any, adapter: Adapter) -> Settings:
    """The checkpoint's settings under the adapter's."""
    config = copy.deepcopy(getattr(model, "generation_config", None)) or GenerationConfig()
    config.update(**adapter.generation)
    tokenizer = processor.tokenizer
    ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    ends = [ends] if isinstance(ends, int) else [*(ends or ())]
    pad = next((one for one in (config.pad_token_id, tokenizer.pad_token_id, *ends) if one is not None), 0)
    arguments = {**adapter.generation, "pad_token_id": pad, "eos_token_id": ends or None}
    own = None if adapter.generate is None else partial(adapter.generate, model, processor)
    return Settings(arguments, own, frozenset(ends), pad, _obstacle(model, config, adapter))


def _obstacle(model: Any, generation: Any, adapter: Adapter) -> str | None:
    if adapter.generate is not None:
        return "it has code of its own to generate"
    if not adapter.shares_prefix:
        return f"{adapter.title} reads a picture in the light of the question"
    if model.config.is_encoder_decoder:
        return "it has an encoder of text"
    if getattr(model, "_is_stateful", False):
        return "it keeps a state, not keys and values"
    stretched = {kind for kind in _rope_types(model.config.get_text_config().to_dict()) if kind in STRETCHED}
    if stretched:
        return f"its rotary positions are {stretched.pop()}"
    wanted = {key: value for key, value in generation.to_diff_dict().items() if value not in (None, False)}
    unusual = sorted(key for key, value in wanted.items() if key not in HARMLESS and NEUTRAL.get(key) != value)
    return f"its generation settings have {', '.join(unusual)}" if unusual else None


def _rope_types(values: Any) -> Iterator[str]:
    """Every ``rope_type`` in a config."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            if key == "rope_type" and isinstance(value, str):
                yield value
            yield from _rope_types(value)


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
