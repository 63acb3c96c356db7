"""Multimodal rotary positions (M-RoPE): three axes (time, row, column) share the rotary pairs of every head.

Source: Qwen2-VL (arXiv 2409.12191): contiguous sections of pairs; Qwen3-VL: sections interleaved. ``spatial_reset``
counts rows and columns from 0 in every image (Multimodal-RoPEs, arXiv 2510.23095).
"""

from blindspot.errors import UserError
from blindspot.positions.language.scheme import Layout, Scheme, Sections, rows_and_columns


def layout(height: int, width: int, spatial_reset: bool) -> Layout:
    """Patch (i, j) at (s, s + i, s + j), or (s, i, j) with ``spatial_reset``; the next text at s + max(H, W)."""
    import torch

    row_n, column_n = rows_and_columns(height, width)
    from_zero = frozenset({1, 2}) if spatial_reset else frozenset()
    return Layout(torch.stack([torch.zeros_like(row_n), row_n, column_n]), max(height, width), from_zero)


def chunked_axes(pairs: int, sections: Sections | None) -> tuple[int, ...]:
    """Axis of each pair: the first section of pairs turns with time, the next with rows, the last with columns.

    The default is Qwen2-VL's proportion, 16 : 24 : 24 of 64 pairs.

    Raises:
        UserError: if the sections don't add up to ``pairs``.
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

    Raises:
        UserError: if the sections don't add up to ``pairs``, or rows or columns don't find that many pairs.
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


def allocate(pairs: int, sections: Sections | None, interleaved: bool, columns_first: bool) -> tuple[int, ...]:
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


MROPE = Scheme(
    layout,
    allocate,
    named={
        "mrope": ("LM M-RoPE", {}),
        "mrope_swapped": ("LM M-RoPE, columns first", {"columns_first": True}),
        "mrope_reset": ("LM M-RoPE, reset", {"spatial_reset": True}),
        "mrope_interleaved": ("LM M-RoPE interleaved", {"interleaved": True}),
        "mrope_interleaved_reset": ("LM M-RoPE interleaved, reset", {"interleaved": True, "spatial_reset": True}),
    },
)
