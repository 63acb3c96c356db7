"""The positional schemes of the language model: where image tokens are, what each axis turns. And their registry."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from inspect import signature
from typing import TYPE_CHECKING, Any

from blindspot.errors import UserError
from blindspot.plugins import extend

if TYPE_CHECKING:
    from torch import Tensor

Sections = tuple[int, int, int]


@dataclass(frozen=True)
class Layout:
    """Positions of one image's tokens."""

    offsets_an: Tensor
    """Shape (axes, tokens), in reading order: position on every axis, counted from the position that the first token
    would have in ordinary text. Whole numbers (long) or float64."""
    advance: float  # how far the next text token is from there
    from_zero: frozenset[int] = frozenset()  # axes that count from 0 instead


@dataclass(frozen=True)
class Scheme:
    """One positional scheme."""

    layout: Callable[..., Layout]
    """(height, width, **parameters) -> `Layout`; its parameters are fields of `LanguagePositions`."""
    allocate: Callable[..., tuple[int, ...]] | None = None
    """(count, **parameters) -> for each of ``count`` rotary pairs the axis that turns it; likewise. None: axis 0."""
    per_head: bool = False  # ``allocate`` hands out key-value heads, not rotary pairs
    needs_grid: bool = True  # image tokens must have rows and columns
    film: Callable[..., Layout] | None = None
    """(frames, height, width, **parameters) -> `Layout` of pictures of one size that follow each other without a word
    between, as of one thing that lasts; its parameters are those of ``layout``. None: each is laid out by itself."""
    rings: Callable[[int, int], Tensor] | None = None
    """(height, width) -> ring of each token; image tokens see rings up to their own. None: causal."""
    named: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    """Its settings that studies have a name for: name -> (label in tables, fields of `LanguagePositions`)."""

    @property
    def parameters(self) -> set[str]:
        """Every field of `LanguagePositions` that the scheme reads."""
        return {*_parameters(self.layout, 2), *_parameters(self.allocate, 1)}

    def layout_of(self, height: int, width: int, positions: Any, frames: int = 1) -> Layout:
        """The layout of one image, or of a film of several, under the parameters in ``positions``."""
        parameters = {name: getattr(positions, name) for name in _parameters(self.layout, 2)}
        if self.film is not None and frames > 1:
            return self.film(frames, height, width, **parameters)
        return self.layout(height, width, **parameters)

    def axes_of(self, count: int, positions: Any) -> tuple[int, ...]:
        """For each of ``count`` pairs (or key-value heads) the axis that turns it."""
        if self.allocate is None:
            return (0,) * count
        return self.allocate(count, **{name: getattr(positions, name) for name in _parameters(self.allocate, 1)})


@cache
def _parameters(function: Callable[..., Any] | None, behind: int) -> list[str]:
    """Names of what a function takes behind its first arguments."""
    return [] if function is None else [*signature(function).parameters][behind:]


