"""Floating-point operations of a step, counted as useful work: no padding, no fillers, nothing computed twice.

A matrix of N weights takes 2N operations a token forward, 2N for the gradient of its input and 2N for that of the
weights; a frozen one spares the last, and what lies before everything that trains spares both. Causal attention takes
2 s^2 d forward in a layer of width d for a document of s tokens, and twice that backward. See specs: efficiency, 4.1.
"""

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


def passes(trains: bool, before: bool) -> int:
    """Products of a linear map: 1 forward, 1 for its input's gradient if something trains before it, 1 for its own.

    Whatever trains counts all three.
    """
    return 3 if trains else 1 + before


class Costs(NamedTuple):
    """Operations of a variant, forward and backward."""

    per_token: float  # of the language model's blocks
    per_answer: float  # of its head, for each supervised token
    per_pair: float  # of attention, for each pair of tokens of a document
    per_patch: float  # of tower and connector
    patch_size: int  # side of a patch in pixels

    def of(self, micro: Any) -> float:
        """Operations of a `Micro`."""
        real = [length for length, name in zip(micro.lengths, micro.names, strict=True) if name]
        patches = 0
        if not micro.blank and "spatial_shapes" in micro.pixels:
            patches = int(micro.pixels["spatial_shapes"].prod(dim=1).sum())
        elif not micro.blank:
            count, _, height, width = micro.pixels["pixel_values"].shape
            patches = count * (height // self.patch_size) * (width // self.patch_size)
        pairs = sum(length * length for length in real)
        per_text = self.per_token * sum(real) + self.per_answer * micro.supervised + self.per_pair * pairs
        return per_text + self.per_patch * patches


def costs(variant: Any) -> Costs:
    """The costs of a variant, by what of it trains. Call before it is sharded."""

    def trains(module: Any) -> bool:
        return any(parameter.requires_grad for parameter in module.parameters())

    def weights(module: Any) -> int:
        return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)

    body, text = variant.model, variant.config.text_config
    layers, connector = body.language_model.layers, body.multi_modal_projector
    tower = body.vision_tower.get_submodule(body.parts.encoder.blocks)
    before = trains(body.vision_tower)
    connects = before or trains(connector)
    blocks = passes(trains(layers), connects)
    heads = text.num_attention_heads
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    ran = tower[: body.parts.layer % (len(tower) + 1)]
    return Costs(
        per_token=2 * weights(layers) * blocks,
        per_answer=2 * variant.lm_head.weight.numel() * passes(trains(variant.lm_head), True),
        per_pair=2 * width * len(layers) * (3 if connects or blocks == 3 else 1),
        per_patch=2 * weights(ran) * passes(before, False) + 2 * weights(connector) * passes(trains(connector), before),
        patch_size=variant.config.vision_config.patch_size,
    )
