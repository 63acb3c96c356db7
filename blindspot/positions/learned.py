"""Learned absolute positions: what every family does by default."""


def angles(height: int, width: int, head_dim: int, base: float) -> None:
    """No rotation: the encoder knows places only through the position table it was built with."""
