"""Positional schemes, one file each: `encoder` is the image encoder's self-attention, `language` the language model."""

from blindspot.positions.encoder import EncoderPositions, attach, start_table

__all__ = ["EncoderPositions", "attach", "start_table"]
