"""Floating-point operations of a step, counted as useful work: no padding, no fillers, nothing computed twice.

A matrix of N weights takes 2N operations a token forward, 2N for the gradient of its input and 2N for that of the
weights; a frozen one spares the last, and what lies before everything that trains spares both. Causal attention takes
2 s^2 d forward in a layer of width d for a document of s tokens, and twice that backward. See specs: efficiency, 4.1.
"""

import re
from typing import Any, NamedTuple

import torch

from blindspot.training.distributed.batches import Micro

PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "A40": 149.7e12, "L40S": 362e12, "B200": 2250e12}
"""Dense bfloat16 operations a second, as the vendor states them (SXM where there are several)."""


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

    def of(self, micro: Micro, patch_size: int) -> float:
        """Operations of a micro-batch."""
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


def peak(device: torch.device) -> float | None:
    """Operations a second that the device's vendor states, or None if it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for part, rate in PEAKS.items() if re.search(rf"\b{part}\b", name)), None)


def _patches(micro: Micro, size: int) -> int:
    if "spatial_shapes" in micro.pixels:
        return int(micro.pixels["spatial_shapes"].prod(dim=1).sum())
    count, _, height, width = micro.pixels["pixel_values"].shape
    return count * (height // size) * (width // size)


def _weights(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def _factor(module: Any, gradient_passes: bool) -> int:
    """1 forward, 1 more for the gradient of the input, 1 more for that of the weights."""
    trains = any(parameter.requires_grad for parameter in module.parameters())
    return 3 if trains else 1 + gradient_passes
