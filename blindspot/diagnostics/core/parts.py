"""The parts of a vision-language model and its tokens' places: measured by what flows through them, not by name."""

from collections.abc import Callable, Iterator, Sequence
from math import isqrt, log
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from blindspot.errors import UserError

Grid = tuple[int, int]
MOST_PREFIX = 8
"""Most tokens (CLS, registers) that are looked for beside a square number of patches."""
AGREEMENT = 0.8
STRIPES = 6
"""Times that a picture is halved into stripes: 64 across and 64 down in the end."""
SURE = 5
"""Standard errors above a half that agreement has to be, so that few tokens do not agree by accident."""


class Roles(NamedTuple):
    """The modules that diagnostics read and change.

    Attributes:
        tower_blocks: the image encoder's blocks that run, in order.
        layers: the language model's blocks, in order.
        rotary: modules that make (cos, sin) for the language model's attention.
    """

    tower_blocks: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    rotary: tuple[nn.Module, ...]


class Layout(NamedTuple):
    """Where the tokens of a picture lie on it.

    Attributes:
        grid: rows and columns of the finest tokens that lie on one.
        tokens: indices of these among the picture's tokens, in raster order.
        rects_n4: x0, y0, x1, y1 of every token as shares of the picture; NaN of one that stands for no part of it.
    """

    grid: Grid
    tokens: Tensor
    rects_n4: np.ndarray

    @classmethod
    def raster(cls, grid: Grid) -> Self:
        """Tokens that lie on a grid in raster order."""
        return cls(grid, torch.arange(grid[0] * grid[1]), _rects(grid))

    def on(self, box: np.ndarray) -> np.ndarray:
        """Which tokens a box in shares of the picture lies on: at least half of a token, or as much as of any."""
        start_n2, stop_n2 = self.rects_n4[:, :2], self.rects_n4[:, 2:]
        inside_n2 = np.minimum(stop_n2, box[2:]) - np.maximum(start_n2, box[:2])
        covered_n = np.nan_to_num((inside_n2.clip(0) / (stop_n2 - start_n2)).prod(axis=1))
        return covered_n >= min(0.5, covered_n.max()) - 1e-9


class PatchOrder(NamedTuple):
    """Where the patches are among the tokens of a picture.

    Attributes:
        tokens: of one picture, all.
        patches: indices of those that are patches, in raster order.
        grid: their rows and columns.
    """

    tokens: int
    patches: Tensor
    grid: Grid


