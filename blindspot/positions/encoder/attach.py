"""Attaching positions to a tower: its own table or computed positions give way, and the scheme's take their place."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from blindspot.errors import UserError
from blindspot.positions.encoder import SCHEMES, EncoderPositions, Grid, rotary
from blindspot.positions.encoder.schemes import sincos_table


def attach(tower: PreTrainedModel, positions: EncoderPositions, grid: Grid | int, prefix_tokens: int) -> None:
    """Give ``tower`` the positions. Call again after loading weights or changing the attention implementation.

    The result depends only on the arguments, not on what was attached before, with two exceptions: a table that was
    zeroed or written stays so until weights are loaded into it, and stays frozen; frequencies that ``mixed`` has
    learned are kept when ``mixed`` is attached again.

    Args:
        tower: a transformers image encoder, alone or inside a larger model.
        positions: what to attach. The table ``released`` also asks that the whole tower is frozen, which is left to
            whoever trains it.
        grid: patches of an image: rows and columns, or the side of a square. `set_grids` changes it.
        prefix_tokens: tokens before the patches (CLS, registers), which are never rotated.
    """
    frequencies = rotary.remove(tower)
    for module in tower.modules():
        if "own_positions_off" in vars(module):
            handle: Any = module.own_positions_off
            handle.remove()
            del module.own_positions_off
    rule, computing = positions.rule, _computing(tower)
    table = None if positions.table == "keep" else table_of(tower)
    if positions.table != "keep" and table is None and (rule.table is not None or not computing):
        name = type(tower).__name__
        if rule.table is not None:
            raise UserError(
                f"encoder positions: {positions.scheme} needs a position table to stand in, and {name} has none"
            )
        raise UserError(f"encoder positions: {name} has no position table that Blindspot knows; use table 'keep'")
    if table is not None:
        write_table(table, table.new_zeros(0, table.shape[-1]))
        table.requires_grad_(False)
        if rule.table is not None:
            side = table_side(table)
            write_table(table, rule.table(side, side, table.shape[-1], positions.base))
    elif positions.table != "keep" or (rule.rotates and any(off is _no_turn for _, off in computing)):
        for module, without in computing:  # DINOv3 would turn twice
            module.own_positions_off = module.register_forward_hook(without)
    if rule.rotates:
        square = (grid, grid) if isinstance(grid, int) else grid
        rotary.install(tower, rotary.PatchGrid(positions, square, prefix_tokens), frequencies)


def set_grids(tower: nn.Module, grids: Sequence[Grid]) -> None:
    """Say which patches the next images have. Does nothing on a tower without rotation.

    It holds until the next call. With gradient checkpointing, run the backward pass before setting other grids: blocks
    that are computed again look at the grids of that moment.

    Args:
        tower: a tower, or a model that holds one.
        grids: rows and columns: one for the whole batch, or one per image. In a batch of several sizes, images are
            padded at the end to as many patches as the attention mask covers.
    """
    places = rotary.patch_grid_of(tower)
    if places is not None:
        places.set(grids)


def start_table(tower: PreTrainedModel, grid: Grid | int, prefix_tokens: int) -> None:
    """Start the position table of a tower that is to be trained from nothing at two-dimensional sines and cosines.

    The table of a released encoder is large enough to read a patch's row and column from its token. From the small
    random start of transformers, the few hundred steps of a miniature leave it far too small for that: tokens would
    hold no place, whatever the objective. The base suits small grids. Does nothing on a tower that computes its
    positions.

    Args:
        grid: patches of an image of the size that the tower is built for.
    """
    table = table_of(tower)
    if table is None:
        return
    height, width = (grid, grid) if isinstance(grid, int) else grid
    rows = table.shape[-2] - height * width
    if rows not in (0, min(prefix_tokens, 1)):
        raise ValueError(f"a table of {table.shape[-2]} rows is not for {height} x {width} patches")
    write_table(table, sincos_table(height, width, table.shape[-1], SCHEMES["learned"].base))


def table_of(tower: nn.Module) -> nn.Parameter | None:
    """The learned position table, or None: an embedding (CLIP, SigLIP, SigLIP2, AIMv2) or a parameter (DINOv2).

    Returns:
        Shape (rows, width) or (1, rows, width), a row for CLS first where the family has one.
    """
    found: list[nn.Parameter] = []
    for module in tower.modules():
        embedding = getattr(module, "position_embedding", None)
        table = getattr(
            module, "position_embeddings", embedding.weight if isinstance(embedding, nn.Embedding) else None
        )
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
    """Rows and columns of the square grid that the table was made for, with at most one token before it."""
    rows = table.shape[-2]
    for patches in (rows, rows - 1):
        side = round(patches**0.5)
        if side**2 == patches:
            return side
    raise ValueError(f"a position table of {rows} rows belongs to no square grid")


def computes(tower: nn.Module) -> bool:
    """Whether the family computes positions (DINOv3 turns its patches, AIMv2-native adds sines)."""
    return bool(_computing(tower))


def silenced(tower: nn.Module) -> bool:
    """Whether the computed positions are off: whoever embeds patches for the tower must then add no positions."""
    return any("own_positions_off" in vars(module) for module in tower.modules())


def _computing(tower: nn.Module) -> list[tuple[Any, Callable[..., Any]]]:
    """The modules that compute positions, and for each the hook that switches it off."""
    found: list[tuple[Any, Callable[..., Any]]] = []
    for module in tower.modules():
        rope = getattr(module, "rope_embeddings", None)
        if isinstance(rope, nn.Module):
            found.append((rope, _no_turn))
        if hasattr(module, "patch_embed") and hasattr(module, "rms_norm") and not hasattr(module, "position_embedding"):
            found.append((module, _no_sines))
    return found


def _no_turn(module: nn.Module, args: Any, output: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    cos, sin = output
    return torch.ones_like(cos), torch.zeros_like(sin)


def _no_sines(module: Any, args: Any, output: Tensor) -> Tensor:
    # The sum cannot be undone exactly, so the patches are embedded once more: a thousandth of the tower's work.
    return module.rms_norm(module.patch_embed(*args).flatten(2).transpose(1, 2))
