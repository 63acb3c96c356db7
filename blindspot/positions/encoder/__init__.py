"""Positional schemes of the image encoder: the registry and their configuration, which load no torch.

A scheme is a file beside this one and a line in `SCHEMES` (``config.py``); `attach` gives them to a tower.
"""

from blindspot.positions.encoder.config import SCHEMES, TABLES, EncoderPositions
from blindspot.positions.encoder.scheme import Grid, Scheme

__all__ = ["SCHEMES", "TABLES", "EncoderPositions", "Grid", "Scheme"]
