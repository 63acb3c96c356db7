"""Attaching positions to a tower, and telling it which patches it will see."""

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from blindspot.errors import UserError
from blindspot.positions.encoder import attention, learned, own, sincos
from blindspot.positions.encoder.config import EncoderPositions
from blindspot.positions.encoder.patch_grid import PatchGrid
from blindspot.positions.encoder.scheme import Grid


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

    Raises:
        UserError: if this family cannot have the positions.
        ValueError: if the tower has no recognisable attention, or a head dimension that the scheme cannot use.
    """
    frequencies = attention.remove(tower)
    own.restore(tower)
    rule = positions.rule
    if positions.table != "keep":
        _drop_own(tower, positions)
    elif rule.rotates and own.turns(tower):
        own.silence(tower)  # DINOv3 would turn twice
    if rule.table is not None:
        table = own.table_of(tower)
        assert table is not None  # _drop_own found it
        side = own.table_side(table)
        own.write_table(table, rule.table(side, side, table.shape[-1], positions.base))
    if rule.rotates:
        square = (grid, grid) if isinstance(grid, int) else grid
        attention.install(tower, PatchGrid(positions, square, prefix_tokens), frequencies)


def _drop_own(tower: PreTrainedModel, positions: EncoderPositions) -> None:
    table = own.table_of(tower)
    name = type(tower).__name__
    if table is not None:
        own.write_table(table, table.new_zeros(0, table.shape[-1]))
        table.requires_grad_(False)
    elif positions.rule.table is not None:
        raise UserError(
            f"encoder positions: {positions.scheme} needs a position table to stand in, and {name} has none"
        )
    elif own.computes(tower):
        own.silence(tower)
    else:
        raise UserError(f"encoder positions: {name} has no position table that Blindspot knows; use table 'keep'")


def set_grids(tower: nn.Module, grids: Sequence[Grid]) -> None:
    """Say which patches the next images have. Does nothing on a tower without rotation.

    It holds until the next call. With gradient checkpointing, run the backward pass before setting other grids: blocks
    that are computed again look at the grids of that moment.

    Args:
        tower: a tower, or a model that holds one.
        grids: rows and columns: one for the whole batch, or one per image. In a batch of several sizes, images are
            padded at the end to as many patches as the attention mask covers.

    Raises:
        ValueError: if ``grids`` is empty or holds an empty grid.
    """
    places = attention.patch_grid_of(tower)
    if places is not None:
        places.set(grids)


def start_table(tower: PreTrainedModel, grid: Grid | int, prefix_tokens: int) -> None:
    """Start the position table of a tower that is to be trained from nothing at two-dimensional sines and cosines.

    The table of a released encoder is large enough to read a patch's row and column from its token. From the small
    random start of transformers, the few hundred steps of a miniature leave it far too small for that: tokens would
    hold no place, whatever the objective. The base suits small grids. Does nothing on a tower that computes its
    positions.

    Args:
        tower: a transformers image encoder.
        grid: patches of an image of the size that the tower is built for.
        prefix_tokens: tokens before the patches.

    Raises:
        ValueError: if the table is not for that many patches.
    """
    table = own.table_of(tower)
    if table is None:
        return
    height, width = (grid, grid) if isinstance(grid, int) else grid
    rows = table.shape[-2] - height * width
    if rows not in (0, min(prefix_tokens, 1)):
        raise ValueError(f"a table of {table.shape[-2]} rows is not for {height} x {width} patches")
    own.write_table(table, sincos.table(height, width, table.shape[-1], learned.SCHEME.base))
