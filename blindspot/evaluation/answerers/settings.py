"""How a model is to generate, and whether a plain search for the likeliest token says it all."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from transformers import GenerationConfig

from blindspot.evaluation.families import Family

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


def settings_of(model: Any, processor: Any, family: Family) -> Settings:
    """The checkpoint's settings under the family's."""
    config = copy.deepcopy(getattr(model, "generation_config", None)) or GenerationConfig()
    config.update(**family.generation)
    tokenizer = processor.tokenizer
    ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
    ends = [ends] if isinstance(ends, int) else [*(ends or ())]
    pad = next((one for one in (config.pad_token_id, tokenizer.pad_token_id, *ends) if one is not None), 0)
    arguments = {**family.generation, "pad_token_id": pad, "eos_token_id": ends or None}
    own = None if family.generate is None else partial(family.generate, model, processor)
    return Settings(arguments, own, frozenset(ends), pad, _obstacle(model, config, family))


def _obstacle(model: Any, generation: Any, family: Family) -> str | None:
    if family.generate is not None:
        return "it has code of its own to generate"
    if not family.shares_prefix:
        return f"{family.title} reads a picture in the light of the question"
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
