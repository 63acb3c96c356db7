"""What an encoder family is, and how a tower of it is built and read.

``hidden_states[-1]`` of all these transformers classes is the output of the last block *before* the final norm (CLIP
and SigLIP ``post_layernorm``, AIMv2 ``rms_norm``): that is what LLaVA feeds its connector, and what `patch_features`
returns. The pre-training objectives read the tokens *after* that norm, through `normed_tokens`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from blindspot.positions import EncoderPositions, attach, start_table

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class TowerShape:
    """Size of an image encoder.

    Attributes:
        width: channels of a token.
        layers: transformer blocks.
        heads: attention heads; ``width / heads`` channels each.
        mlp_width: hidden channels of the MLP (of each branch, where it is gated).
        image_size: side of the square input, in pixels.
        patch_size: side of a square patch, in pixels.

    Raises:
        ValueError: if the patches do not tile the image, or the heads do not divide the width.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    image_size: int
    patch_size: int

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"patches of {self.patch_size} px do not tile an image of {self.image_size} px")
        if self.width % self.heads:
            raise ValueError(f"{self.heads} heads do not divide a width of {self.width}")

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class Encoder:
    """One family of image encoders.

    Attributes:
        name: key in the registry and in study files.
        label: as the paper writes it.
        prefix_tokens: tokens before the patches; patch features leave out exactly these.
        mean: per-channel mean that the family's released image processor subtracts (pixels in 0..1).
        std: per-channel deviation that it divides by.
        model_class: the transformers class of the tower.
        vision_config: shape -> configuration of the tower, without the family's pooling head.
        normed_tokens: (tower, its output) -> all tokens after the final norm, shape (batch, tokens, width).
    """

    name: str
    label: str
    prefix_tokens: int
    mean: Triple
    std: Triple
    model_class: type[PreTrainedModel]
    vision_config: Callable[[TowerShape], PreTrainedConfig]
    normed_tokens: Callable[[PreTrainedModel, Any], Tensor]

    @property
    def feature_select_strategy(self) -> Literal["default", "full"]:
        """LLaVA's ``vision_feature_select_strategy`` that keeps every patch and nothing else."""
        return "default" if self.prefix_tokens else "full"


def shape_arguments(shape: TowerShape) -> dict[str, Any]:
    """``shape`` under the names that transformers' vision configurations share."""
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp_width,
        "image_size": shape.image_size,
        "patch_size": shape.patch_size,
    }


def build_tower(
    encoder: Encoder, shape: TowerShape, positions: EncoderPositions, attention: str = "eager"
) -> PreTrainedModel:
    """A randomly initialised tower with its positions attached, to be trained from nothing.

    Args:
        encoder: the family.
        shape: the size.
        positions: how the tower knows places.
        attention: transformers' attention implementation. ``eager`` is the default because the backward of ``sdpa``
            is twice as slow on a CPU at miniature size in bf16.
    """
    config = encoder.vision_config(shape)
    config._attn_implementation = attention
    tower = encoder.model_class(config)
    start_table(tower, shape.grid, encoder.prefix_tokens)
    attach(tower, positions, shape.grid, encoder.prefix_tokens)
    return tower


def patch_features(tower: PreTrainedModel, encoder: Encoder, pixels_bchw: Tensor) -> Tensor:
    """Patch features as LLaVA takes them: the last block's output, prefix tokens left out.

    Returns:
        Shape (batch, grid * grid, width), patches in raster order.
    """
    states = tower(pixel_values=pixels_bchw, output_hidden_states=True).hidden_states
    return states[-1][:, encoder.prefix_tokens :]


def normed_tokens(
    tower: PreTrainedModel, encoder: Encoder, pixels_bchw: Tensor, mask_b1nn: Tensor | None = None
) -> Tensor:
    """All tokens after the final norm, as the pre-training objectives read them.

    Args:
        tower: a tower of ``encoder``.
        encoder: its family.
        pixels_bchw: normalised pixels.
        mask_b1nn: added to the attention scores, shape (batch or 1, 1, tokens, tokens).

    Returns:
        Shape (batch, prefix_tokens + grid * grid, width).
    """
    masked = {} if mask_b1nn is None else {"attention_mask": mask_b1nn}
    return encoder.normed_tokens(tower, tower(pixel_values=pixels_bchw, **masked))


def normalise_pixels(encoder: Encoder, pixels_bchw: Tensor) -> Tensor:
    """Pixels in 0..1 -> the family's input range."""
    mean_c11 = torch.tensor(encoder.mean, dtype=pixels_bchw.dtype, device=pixels_bchw.device).view(3, 1, 1)
    std_c11 = torch.tensor(encoder.std, dtype=pixels_bchw.dtype, device=pixels_bchw.device).view(3, 1, 1)
    return (pixels_bchw - mean_c11) / std_c11
