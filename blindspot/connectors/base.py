"""What connectors share: widths of the two sides, and tokens as a map."""

from typing import Any

from torch import Tensor
from transformers import LlavaConfig

from blindspot.connectors.spec import Grid


def visual_width(config: LlavaConfig) -> int:
    """Channels of a patch feature."""
    vision: Any = config.vision_config
    return vision.hidden_size


def visual_heads(config: LlavaConfig) -> int:
    """Attention heads of the tower, which divide `visual_width`; connectors at that width use as many."""
    vision: Any = config.vision_config
    return vision.num_attention_heads


def language_width(config: LlavaConfig) -> int:
    """Channels of a token of the language model."""
    text: Any = config.text_config
    return text.hidden_size


def as_map(tokens_bnd: Tensor, grid: Grid) -> Tensor:
    """Tokens in raster order as channels on a grid, shape (b, d, rows, columns)."""
    return tokens_bnd.transpose(1, 2).unflatten(2, grid)


def as_tokens(map_bdhw: Tensor) -> Tensor:
    """The inverse of `as_map`."""
    return map_bdhw.flatten(2).transpose(1, 2)
