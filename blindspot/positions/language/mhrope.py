"""Multi-head rotary positions: every head turns all its pairs with one axis, heads are shared among the axes.

Source: Multimodal-RoPEs (arXiv 2510.23095). Heads are handed out by key-value head, so that a query meets keys that
were turned by its own axis. Every head gets an axis: a head without one would lose the order of text.
"""

from blindspot.errors import UserError
from blindspot.positions.language import mrope
from blindspot.positions.language.scheme import Scheme, Sections


def allocate(kv_heads: int, sections: Sections | None) -> tuple[int, ...]:
    """Axis of each key-value head: the first turn with time, the next with rows, the last with columns.

    The default is 2 : 3 : 3 of 8 heads, and at least one head for rows and one for columns.

    Raises:
        UserError: if there are too few heads, or the sections don't add up to them.
    """
    if kv_heads < 2:
        raise UserError(
            f"language positions 'mhrope': {kv_heads} key-value head of the language model can't be shared between "
            "rows and columns; use 'mrope' or a language model with more key-value heads"
        )
    spatial = max(1, 3 * kv_heads // 8)
    time, rows, columns = sections or (kv_heads - 2 * spatial, spatial, spatial)
    if time + rows + columns != kv_heads:
        raise UserError(
            f"language positions 'mhrope': sections {list(sections or ())} add up to {time + rows + columns}, but the "
            f"language model has {kv_heads} key-value heads; give three numbers that add up to {kv_heads}, or leave "
            "them out"
        )
    return (0,) * time + (1,) * rows + (2,) * columns


MHROPE = Scheme(mrope.layout, allocate, per_head=True, named={"mhrope": ("LM multi-head RoPE", {})})
