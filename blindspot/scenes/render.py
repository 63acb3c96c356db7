"""Rasterise a scene: anti-aliased shapes on a plain background, at any number of pixels a cell."""

from functools import cache

import numpy as np

from blindspot.scenes.world import Scene

RGB = {
    "red": (226, 62, 54),
    "green": (60, 170, 70),
    "blue": (62, 104, 232),
    "yellow": (240, 200, 50),
    "purple": (166, 78, 200),
    "cyan": (70, 205, 220),
}
SAMPLES = 4


def render(scene: Scene, scale: int = 1) -> np.ndarray:
    """Draw ``scene`` as ``uint8`` of shape ``(height * scale, width * scale, 3)``."""
    canvas = np.full((scene.height * scale, scene.width * scale, 3), scene.background, dtype=np.float32)
    for thing in scene.things:
        cover = coverage(thing.shape, thing.size * scale)[..., None]
        top, left, size = thing.y * scale, thing.x * scale, thing.size * scale
        patch = canvas[top : top + size, left : left + size]
        patch += cover * (np.asarray(RGB[thing.colour], np.float32) - patch)
    return np.rint(canvas).astype(np.uint8)


@cache
def coverage(shape: str, size: int) -> np.ndarray:
    """Share of each pixel that a shape of ``size`` pixels covers: ``(size, size)`` in 0..1."""
    centres = (np.arange(size * SAMPLES) + 0.5) / (size * SAMPLES) * 2 - 1
    x, y = np.meshgrid(centres, centres)
    radius = np.hypot(x, y)
    inside = {
        "circle": radius <= 1,
        "square": np.maximum(abs(x), abs(y)) <= 0.92,
        "triangle": (y <= 0.9) & (y >= 2 * abs(x) - 1),
        "cross": (np.minimum(abs(x), abs(y)) <= 0.3),
        "diamond": abs(x) + abs(y) <= 1,
        "ring": (radius <= 1) & (radius >= 0.55),
    }[shape]
    return inside.reshape(size, SAMPLES, size, SAMPLES).mean((1, 3)).astype(np.float32)
