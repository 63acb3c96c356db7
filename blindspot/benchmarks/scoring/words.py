"""Partial match of two option texts."""


def overlap(one: str, other: str) -> float:
    """Words in common by the larger number of words: TopViewRS's partial match. Case does not matter."""
    a, b = set(one.lower().split()), set(other.lower().split())
    return len(a & b) / max(len(a), len(b), 1)
