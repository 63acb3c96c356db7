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
    black, white = np.zeros((side, side, 3), np.uint8), np.full((side, side, 3), 255, np.uint8)
    ends_2nd = states([black, white]).float()
    tokens = ends_2nd.shape[1]
    grid = isqrt(tokens)
    prefix = tokens - grid * grid
    if prefix > MOST_PREFIX:
        raise UserError(f"{tokens} tokens are no square grid of patches with a few tokens beside it")
    numbers = np.arange(grid * grid).reshape(grid, grid)
    bits = max(1, (grid * grid - 1).bit_length())
    pictures = [_painted((numbers >> bit) & 1, side) for bit in range(bits)]
    shown_knd = states(pictures).float()
    to_black = (shown_knd - ends_2nd[0]).norm(dim=-1)
    to_white = (shown_knd - ends_2nd[1]).norm(dim=-1)
    moves_n = (ends_2nd[1] - ends_2nd[0]).norm(dim=-1)
    number_n = sum((to_white[bit] < to_black[bit]).long() << bit for bit in range(bits))
    patches = torch.arange(prefix, tokens) if prefix else torch.arange(tokens)
    order = torch.full((grid * grid,), -1)
    for token in patches.tolist():
        number = int(number_n[token])  # pyright: ignore[reportIndexIssue]
        if moves_n[token] <= 0 or number >= grid * grid or order[number] >= 0:
            raise UserError("its tokens do not stand for one patch each")
        order[number] = token
    return Order(tokens, order, (grid, grid))


def _painted(cells_hw: np.ndarray, side: int) -> np.ndarray:
    edges = np.arange(side) * len(cells_hw) // side
    return np.repeat((cells_hw[edges][:, edges] * 255).astype(np.uint8)[..., None], 3, axis=2)
