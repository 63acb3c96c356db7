"""Text from outside that must fit into a file."""


def whole(text: str) -> str:
    """``text`` without halves of surrogate pairs, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
