"""Ordinary positions, and one extra learned token at the end of every row of the image.

Source: the ``image_newline`` of LLaVA-NeXT and ``[IMG_BREAK]`` of Pixtral. The learned vector belongs to the model;
here are its places: the last token of each row of width + 1.
"""

from blindspot.positions.language.scheme import Layout, Scheme


def layout(height: int, width: int) -> Layout:
    """Patch (i, j) at s + i (W + 1) + j, the break of row i at s + i (W + 1) + W; the next text at s + H (W + 1)."""
    import torch

    tokens = height * (width + 1)
    return Layout(torch.arange(tokens)[None], tokens)


ROW_BREAK = Scheme(layout, named={"row_break": ("LM row breaks", {})})
