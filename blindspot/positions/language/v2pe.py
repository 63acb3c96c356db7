"""V2PE: image tokens follow each other in steps of ``delta`` instead of 1.

Source: V2PE (arXiv 2412.09616). With delta = 1 it is ordinary text.
"""

import math

from blindspot.positions.language.scheme import Layout, Scheme


def layout(height: int, width: int, delta: float) -> Layout:
    """Token n at s - 1 + delta (n + 1); the next text at ceil(s - 1 + delta H W) + 1."""
    import torch

    tokens = height * width
    return Layout((delta * (torch.arange(tokens).double() + 1) - 1)[None], math.ceil(round(delta * tokens, 9)))


V2PE = Scheme(layout, needs_grid=False, named={"v2pe": ("LM V2PE", {})})
