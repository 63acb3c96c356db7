"""Moving what is in a picture, cell by cell: the eight symmetries of the square, and a shuffle.

A cell moves whole: an object stays upright, keeps its size and its offset inside the cell. Where a patch is a cell, as
in the miniature, a rearranged picture therefore has exactly the patches of the original.
"""

from collections.abc import Callable
from functools import partial
from random import Random

import torch
from torch import Tensor

from blindspot.scenes.relations import relation
from blindspot.scenes.world import CELL, CELLS, GRID, Cell, Scene

Rearrangement = Callable[[Cell, int], Cell]
"""Where a place goes on a grid of so many rows and columns."""


def _turned(matrix: tuple[int, int, int, int], place: Cell, side: int) -> Cell:
    """A linear map of (down, across) about the centre; doubled coordinates are whole."""
    down, across = 2 * place[0] - side + 1, 2 * place[1] - side + 1
    a, b, c, d = matrix
    return (a * down + b * across + side - 1) // 2, (c * down + d * across + side - 1) // 2


SYMMETRIES: dict[str, Rearrangement] = {
    "original": partial(_turned, (1, 0, 0, 1)),
    "turned 90": partial(_turned, (0, -1, 1, 0)),
    "turned 180": partial(_turned, (-1, 0, 0, -1)),
    "turned 270": partial(_turned, (0, 1, -1, 0)),
    "mirrored": partial(_turned, (1, 0, 0, -1)),
    "flipped": partial(_turned, (-1, 0, 0, 1)),
    "transposed": partial(_turned, (0, 1, 1, 0)),
    "anti-transposed": partial(_turned, (0, -1, -1, 0)),
}
"""Turns are counter-clockwise, by degrees. Mirrored: left and right exchanged. Flipped: above and below."""


def shuffle(seed: int) -> Rearrangement:
    """Cells exchanged in random pairs, so that doing it twice restores the picture.

    On a finer grid, places go along with their cell: one to one if all have equally many, else as nearly as can be.
    """
    cells = list(CELLS)
    Random(f"rearrangements/{seed}").shuffle(cells)
    half = len(cells) // 2
    partner = dict(zip(cells, cells[half:] + cells[:half], strict=True))

    def moved(place: Cell, side: int) -> Cell:
        places = [(2 * number + 1) * GRID for number in place]  # centre of the place, in 2 * side-ths of a cell
        cell = partner[places[0] // (2 * side), places[1] // (2 * side)]
        row, column = ((new * 2 * side + old % (2 * side)) // (2 * GRID) for new, old in zip(cell, places, strict=True))
        return row, column

    return moved


def rearranged(scene: Scene, move: Rearrangement) -> Scene:
    """The scene with every object carried along with its cell."""
    things = []
    for thing in scene.things:
        row, column = move(thing.cell, GRID)
        x, y = thing.x + (column - thing.column) * CELL, thing.y + (row - thing.row) * CELL
        things.append(thing._replace(row=row, column=column, x=x, y=y))
    return scene._replace(things=tuple(things))


def claimed(scene: Scene, *moves: Rearrangement) -> str | None:
    """The relation of the first two objects after their cells have moved; None on a diagonal."""
    cells = [thing.cell for thing in scene.things[:2]]
    for move in moves:
        cells = [move(cell, GRID) for cell in cells]
    return relation(*cells)


def answer_map(move: Rearrangement) -> dict[str, str]:
    """What each relation becomes under a symmetry of the square."""
    pairs = ((relation(cell, (1, 1)), relation(move(cell, 3), (1, 1))) for cell in ((1, 0), (1, 2), (0, 1), (2, 1)))
    return {before: after for before, after in pairs if before is not None and after is not None}


def order(move: Rearrangement, side: int) -> Tensor:
    """For every place of a grid in raster order the number of the place that it goes to, shape (side * side,)."""
    places = [move((row, column), side) for row in range(side) for column in range(side)]
    return torch.tensor([row * side + column for row, column in places])
