"""Shared position (BaPA, balanced position assignment): every token of an image has the position of the first."""

from blindspot.positions.language.scheme import Layout, Scheme


def layout(height: int, width: int) -> Layout:
    """Every token at s; the next text at s + 1."""
    import torch

    return Layout(torch.zeros(1, height * width, dtype=torch.long), 1)


BAPA = Scheme(layout, needs_grid=False, named={"bapa": ("LM BaPA", {})})
