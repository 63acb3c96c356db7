"""Floating-point operations of a step, counted as useful work: no padding, no fillers, nothing computed twice.

A matrix of N weights takes 2N operations a token forward, 2N for the gradient of its input and 2N for that of the
weights; a frozen one spares the last, and what lies before everything that trains spares both. Causal attention takes
2 s^2 d forward in a layer of width d for a document of s tokens, and twice that backward. See specs: efficiency, 4.1.
"""

import re
from typing import Any, NamedTuple


class Gpu(NamedTuple):
    """A kind of GPU: dense bf16 operations a second, bytes of memory, as the vendor states them."""

    name: str
    peak: float
    memory: float


GPUS = (
    Gpu("A40", 149.7e12, 48e9),
    Gpu("A100", 312e12, 80e9),
    Gpu("H100", 989e12, 80e9),
    Gpu("H200", 989e12, 141e9),
    Gpu("L40S", 362e12, 48e9),
    Gpu("B200", 2250e12, 180e9),
)


class Counts(NamedTuple):
    """Of a global batch, over all ranks.

    Attributes:
        supervised: tokens that are trained on.
        tokens: of all samples.
        room: tokens that are computed, padding and fillers included.
        operations: floating-point operations.
        micros: micro-batches in which something is supervised.
    """

    supervised: float
    tokens: float
    room: float
    operations: float
    micros: float


class Costs(NamedTuple):
    """Operations of a variant, forward and backward.

    Attributes:
        per_token: of the language model's blocks.
        per_answer: of its head, for each supervised token.
        per_pair: of attention, for each pair of tokens of a document.
        per_patch: of tower and connector, for each patch.
    """

    per_token: float
    per_answer: float
    per_pair: float
    per_patch: float

    def of(self, micro: Any, patch_size: int) -> float:
        """Operations of a `Micro`."""
        real = [length for length, name in zip(micro.lengths, micro.names, strict=True) if name]
        patches = 0 if micro.blank else _patches(micro, patch_size)
        pairs = sum(length * length for length in real)
        per_text = self.per_token * sum(real) + self.per_answer * micro.supervised + self.per_pair * pairs
        return per_text + self.per_patch * patches


def costs(variant: Any) -> Costs:
    """The costs of a variant, by what of it trains. Call before it is sharded."""
    body, text = variant.model, variant.config.text_config
    before = any(parameter.requires_grad for parameter in body.vision_tower.parameters())
    connects = before or any(parameter.requires_grad for parameter in body.multi_modal_projector.parameters())
    layers = len(body.language_model.layers)
    heads = text.num_attention_heads
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    in_blocks = _weights(body.language_model.layers)
    blocks = _factor(body.language_model.layers, connects)
    tower = body.vision_tower.get_submodule(body.parts.encoder.blocks)
    ran = body.parts.layer % (len(tower) + 1)
    return Costs(
        per_token=2 * in_blocks * blocks,
        per_answer=2 * variant.lm_head.weight.numel() * _factor(variant.lm_head, True),
        per_pair=2 * width * layers * (3 if connects or blocks == 3 else 1),
        per_patch=2 * _weights(tower[:ran]) * _factor(body.vision_tower, False)
        + 2 * _weights(body.multi_modal_projector) * _factor(body.multi_modal_projector, before),
    )


def peak(device: str) -> float | None:
    """Operations a second of the device of this name, or None if they are not known."""
    return next((gpu.peak for gpu in GPUS if re.search(rf"\b{gpu.name}\b", device)), None)


def passes(trains: bool, before: bool) -> int:
    """Products of a linear map: 1 forward, 1 for its input's gradient if something trains before it, 1 for its own.

    Whatever trains counts all three.
    """
    return 3 if trains else 1 + before


def _patches(micro: Any, size: int) -> int:
    if "spatial_shapes" in micro.pixels:
        return int(micro.pixels["spatial_shapes"].prod(dim=1).sum())
    count, _, height, width = micro.pixels["pixel_values"].shape
    return count * (height // size) * (width // size)


def _weights(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def _factor(module: Any, before: bool) -> int:
    return passes(any(parameter.requires_grad for parameter in module.parameters()), before)