def rows_and_columns(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Row and column of every patch in reading order, shape (height * width,) each."""
    import torch

    return torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)


def _text(tokens: int) -> Layout:
    import torch

    return Layout(torch.arange(tokens)[None], tokens)


def rope1d_layout(height: int, width: int) -> Layout:
    """Ordinary positions: an image is so many more tokens of text, as in LLaVA. Token n at s + n, the next text at
    s + H W.
    """
    return _text(height * width)


def row_break_layout(height: int, width: int) -> Layout:
    """Ordinary positions, and one extra learned token at the end of every row of the image.

    Patch (i, j) at s + i (W + 1) + j, the break of row i at s + i (W + 1) + W; the next text at s + H (W + 1). Source:
    the ``image_newline`` of LLaVA-NeXT and ``[IMG_BREAK]`` of Pixtral. The learned vector belongs to the model.
    """
    return _text(height * (width + 1))


def v2pe_layout(height: int, width: int, delta: float) -> Layout:
    """Image tokens follow each other in steps of ``delta`` instead of 1; with delta = 1 it is ordinary text.

    Token n at s - 1 + delta (n + 1); the next text at ceil(s - 1 + delta H W) + 1. Source: V2PE (arXiv 2412.09616).
    """
    import torch

    tokens = height * width
    return Layout((delta * (torch.arange(tokens).double() + 1) - 1)[None], math.ceil(round(delta * tokens, 9)))


def bapa_layout(height: int, width: int) -> Layout:
    """Shared position (BaPA, balanced position assignment): every token at s; the next text at s + 1."""
    import torch

    return Layout(torch.zeros(1, height * width, dtype=torch.long), 1)


def rings(height: int, width: int) -> Tensor:
    """Ring of every patch, min(i, j, H - 1 - i, W - 1 - j), shape (height * width,)."""
    import torch

    row_n, column_n = rows_and_columns(height, width)
    return torch.stack([row_n, column_n, height - 1 - row_n, width - 1 - column_n]).amin(dim=0)


def concentric_layout(height: int, width: int) -> Layout:
    """A token's position is its ring, counted from the border inwards: s + r; the next text behind the innermost ring.

    The mask follows the rings too: an image token sees the tokens of its own image whose ring is at most its own, in
    both directions; see `position_ids.mask`. Source: Concentric Causal Attention (CCA, arXiv 2410.15926).
    """
    return Layout(rings(height, width)[None], (min(height, width) + 1) // 2)


def rope_tie_layout(height: int, width: int) -> Layout:
    """RoPE-Tie: equal gaps between the image and the text around it, at the frequencies of text.

    With L the position of the last token before the image and rows and columns counted from 1: patch (i, j) at
    (L + i (W + 1), L + j (H + 1)); the next text at L + (H + 1)(W + 1). Source: Su, kexue.fm/archives/10040, version 1.
    """
    import torch

    row_n, column_n = rows_and_columns(height, width)
    last = -1
    offsets_an = torch.stack([last + (row_n + 1) * (width + 1), last + (column_n + 1) * (height + 1)])
    return Layout(offsets_an, last + (height + 1) * (width + 1))


def rope_tv_layout(height: int, width: int) -> Layout:
    """RoPE-TV: patch (i, j) at (L + (HW - H) / 2 + i, L + (HW - W) / 2 + j); the next text at L + HW + 1.

    Letters as in `rope_tie_layout`. Source: Su, kexue.fm/archives/10352, version 2 of RoPE-Tie.
    """
    import torch

    row_n, column_n = (index_n.double() for index_n in rows_and_columns(height, width))
    tokens = height * width
    return Layout(torch.stack([(tokens - height) / 2 + row_n, (tokens - width) / 2 + column_n]), tokens)


def alternating_axes(pairs: int) -> tuple[int, ...]:
    """Axis of each pair: rows, columns, rows, columns, ..."""
    return tuple(k % 2 for k in range(pairs))


def mrope_layout(height: int, width: int, spatial_reset: bool) -> Layout:
    """Multimodal rotary positions (M-RoPE): three axes (time, row, column) share the rotary pairs of every head.

    Patch (i, j) at (s, s + i, s + j), or (s, i, j) with ``spatial_reset``; the next text at s + max(H, W). Source:
    Qwen2-VL (arXiv 2409.12191): contiguous sections of pairs; Qwen3-VL: sections interleaved. ``spatial_reset`` counts
    rows and columns from 0 in every image (Multimodal-RoPEs, arXiv 2510.23095).
    """
    import torch

    row_n, column_n = rows_and_columns(height, width)
    from_zero = frozenset({1, 2}) if spatial_reset else frozenset()
    return Layout(torch.stack([torch.zeros_like(row_n), row_n, column_n]), max(height, width), from_zero)


def mrope_film(frames: int, height: int, width: int, spatial_reset: bool) -> Layout:
    """M-RoPE of a video: patch (i, j) of frame f at (s + f, s + i, s + j); the next text at s + max(F, H, W).

    Source: Qwen2-VL (arXiv 2409.12191), with a step of time from one frame to the next.
    """
    import torch

    one = mrope_layout(height, width, spatial_reset)
    time_n = torch.arange(frames).repeat_interleave(height * width)
    _, rows_n, columns_n = one.offsets_an.repeat(1, frames)
    return Layout(torch.stack([time_n, rows_n, columns_n]), max(frames, height, width), one.from_zero)


def videorope_layout(height: int, width: int, spacing: float) -> Layout:
    """VideoRoPE of one frame; see `videorope_film`."""
    return videorope_film(1, height, width, spacing)


def videorope_film(frames: int, height: int, width: int, spacing: float) -> Layout:
    """VideoRoPE: frames along the diagonal that text follows, each centred on its place there.

    Patch (i, j) of frame f at t = s + d f, (t, t - H / 2 + i, t - W / 2 + j) with d the ``spacing`` of frames; the next
    text at s + d F, rounded up: behind in time, while rows and columns of a large frame reach further. Source:
    VideoRoPE (arXiv 2502.05173), diagonal layout and adjustable temporal spacing.
    """
    import torch

    row_n, column_n = (index_n.double() for index_n in rows_and_columns(height, width))
    time_n = spacing * torch.arange(frames, dtype=torch.float64).repeat_interleave(height * width)
    rows_n, columns_n = time_n + (row_n - height / 2).repeat(frames), time_n + (column_n - width / 2).repeat(frames)
    return Layout(torch.stack([time_n, rows_n, columns_n]), math.ceil(spacing * frames))


def videorope_axes(pairs: int, sections: Sections | None) -> tuple[int, ...]:
    """Axis of each pair: the fast ones turn with columns and rows by turns, the slowest with time.

    The default is the proportion of VideoRoPE, 16 : 24 : 24 of 64 pairs (low-frequency temporal allocation), so that
    time does not come round.
    """
    time, rows, columns = sections or _proportional(pairs, 3 * pairs // 8)
    if time + rows + columns != pairs or rows != columns:
        raise UserError(
            f"language positions 'videorope': sections {[time, rows, columns]} must have as many pairs for rows as for "
            f"columns and add up to the {pairs} rotary pairs in a head; leave them out for the usual ones"
        )
    return (2, 1) * rows + (0,) * time


def chunked_axes(pairs: int, sections: Sections | None) -> tuple[int, ...]:
    """Axis of each pair: the first section of pairs turns with time, the next with rows, the last with columns.

    The default is Qwen2-VL's proportion, 16 : 24 : 24 of 64 pairs.
    """
    time, rows, columns = sections or _proportional(pairs, 3 * pairs // 8)
    if time + rows + columns != pairs:
        raise UserError(
            f"language positions: sections {list(sections or ())} add up to {time + rows + columns}, but the language "
            f"model has {pairs} rotary pairs in a head; give three numbers that add up to {pairs}, or leave them out"
        )
    return (0,) * time + (1,) * rows + (2,) * columns


def interleaved_axes(pairs: int, sections: Sections | None) -> tuple[int, ...]:
    """Axis of each pair: pair k turns with rows if k = 1 (mod 3), with columns if k = 2, up to their sections' sizes.

    The default is Qwen3-VL's proportion, 24 : 20 : 20 of 64 pairs.
    """
    time, rows, columns = sections or _proportional(pairs, 5 * pairs // 16)
    axes = tuple(1 if k % 3 == 1 and k < 3 * rows else 2 if k % 3 == 2 and k < 3 * columns else 0 for k in range(pairs))
    counts = tuple(axes.count(axis) for axis in range(3))
    if counts != (time, rows, columns):
        raise UserError(
            f"language positions: interleaved sections {list(sections or ())} don't fit {pairs} rotary pairs, every "
            f"third of which can turn with rows and every third with columns; {list(counts)} would, or leave them out"
        )
    return axes


def mrope_axes(pairs: int, sections: Sections | None, interleaved: bool, columns_first: bool) -> tuple[int, ...]:
    """Axis of each pair; see `chunked_axes` and `interleaved_axes`. ``columns_first`` exchanges rows and columns."""
    if columns_first and sections:
        sections = (sections[0], sections[2], sections[1])
    axes = interleaved_axes(pairs, sections) if interleaved else chunked_axes(pairs, sections)
    return tuple((0, 2, 1)[axis] for axis in axes) if columns_first else axes


def _proportional(pairs: int, spatial: int) -> Sections:
    if spatial < 1:
        raise UserError(
            f"language positions: {pairs} rotary pairs in a head of the language model are too few to share among "
            "time, rows and columns; use a larger head_dim or another scheme"
        )
    return pairs - 2 * spatial, spatial, spatial


def mhrope_axes(kv_heads: int, sections: Sections | None) -> tuple[int, ...]:
    """Axis of each key-value head, which turns all its pairs: the first with time, the next with rows, then columns.

    The default is 2 : 3 : 3 of 8 heads, and at least one head for rows and one for columns. Heads are handed out by
    key-value head, so that a query meets keys that were turned by its own axis. Every head gets an axis: a head without
    one would lose the order of text. Source: Multimodal-RoPEs (arXiv 2510.23095).
    """
    if kv_heads < 2:
        raise UserError(
            f"language positions 'mhrope': {kv_heads} key-value head of the language model can't be shared between "
            "rows and columns; use 'mrope' or a language model with more key-value heads"
        )
    spatial = max(1, 3 * kv_heads // 8)
    time, rows, columns = sections or (kv_heads - 2 * spatial, spatial, spatial)
    if time + rows + columns != kv_heads:
        raise UserError(
            f"language positions 'mhrope': sections {list(sections or ())} add up to {time + rows + columns}, but the "
            f"language model has {kv_heads} key-value heads; give three numbers that add up to {kv_heads}, or leave "
            "them out"
        )
    return (0,) * time + (1,) * rows + (2,) * columns


def circle_layout(height: int, width: int, alpha: float, radius: float) -> Layout:
    """Circle-RoPE: image tokens on a circle orthogonal to the line of text, equally far from every text position.

    Token n at s + p_n with p = R cos(theta) u + R sin(theta) v; the next text at s + max(p) + 1, not a whole number.
    u = (-1, 1, 0) / sqrt 2 and v = (1, 1, 1) / sqrt 3 x u span the plane orthogonal to the line (p, p, p) of text.
    They are written as x, y, z: column, row, time, the axes of positions backwards. Equal distance between positions is
    not equal rotation: the three coordinates turn different pairs, as in chunked M-RoPE. Source: Circle-RoPE (arXiv
    2505.16416).
    """
    import torch

    theta_n = circle_angles(height, width, alpha)
    u_a = torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64) / math.sqrt(2)
    v_a = torch.linalg.cross(torch.full((3,), 1 / math.sqrt(3), dtype=torch.float64), u_a)
    offsets_xn = radius * (torch.outer(u_a, theta_n.cos()) + torch.outer(v_a, theta_n.sin()))
    return Layout(offsets_xn.flip(0), offsets_xn.max().item() + 1)


def circle_angles(height: int, width: int, alpha: float) -> Tensor:
    """Angle of every token on the circle, in radians, shape (height * width,).

    ``alpha`` mixes the direction from the image's centre, stretched to [0, 2 pi], with the token's share of the
    reading order. At alpha = 1 tokens in one direction from the centre coincide; at 1/2 no two do on square grids up
    to 27 x 27, though two do on some others (7 x 3).
    """
    import torch

    row_n, column_n = (index_n.double() for index_n in rows_and_columns(height, width))
    direction_n = torch.atan2(row_n - (height - 1) / 2, column_n - (width - 1) / 2)
    low, high = direction_n.min(), direction_n.max()
    stretched_n = (direction_n - low) / (high - low) * (2 * math.pi) if high > low else torch.zeros_like(direction_n)
    order_n = torch.arange(height * width, dtype=torch.float64) * (2 * math.pi / (height * width))
    return alpha * stretched_n + (1 - alpha) * order_n


SCHEMES: dict[str, Scheme] = {
    "rope1d": Scheme(rope1d_layout, needs_grid=False, named={"rope1d": ("LM 1D-RoPE", {})}),
    "row_break": Scheme(row_break_layout, named={"row_break": ("LM row breaks", {})}),
    "mrope": Scheme(
        mrope_layout,
        mrope_axes,
        named={
            "mrope": ("LM M-RoPE", {}),
            "mrope_swapped": ("LM M-RoPE, columns first", {"columns_first": True}),
            "mrope_reset": ("LM M-RoPE, reset", {"spatial_reset": True}),
            "mrope_interleaved": ("LM M-RoPE interleaved", {"interleaved": True}),
            "mrope_interleaved_reset": ("LM M-RoPE interleaved, reset", {"interleaved": True, "spatial_reset": True}),
        },
    ),
    "mrope_film": Scheme(
        mrope_layout,
        mrope_axes,
        film=mrope_film,
        named={
            "mrope_film": ("LM M-RoPE, frames in time", {}),
            "mrope_interleaved_film": ("LM M-RoPE interleaved, frames in time", {"interleaved": True}),
        },
    ),
    "videorope": Scheme(
        videorope_layout, videorope_axes, film=videorope_film, named={"videorope": ("LM VideoRoPE", {})}
    ),
    "mhrope": Scheme(mrope_layout, mhrope_axes, per_head=True, named={"mhrope": ("LM multi-head RoPE", {})}),
    "rope_tie": Scheme(rope_tie_layout, alternating_axes, named={"rope_tie": ("LM RoPE-Tie", {})}),
    "rope_tv": Scheme(rope_tv_layout, alternating_axes, named={"rope_tv": ("LM RoPE-TV", {})}),
    "v2pe": Scheme(v2pe_layout, needs_grid=False, named={"v2pe": ("LM V2PE", {})}),
    "bapa": Scheme(bapa_layout, needs_grid=False, named={"bapa": ("LM BaPA", {})}),
    "concentric": Scheme(concentric_layout, rings=rings, named={"concentric": ("LM concentric", {})}),
    "circle": Scheme(circle_layout, chunked_axes, named={"circle": ("LM Circle-RoPE", {})}),
}
extend("positions", SCHEMES, Scheme)
