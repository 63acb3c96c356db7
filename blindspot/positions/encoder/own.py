"""The positions that a family has by itself: where its learned table is, and how computed ones are switched off."""

from typing import Any

import torch
from torch import Tensor, nn


def table_of(tower: nn.Module) -> nn.Parameter | None:
    """The learned position table, or None: an embedding (CLIP, SigLIP, SigLIP2, AIMv2) or a parameter (DINOv2).

    Returns:
        Shape (rows, width) or (1, rows, width), a row for CLS first where the family has one.

    Raises:
        ValueError: if there are several.
    """
    found: list[nn.Parameter] = []
    for module in tower.modules():
        embedding = getattr(module, "position_embedding", None)
        table: Any = embedding.weight if isinstance(embedding, nn.Embedding) else None
        table = getattr(module, "position_embeddings", table)
        if isinstance(table, nn.Parameter):
            found.append(table)
    if len(found) > 1:
        raise ValueError(f"{type(tower).__name__}: expected one learned position table, found {len(found)}")
    return found[0] if found else None


def write_table(table: nn.Parameter, values_nd: Tensor) -> None:
    """Write the rows of the patches; rows before them (CLS) become zero."""
    with torch.no_grad():
        rows_nd = table.view(-1, table.shape[-1])
        rows_nd[: len(rows_nd) - len(values_nd)] = 0
        rows_nd[len(rows_nd) - len(values_nd) :] = values_nd.to(rows_nd.device)


def table_side(table: nn.Parameter) -> int:
    """Rows and columns of the square grid that the table was made for.

    Raises:
        ValueError: if it is for no square grid with at most one token before it.
    """
    rows = table.shape[-2]
    for patches in (rows, rows - 1):
        side = round(patches**0.5)
        if side**2 == patches:
            return side
    raise ValueError(f"a position table of {rows} rows belongs to no square grid")


def computes(tower: nn.Module) -> bool:
    """Whether the family computes positions (DINOv3 turns its patches, AIMv2-native adds sines)."""
    return bool(_rotary(tower) or _sines(tower))


def turns(tower: nn.Module) -> bool:
    """Whether the family turns queries and keys by itself (DINOv3)."""
    return bool(_rotary(tower))


def silence(tower: nn.Module) -> None:
    """Switch off the positions that the family computes, until `restore`."""
    for module in _rotary(tower):
        module.own_positions_off = module.register_forward_hook(_no_turn)
    for module in _sines(tower):
        module.own_positions_off = module.register_forward_hook(_no_sines)


def restore(tower: nn.Module) -> None:
    """Undo `silence`, if it was called."""
    for module in tower.modules():
        if "own_positions_off" in vars(module):
            handle: Any = module.own_positions_off
            handle.remove()
            del module.own_positions_off


def silenced(tower: nn.Module) -> bool:
    """Whether `silence` is in force: whoever embeds patches for the tower must then add no positions."""
    return any("own_positions_off" in vars(module) for module in tower.modules())


def _rotary(tower: nn.Module) -> list[Any]:
    named = (getattr(module, "rope_embeddings", None) for module in tower.modules())
    return [module for module in named if isinstance(module, nn.Module)]


def _sines(tower: nn.Module) -> list[Any]:
    return [
        module
        for module in tower.modules()
        if all(hasattr(module, name) for name in ("patch_embed", "rms_norm"))
        and not hasattr(module, "position_embedding")
    ]


def _no_turn(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    cos, sin = output
    return torch.ones_like(cos), torch.zeros_like(sin)


def _no_sines(module: Any, args: Any, output: Tensor) -> Tensor:
    # The sum cannot be undone exactly, so the patches are embedded once more: a thousandth of the tower's work.
    return module.rms_norm(module.patch_embed(*args).flatten(2).transpose(1, 2))
