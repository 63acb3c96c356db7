"""The encoders on one page: what each checkpoint is, and what differs between two of them. Nothing is downloaded."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from rich.table import Table
from torch import nn
from transformers import AutoModel, PreTrainedConfig

from blindspot.encoders import ENCODERS
from blindspot.encoders.base import Encoder
from blindspot.encoders.features import native_grid
from blindspot.terminal import listing

SIZES = (224, 256, 336)
"""Sides in pixels of the square images whose tokens are counted."""


def rows() -> list[dict[str, Any]]:
    """One row per released checkpoint, in plain values; `describe` says which."""
    return [
        {"checkpoint": one.id, "roles": list(one.roles), **describe(encoder, one.config(), one.size)}
        for encoder in ENCODERS.values()
        for one in encoder.checkpoints
    ]


def describe(encoder: Encoder, config: PreTrainedConfig, size: int | None = None) -> dict[str, Any]:
    """What a tower is and costs, in plain values.

    A forward pass of n tokens (prefix included) costs, at 2 operations per multiply-add, 2 n P + 4 n^2 d L for the
    blocks, P being the parameters of their linear maps, d the width and L the number of blocks: the second term is
    the two products of attention. The patch embedding adds 2 m * 3 p^2 d for m patches of side p. Norms, activations
    and the softmax are left out; all blocks are counted, though LLaVA's layer -2 leaves the last one unused.

    Args:
        size: side in pixels of the square input, for ``tokens`` and ``gflop``; by default the one of the config.
    """
    with torch.device("meta"):
        tower: nn.Module = AutoModel.from_config(config)
    blocks = tower.get_submodule(encoder.blocks)
    vision: Any = config
    width, layers, patch = vision.hidden_size, vision.num_hidden_layers, vision.patch_size
    grid = native_grid(config)
    size = size or grid[0] * patch
    patches, prefix = (size // patch) ** 2, encoder.prefix_tokens_in(config)
    tokens = patches + prefix
    gated = any(name.endswith("gate_proj") for name, _ in blocks.named_modules())
    hidden = getattr(vision, "intermediate_size", None) or width * vision.mlp_ratio
    filled = encoder.images.fit == "bound"  # enlarged or shrunk to the most patches
    linear = sum(m.weight.numel() for m in blocks.modules() if isinstance(m, nn.Linear))
    operations = 2 * tokens * linear + 4 * tokens**2 * width * layers + 2 * patches * 3 * patch**2 * width
    return {
        "family": encoder.name,
        "label": encoder.label,
        "transformers_class": encoder.model_classes[config.model_type],
        "width": width,
        "layers": layers,
        "heads": vision.num_attention_heads,
        "head_dim": width // vision.num_attention_heads,
        "mlp": f"{'gated ' if gated else ''}{vision.hidden_act} {hidden}",
        "patch": patch,
        "size": size,
        "tokens": patches,
        "tokens_at": {str(side): encoder.images.most_patches if filled else (side // patch) ** 2 for side in SIZES},
        "prefix_tokens": prefix,
        "cls_token": encoder.cls_token,
        "registers": prefix - encoder.cls_token,
        "norm": encoder.norm,
        "table": encoder.table,
        "table_at": encoder.table_at,
        "table_grid": list(grid) if encoder.table == "learned" else None,
        "other_sizes": encoder.other_sizes,
        "aspect_ratio": "kept" if encoder.variable_resolution else "square",
        "resizing": encoder.images.resizing,
        "normalisation": encoder.images.normalisation,
        "mean": list(encoder.images.mean),
        "std": list(encoder.images.std),
        "feature_layer": f"-2 is block {layers - 1} of {layers}, -1 block {layers}, both before {encoder.final_norm}",
        "blocks_mparams": round(sum(weight.numel() for weight in blocks.parameters()) / 1e6, 2),
        "tower_mparams": round(sum(weight.numel() for weight in tower.parameters()) / 1e6, 2),
        "gflop": round(operations / 1e9, 1),
    }


def difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """In words, what differs between two towers; empty if an arm could swap one for the other with nothing else moved.

    Objective and training data are not looked at: weights do not show them.

    Args:
        a: a row of `rows`, or what `describe` returns.
        b: likewise.
    """

    def say(value: Any) -> str:
        if isinstance(value, bool):
            return "yes" if value else "no"
        return " x ".join(map(str, value)) if isinstance(value, list) else str(value)

    differ = [key for key in _COMPARED if a[key] != b[key]]
    if "table" in differ and "table_grid" in differ:  # which the other one states already
        differ.remove("table_grid")
    return [f"{_COMPARED[key]}: {say(a[key])} against {say(b[key])}" for key in differ]


_COMPARED = {
    "width": "width",
    "layers": "layers",
    "heads": "heads",
    "head_dim": "channels of a head",
    "mlp": "MLP",
    "norm": "norm",
    "patch": "patch side in pixels",
    "size": "image side in pixels",
    "tokens": "patch tokens",
    "aspect_ratio": "aspect ratio",
    "cls_token": "CLS token",
    "registers": "register tokens",
    "table": "positions",
    "table_grid": "grid of the position table",
    "resizing": "resizing of pictures",
    "normalisation": "normalisation of pixels",
}


def as_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Size and cost of each checkpoint, for the terminal."""
    numbers = ("blocks", "heads", "px", *(f"@{side}" for side in SIZES), "M", "GFLOP")
    look: dict[str, Any] = {"padding": (0, 1, 0, 0), "caption_justify": "left", "caption": _CAPTION}
    table = listing("checkpoint", "for", *(f"{title} >" for title in numbers), **look)
    owner = None
    for entry in rows:
        named, name = entry["checkpoint"].split("/")
        if named != owner:
            owner = named
            table.add_row(f"[bold]{owner}/[/bold]")
        table.add_row(
            f" {name}",
            " ".join(role[0] for role in entry["roles"]),
            f"{entry['layers']}x{entry['width']}",
            f"{entry['heads']}x{entry['head_dim']}",
            f"{entry['size']}/{entry['patch']}",
            *(str(entry["tokens_at"][str(side)]) for side in SIZES),
            f"{entry['blocks_mparams']:.0f}",
            f"{entry['gflop']:.0f}",
        )
    return table


_CAPTION = (
    "for: p is what the study's public code loads, m the matched set. blocks: number x width; heads: number x "
    "channels. px: side of the image / of a patch. @224: patch tokens of a square image of that many pixels. "
    "M: million parameters of the blocks. GFLOP: one image at px."
)


def as_conventions() -> Table:
    """What a family does before, between and after the blocks, for the terminal."""
    table = listing("family", "before the patches", "norm", "positions", "at other sizes", "images")
    for encoder in ENCODERS.values():
        counts = sorted({encoder.prefix_tokens_in(one.config()) - encoder.cls_token for one in encoder.checkpoints})
        prefix = ["CLS"] * encoder.cls_token + [f"{' or '.join(map(str, counts))} registers"] * (counts != [0])
        table.add_row(
            encoder.name,
            ", ".join(prefix) or "nothing",
            f"{encoder.norm}; features before {encoder.final_norm}",
            f"{encoder.table}: {encoder.table_at}",
            encoder.other_sizes,
            f"{encoder.images.resizing}; {encoder.images.normalisation}",
        )
    return table
