"""Which layers are looked at: all of a small model's, some of a large one's."""

import numpy as np

from blindspot.diagnostics.core.hooks import Part, Site
from blindspot.diagnostics.core.subject import Subject

MOST_SITES = 9
MOST_WINDOWS = 8


def some_sites(subject: Subject, part: Part) -> list[Site]:
    """Sites of a part, first and last among them; `MOST_SITES` evenly spaced ones if there are more."""
    sites = subject.sites(part)
    chosen = np.linspace(0, len(sites) - 1, min(len(sites), MOST_SITES)).round().astype(int)
    return [sites[index] for index in chosen]


def windows(layers: int) -> list[range]:
    """Layers in at most `MOST_WINDOWS` runs of one length (the last may be shorter), and all of them if there are two.

    Args:
        layers: of the language model.
    """
    width = -(-layers // MOST_WINDOWS)
    parts = [range(start, min(start + width, layers)) for start in range(0, layers, width)]
    return [*parts, range(layers)] if len(parts) > 1 else parts
