"""Positional schemes of the image encoder: the registry, their configuration, and how they are attached.

A scheme is a file beside this one and a line in `registry.SCHEMES`.
"""

from blindspot.positions.encoder.attach import attach, set_grids, start_table
from blindspot.positions.encoder.config import TABLES, EncoderPositions
from blindspot.positions.encoder.own import silenced
from blindspot.positions.encoder.registry import SCHEMES
from blindspot.positions.encoder.scheme import Grid, Scheme

__all__ = [
    "SCHEMES",
    "TABLES",
    "EncoderPositions",
    "Grid",
    "Scheme",
    "attach",
    "set_grids",
    "silenced",
    "start_table",
]
