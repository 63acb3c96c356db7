"""Boxes: asking for them, reading them, drawing them."""
