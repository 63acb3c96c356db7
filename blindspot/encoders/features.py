"""A tower: made to be trained from nothing, and read (the features that a connector takes, an objective's tokens)."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING, Any

from blindspot.encoders.base import Encoder, TowerShape
from blindspot.errors import UserError
from blindspot.positions import EncoderPositions, Grid

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel


def build_tower(
    encoder: Encoder, shape: TowerShape, positions: EncoderPositions, attention: str = "eager"
) -> PreTrainedModel:
    """A randomly initialised tower with its positions attached.

    Args:
        positions: how the tower knows places.
        attention: transformers' attention implementation. ``eager`` is the default because the backward of ``sdpa``
            is twice as slow on a CPU at miniature size in bf16.
    """
    from blindspot.positions.encoder.attach import attach, start_table

    config = encoder.vision_config(shape)
    config._attn_implementation = attention
    tower = encoder.model_class(config)
    start_table(tower, shape.grid, encoder.prefix_tokens)
    attach(tower, positions, shape.grid, encoder.prefix_tokens)
    return tower


def features(
    tower: PreTrainedModel,
    encoder: Encoder,
    pixel_values: Tensor,
    layer: int = -1,
    grids_n2: Tensor | None = None,
) -> Tensor:
    """Patch features as LLaVA takes them; blocks after ``layer`` do not run, and no other layer's output is kept.

    Equal bit for bit to transformers' ``hidden_states[layer]`` without its prefix tokens, for the families that take
    one size per batch. Any size goes; the family interpolates or computes its positions.

    Args:
        pixel_values: normalised pixels, shape (n, 3, height, width). For a family of variable resolution also rows of
            patches as Siglip2's image processor makes them, shape (n, patches, 3 * patch * patch).
        layer: LLaVA's ``vision_feature_layer``: -1 is the output of the last block, before the final norm; -2 that of
            the block before it; 0 what enters the first block.
        grids_n2: (rows, columns) of each image, with rows of patches (transformers' ``spatial_shapes``).

    Returns:
        Shape (n, patches, width), patches in raster order. Of images of several sizes, patches is the largest's number;
        what stands behind a smaller image's own is finite and means nothing.
    """
    count = len(tower.get_submodule(encoder.blocks))  # pyright: ignore[reportArgumentType]
    if not -count - 1 <= layer <= count:
        raise UserError(
            f"vision_feature_layer {layer}: {encoder.label} has {count} blocks; give one of {-count - 1} to {count}"
        )
    tokens_bnd = _run(tower, encoder, pixel_values, layer % (count + 1), grids_n2, {})
    return tokens_bnd[:, encoder.prefix_tokens_in(tower.config) :]


def normed_tokens(
    tower: PreTrainedModel,
    encoder: Encoder,
    pixels_bchw: Tensor | tuple[Tensor, Tensor],
    mask_b1nn: Tensor | None = None,
) -> Tensor:
    """All tokens after the final norm, as the pre-training objectives read them.

    Args:
        pixels_bchw: normalised pixels; of a family of variable resolution also rows of patches, equally many of every
            image, and the grids.
        mask_b1nn: added to the attention scores, shape (batch or 1, 1, tokens, tokens).

    Returns:
        Shape (batch, prefix tokens + patches, width).
    """
    masked = {} if mask_b1nn is None else {"attention_mask": mask_b1nn}
    count = len(tower.get_submodule(encoder.blocks))  # pyright: ignore[reportArgumentType]
    pixels, grids_n2 = pixels_bchw if isinstance(pixels_bchw, tuple) else (pixels_bchw, None)
    return tower.get_submodule(encoder.final_norm)(_run(tower, encoder, pixels, count, grids_n2, masked))


def _run(
    tower: PreTrainedModel,
    encoder: Encoder,
    pixel_values: Tensor,
    blocks: int,
    grids_n2: Tensor | None,
    arguments: dict[str, Any],
) -> Tensor:
    from blindspot.positions.encoder.attach import set_grids

    if grids_n2 is not None and not encoder.variable_resolution:
        raise ValueError(f"{encoder.label} takes images of one size, not rows of patches with a grid each")
    grids = [grid_of(encoder, tower.config, pixel_values)] if grids_n2 is None else grids_n2.tolist()
    set_grids(tower, grids)
    tokens_bnd, common = encoder.embed(tower, pixel_values, grids_n2)
    layers: Any = tower.get_submodule(encoder.blocks)
    for block in islice(layers, blocks):
        tokens_bnd = block(tokens_bnd, **{"attention_mask": None, **common, **arguments})
    return tokens_bnd


def grid_of(encoder: Encoder, vision_config: PreTrainedConfig, pixel_values: Tensor) -> Grid:
    """Rows and columns of patches of images that all have one size; pixels beyond whole patches do not count."""
    if pixel_values.ndim != 4:
        raise ValueError(f"{encoder.label}: pixels of shape (n, 3, height, width), got {tuple(pixel_values.shape)}")
    height, width = pixel_values.shape[-2:]
    patch_size: int = vision_config.patch_size  # pyright: ignore[reportAttributeAccessIssue]
    if min(height, width) < patch_size:
        raise UserError(f"{encoder.label}: an image of {height} x {width} px is smaller than a patch ({patch_size} px)")
    return height // patch_size, width // patch_size


def native_grid(vision_config: PreTrainedConfig) -> Grid:
    """The grid of the position table, or of the size in the config where there is no table."""
    config: Any = vision_config
    patches = getattr(config, "num_patches", None)
    side = config.image_size // config.patch_size if patches is None else math.isqrt(patches)
    return side, side


def normalise_pixels(encoder: Encoder, pixels_bchw: Tensor) -> Tensor:
    """Pixels in 0..1 -> the family's input range."""
    import torch

    mean_c11, std_c11 = (
        torch.tensor(values, dtype=pixels_bchw.dtype, device=pixels_bchw.device).view(3, 1, 1)
        for values in (encoder.images.mean, encoder.images.std)
    )
    return (pixels_bchw - mean_c11) / std_c11
