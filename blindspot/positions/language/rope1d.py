"""Ordinary rotary positions: an image is so many more tokens of text. What LLaVA does."""

from blindspot.positions.language.scheme import Layout, Scheme


def layout(height: int, width: int) -> Layout:
    """Token n at s + n; the next text token at s + H W."""
    import torch

    return Layout(torch.arange(height * width)[None], height * width)


ROPE1D = Scheme(layout, needs_grid=False, named={"rope1d": ("LM 1D-RoPE", {})})
