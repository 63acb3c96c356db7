"""RoPE-Tie: rows on even rotary pairs, columns on odd ones, and equal gaps between the image and the text around it.

Source: Su, kexue.fm/archives/10040 (version 1) and /10352 (version 2, RoPE-TV). Both keep the frequencies of text. With
L the position of the last token before the image and rows and columns counted from 1.
"""

from blindspot.positions.language.scheme import Layout, Scheme, rows_and_columns


def layout_v1(height: int, width: int) -> Layout:
    """Patch (i, j) at (L + i (W + 1), L + j (H + 1)); the next text at L + (H + 1)(W + 1)."""
    import torch

    row_n, column_n = rows_and_columns(height, width)
    last = -1
    offsets_an = torch.stack([last + (row_n + 1) * (width + 1), last + (column_n + 1) * (height + 1)])
    return Layout(offsets_an, last + (height + 1) * (width + 1))


def layout_v2(height: int, width: int) -> Layout:
    """Patch (i, j) at (L + (HW - H) / 2 + i, L + (HW - W) / 2 + j); the next text at L + HW + 1."""
    import torch

    row_n, column_n = (index_n.double() for index_n in rows_and_columns(height, width))
    tokens = height * width
    return Layout(torch.stack([(tokens - height) / 2 + row_n, (tokens - width) / 2 + column_n]), tokens)


def allocate(pairs: int) -> tuple[int, ...]:
    """Axis of each pair: rows, columns, rows, columns, ..."""
    return tuple(k % 2 for k in range(pairs))


ROPE_TIE = Scheme(layout_v1, allocate=allocate, named={"rope_tie": ("LM RoPE-Tie", {})})
ROPE_TV = Scheme(layout_v2, allocate=allocate, named={"rope_tv": ("LM RoPE-TV", {})})
