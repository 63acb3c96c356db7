"""Positional schemes, one file each: `encoder` is the image encoder's self-attention, `language` the language model.

The registries and configurations here load no torch; what applies them is imported by its own module.
"""

from blindspot.positions.encoder import EncoderPositions, Grid
from blindspot.positions.language import LanguagePositions, check

__all__ = ["EncoderPositions", "Grid", "LanguagePositions", "check"]
