"""Positional schemes, one file each: `encoder` is the image encoder's self-attention, `language` the language model."""

from blindspot.positions.encoder import EncoderPositions, attach, start_table
from blindspot.positions.language import Grid, LanguagePositions, check, install, mask, place, tokens_per_image

__all__ = [
    "EncoderPositions",
    "Grid",
    "LanguagePositions",
    "attach",
    "check",
    "install",
    "mask",
    "place",
    "start_table",
    "tokens_per_image",
]
