"""Connectors: what turns patch features into tokens of the language model. One file each.

Adding one means a file beside this one and a line in `RULES` (`spec.py`: where it is, its sizes and what it gives).
`ConnectorSpec` and its arithmetic need no torch; `build` imports it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from blindspot.connectors.spec import RULES, ConnectorSpec, Grid, output_grid, output_tokens

if TYPE_CHECKING:
    from torch import nn
    from transformers import LlavaConfig

__all__ = ["RULES", "ConnectorSpec", "Grid", "build", "output_grid", "output_tokens"]


def build(spec: ConnectorSpec, config: "LlavaConfig") -> "nn.Module":
    """A connector with random weights, to be a variant's ``multi_modal_projector``.

    Its ``forward(features_bnd, grid)`` takes the patch features of images of one grid, shape (images, rows * columns,
    width of the tower) in raster order, and returns tokens of shape (images, `output_tokens`, width of the language
    model). ``gated_cross_attention`` returns media instead; see `gated_cross_attention.GatedCrossAttention`.

    Linear, convolution and embedding weights get the start values of the model that holds it (transformers'
    ``_init_weights``: normal with ``initializer_range``); the rest is `gated_cross_attention.initialise`.
    """
    module, kind = RULES[spec.name].implementation.split(".")
    return getattr(import_module(f"blindspot.connectors.{module}"), kind)(spec, config)
