"""Which token stands for which part of the picture: measured, since towers differ in order and prefix tokens."""

from collections.abc import Callable, Sequence
from math import isqrt
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blindspot.errors import UserError

Grid = tuple[int, int]
MOST_PREFIX = 8
"""Most tokens (CLS, registers) that are looked for beside a square number of patches."""
AGREEMENT = 0.8


class Order(NamedTuple):
    """Where the patches are among the tokens of a picture.

    Attributes:
        tokens: of one picture, all.
        patches: indices of those that are patches, in raster order.
        grid: their rows and columns.
    """

    tokens: int
    patches: Tensor
    grid: Grid


def raster_order(states: Callable[[Sequence[np.ndarray]], Tensor], side: int) -> Order:
    """Find out which token is on which patch of a square picture.

    The number of every patch is shown to the model bit by bit: picture k is white where bit k of the patch's number is
    set, else black. A token is on its patch, so over the pictures it looks like the white picture or like the black
    one at the same token, and tells the number. Positions and the token's own offset cancel.

    Args:
        states: states of square pictures, shape (pictures, tokens, width).
        side: of the pictures in pixels.

    Raises:
        UserError: if no square grid fits, or two tokens claim one patch.
    """
    number_n, seen_n, prefix, grid = _numbers(states, side)
    order = torch.full((grid * grid,), -1)
    for token in range(prefix, len(number_n)):
        number = int(number_n[token])
        if not seen_n[token] or number >= grid * grid or order[number] >= 0:
            raise UserError("its tokens do not stand for one patch each")
        order[number] = token
    return Order(len(number_n), order, (grid, grid))


def in_raster_order(states: Callable[[Sequence[np.ndarray]], Tensor], side: int) -> Grid | None:
    """The square grid that tokens lie on in raster order, or None if they do not.

    For tokens that have looked at other patches too, so that single bits may mislead: as many must agree with raster
    order as `AGREEMENT` says, where half would by accident.
    """
    try:
        number_n, seen_n, prefix, grid = _numbers(states, side)
    except UserError:
        return None
    if prefix or not seen_n.all():
        return None
    wrong = sum(int(number).bit_count() for number in number_n ^ torch.arange(grid * grid))
    bits = max(1, (grid * grid - 1).bit_length()) * grid * grid
    return (grid, grid) if wrong <= (1 - AGREEMENT) * bits else None


def _numbers(states: Callable[[Sequence[np.ndarray]], Tensor], side: int) -> tuple[Tensor, Tensor, int, int]:
    """The number that each token tells, whether it sees anything, tokens before the patches, and the grid's side."""
    black, white = np.zeros((side, side, 3), np.uint8), np.full((side, side, 3), 255, np.uint8)
    ends_2nd = states([black, white]).float()
    tokens = ends_2nd.shape[1]
    grid = isqrt(tokens)
    prefix = tokens - grid * grid
    if prefix > MOST_PREFIX or not grid:
        raise UserError(f"{tokens} tokens are no square grid of patches with a few tokens beside it")
    numbers = np.arange(grid * grid).reshape(grid, grid)
    bits = max(1, (grid * grid - 1).bit_length())
    shown_knd = states([_painted((numbers >> bit) & 1, side) for bit in range(bits)]).float()
    to_black, to_white = ((shown_knd - end_nd).norm(dim=-1) for end_nd in ends_2nd)
    number_n = sum((to_white[bit] < to_black[bit]).long() << bit for bit in range(bits))
    assert isinstance(number_n, Tensor)
    return number_n, (ends_2nd[1] - ends_2nd[0]).norm(dim=-1) > 0, prefix, grid


def _painted(cells_hw: np.ndarray, side: int) -> np.ndarray:
    edges = np.arange(side) * len(cells_hw) // side
    return np.repeat((cells_hw[edges][:, edges] * 255).astype(np.uint8)[..., None], 3, axis=2)