@torch.no_grad()
def find_roles(model: Any, inputs: dict[str, Tensor]) -> Roles:
    """Run the model once and see which modules play which part.

    The language model's blocks are the longest list that takes one vector of its width for each token; the encoder's
    those that run first, before them. A model without either is refused. Inputs are of one prompt with a picture.
    """
    calls: list[tuple[nn.Module, Tensor | None, Any]] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], gave: Any) -> None:
        took = _first(args)
        calls.append((module, _bare(kwargs.get("hidden_states", took) if took is None else took), _bare(gave)))

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        model(**inputs, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    flow = {id(module): (took, gave) for module, took, gave in reversed(calls)}
    order = {id(module): number for number, (module, *_) in enumerate(calls)}

    def ran(blocks: Sequence[nn.Module], fits: Callable[[Tensor], bool]) -> list[nn.Module]:
        """Those of the blocks that ran, if each took a tensor that fits and gave one of its shape; else none."""
        found = [block for block in blocks if id(block) in flow]
        for took, gave in (flow[id(block)] for block in found):
            if took is None or not fits(took) or took.shape != getattr(_first(gave), "shape", None):
                return []
        return found

    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    length, width = inputs["input_ids"].shape[1], model.get_output_embeddings().weight.shape[1]
    layers = max((ran(blocks, lambda took: took.shape[1:] == (length, width)) for blocks in lists), key=len)
    if not layers:
        raise UserError(f"{type(model).__name__}: found no language-model blocks that take one vector a token")
    start = order[id(layers[0])]
    before = [[block for block in blocks if order.get(id(block), start) < start] for blocks in lists]
    stacks = [found for blocks in before if (found := ran(blocks, lambda took: took.ndim in (2, 3)))]
    inner = {id(part) for stack in stacks for block in stack for part in block.modules() if part is not block}
    outer = [stack for stack in stacks if id(stack[0]) not in inner]
    if not outer:
        raise UserError(f"{type(model).__name__}: found no image-encoder blocks that run before the language model")
    tower = min(outer, key=lambda stack: order[id(stack[0])])  # a connector may have blocks too, and runs later
    turning = dict.fromkeys(module for module, _, gave in calls if _is_rotary(gave, length))  # some run many times
    families = (list(module.children()) for module in model.modules())
    near = next(f for f in families if any(isinstance(m, nn.ModuleList) and layers[0] in list(m) for m in f))
    return Roles(tuple(tower), tuple(layers), tuple(module for module in turning if module in near))


def _bare(value: Any) -> Any:
    """A tensor, or several, without what is in them: all that modules take and give would not fit beside a model."""
    if isinstance(value, Tensor):
        return value.to("meta")
    return tuple(map(_bare, value)) if isinstance(value, tuple | list) else None


def _first(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    return _first(value[0]) if isinstance(value, tuple | list) and value else None


def _is_rotary(gave: Any, length: int) -> bool:
    if not (isinstance(gave, tuple) and len(gave) == 2 and all(isinstance(part, Tensor) for part in gave)):
        return False
    cos, sin = gave
    return cos.shape == sin.shape and cos.ndim >= 3 and cos.shape[-2] == length and cos.is_floating_point()


def raster_order(states: Callable[[Sequence[np.ndarray]], Tensor], side: int) -> PatchOrder:
    """Find out which token is on which patch; tokens that stand for no patch each are refused.

    ``states`` takes square pictures of so many pixels a side and gives states of shape (pictures, tokens, width).
    """
    ends_2nd = _ends(states, (side, side))
    tokens = ends_2nd.shape[1]
    grid = isqrt(tokens)
    prefix = tokens - grid * grid
    if prefix > MOST_PREFIX or not grid:
        raise UserError(f"{tokens} tokens are no square grid of patches with a few tokens beside it")
    number_n, seen_n = _numbers(states, (side, side), (grid, grid), ends_2nd)
    order = torch.full((grid * grid,), -1)
    for token in range(prefix, len(number_n)):
        number = int(number_n[token])
        if not seen_n[token] or number >= grid * grid or order[number] >= 0:
            raise UserError("its tokens do not stand for one patch each")
        order[number] = token
    return PatchOrder(len(number_n), order, (grid, grid))


def in_raster_order(states: Callable[[Sequence[np.ndarray]], Tensor], size: tuple[int, int]) -> Grid | None:
    """The grid that tokens of a picture of this height and width lie on in raster order, or None if they do not.

    A square grid is tried, and for other pictures the one whose patches are nearest to squares. For tokens that have
    looked at other patches too, so that single bits may mislead: as many must agree with raster order as `AGREEMENT`
    says, where half would by accident.
    """
    ends_2nd = _ends(states, size)
    tokens = ends_2nd.shape[1]
    bits = max(1, (tokens - 1).bit_length()) * tokens
    rows = [rows for rows in range(1, tokens + 1) if tokens % rows == 0]
    near = min(rows, key=lambda rows: abs(log(rows * rows * size[1] / (tokens * size[0]))))
    square = isqrt(tokens)
    for down in dict.fromkeys([square] * (square**2 == tokens) + [near] * (size[0] != size[1])):
        number_n, seen_n = _numbers(states, size, (down, tokens // down), ends_2nd)
        wrong = sum(int(number).bit_count() for number in number_n ^ torch.arange(tokens))
        if seen_n.all() and wrong <= (1 - AGREEMENT) * bits:
            return down, tokens // down
    return None


def cut_up(states: Callable[[Sequence[np.ndarray]], Tensor], size: tuple[int, int]) -> Layout | None:
    """Where tokens lie of a picture that is cut into tiles, or shown twice, whole and finer; None: it cannot be told.

    Looked for: tiles in raster order, with tokens in raster order each, and before or behind them tokens of the whole
    picture, or none; between them tokens that see nothing. Shown are stripes, finer and finer; a token must look white
    or black as the stripe that it lies in does, if it lies in one, as often as `AGREEMENT` says and `SURE` standard
    errors above a half; of all that could be the best is taken.
    """
    ends_2nd = _ends(states, size)
    level_e = np.arange(1, STRIPES + 1)[:, None]
    down_eh, across_ew = ((np.arange(edge) << level_e) // edge % 2 for edge in size)
    shown = [*across_ew[:, None], *down_eh[:, :, None]]
    white_kn, seen_n = _white(states, [np.broadcast_to(stripes, size) for stripes in shown], ends_2nd)
    white_kn, seen_n = white_kn[:, seen_n].numpy(), seen_n.numpy()
    best, found = AGREEMENT, None
    for grid, tokens, rects_n4 in _cuts(int(seen_n.sum()), size):
        share_kn = np.concatenate([_share_white(rects_n4[:, axis::2].T, level_e) for axis in (0, 1)])
        sure_kn = np.abs(share_kn - 0.5) > 0.4
        agree_m = ((share_kn > 0.5) == white_kn)[sure_kn]
        if agree_m.mean() > best and (2 * agree_m.mean() - 1) * len(agree_m) ** 0.5 > SURE:
            best, found = agree_m.mean(), (grid, tokens, rects_n4)
    if found is None:
        return None
    grid, tokens, rects_n4 = found
    all_n4 = np.full((len(seen_n), 4), np.nan)
    all_n4[seen_n] = rects_n4
    return Layout(grid, torch.from_numpy(np.flatnonzero(seen_n)[tokens]), all_n4)


def _rects(grid: Grid) -> np.ndarray:
    """x0, y0, x1, y1 of the cells of a grid, in raster order."""
    rows, columns = grid
    y_n, x_n = np.divmod(np.arange(rows * columns), columns)
    return np.stack([x_n / columns, y_n / rows, (x_n + 1) / columns, (y_n + 1) / rows], axis=1)


def _cuts(tokens: int, size: tuple[int, int]) -> Iterator[tuple[Grid, np.ndarray, np.ndarray]]:
    """All ways to lay tokens on tiles and a whole picture: the grid that tiles make together, its tokens, rectangles.

    Tiles are of as many tokens down as across; tokens of them nearly square, those of the whole picture as well, unless
    they are as many down as across.
    """
    aspect = size[1] / size[0]
    wholes = {(0, 0)} | {(side, side) for side in range(1, isqrt(tokens) + 1)}
    wholes |= {(down, max(1, round(down * aspect))) for down in range(1, isqrt(tokens) + 1)}
    for down, across in sorted(wholes):
        rest = tokens - down * across
        for side in range(1, isqrt(max(rest, 0)) + 1):
            tiles, left = divmod(rest, side * side)
            for rows in range(1, tiles + 1) if not left and rest > down * across else ():
                columns = tiles // rows
                if rows * columns != tiles or not 0.5 <= rows * aspect / columns <= 2:
                    continue
                grid = rows * side, columns * side
                place_n = np.arange(rest).reshape(grid)
                order_n = place_n.reshape(rows, side, columns, side).swapaxes(1, 2).ravel()
                tiled_n4, whole_n4 = _rects(grid)[order_n], _rects((down, across)) if down else np.zeros((0, 4))
                yield grid, order_n.argsort(), np.concatenate([tiled_n4, whole_n4])
                if down:
                    yield grid, order_n.argsort() + down * across, np.concatenate([whole_n4, tiled_n4])


def _share_white(ends_2n: np.ndarray, level_e: np.ndarray) -> np.ndarray:
    """How much of each span is white, of 2 ** level stripes of which every second is, shape (levels, spans)."""
    at_2en = ends_2n[:, None] * 2.0**level_e
    white_2en = at_2en // 2 + (at_2en % 2 - 1).clip(0)
    return (white_2en[1] - white_2en[0]) / (at_2en[1] - at_2en[0])


def _ends(states: Callable[[Sequence[np.ndarray]], Tensor], size: tuple[int, int]) -> Tensor:
    """States of a black and of a white picture, shape (2, tokens, width)."""
    return states([np.full((*size, 3), shade, np.uint8) for shade in (0, 255)]).float()


def _numbers(
    states: Callable[[Sequence[np.ndarray]], Tensor], size: tuple[int, int], grid: Grid, ends_2nd: Tensor
) -> tuple[Tensor, Tensor]:
    """The number that each token tells, and whether it sees anything.

    The number of every patch is shown to the model bit by bit: picture k is white where bit k of the patch's number is
    set, else black. A token is on its patch, so over the pictures it looks like the white picture or like the black
    one at the same token, and tells the number. Positions and the token's own offset cancel.
    """
    patches = grid[0] * grid[1]
    down_h, across_w = (np.arange(edge) * count // edge for edge, count in zip(size, grid, strict=True))
    numbers_hw = down_h[:, None] * grid[1] + across_w
    bits = max(1, (patches - 1).bit_length())
    white_kn, seen_n = _white(states, [(numbers_hw >> bit) & 1 for bit in range(bits)], ends_2nd)
    return (white_kn.long() << torch.arange(bits)[:, None]).sum(dim=0), seen_n


def _white(
    states: Callable[[Sequence[np.ndarray]], Tensor], shown: Sequence[np.ndarray], ends_2nd: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether each token looks rather as on a white picture than as on a black one, shape (pictures, tokens), of
    pictures of ones and zeros; and whether it sees anything."""
    pictures = [np.repeat(bits_hw.astype(np.uint8)[..., None] * 255, 3, axis=2) for bits_hw in shown]
    shown_knd = states(pictures).float()
    to_black, to_white = ((shown_knd - end_nd).norm(dim=-1) for end_nd in ends_2nd)
    return (to_white < to_black).cpu(), (ends_2nd[1] - ends_2nd[0]).norm(dim=-1).cpu() > 0
