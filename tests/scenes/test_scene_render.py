"""Pictures show their scene graph: the right colours, inside the boxes, nothing elsewhere."""

from itertools import combinations
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.scenes.render import RGB, coverage, render
from blindspot.scenes.world import CANVAS, COLOURS, SHAPES, SIZES, Scene, draw_distinct, place


@given(st.integers(0, 2**32), st.sampled_from([1, 2, 3]))
def test_a_picture_shows_its_things_and_nothing_else(seed: int, scale: int) -> None:
    scene = draw_distinct(Random(seed), "iid")
    image_hwc = render(scene, scale)
    assert image_hwc.shape == (CANVAS * scale, CANVAS * scale, 3)
    assert image_hwc.dtype == np.uint8
    empty = np.ones(image_hwc.shape[:2], bool)
    for thing in scene.things:
        x0, y0, x1, y1 = (edge * scale for edge in thing.box)
        empty[y0:y1, x0:x1] = False
        patch_pc = image_hwc[y0:y1, x0:x1].reshape(-1, 3).astype(int)
        assert np.abs(patch_pc - RGB[thing.colour]).max(1).min() <= 20, "no pixel has the colour"
        low, high = np.minimum(scene.background, RGB[thing.colour]), np.maximum(scene.background, RGB[thing.colour])
        assert ((patch_pc >= low) & (patch_pc <= high)).all(), "a mixture of colour and background"
    assert (image_hwc[empty] == scene.background).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", SIZES)
def test_a_shape_fills_its_box_and_keeps_its_form_at_every_scale(shape: str, size: int) -> None:
    cover = coverage(shape, size)
    assert cover.min() >= 0 and 0.9 < cover.max() <= 1
    for edge in (cover[0], cover[-1], cover[:, 0], cover[:, -1]):
        assert edge.max() > 0, "the box is tight to a pixel"
    for scale in (2, 3):
        fine = coverage(shape, size * scale).reshape(size, scale, size, scale).mean((1, 3))
        assert np.abs(fine - cover).max() < 0.3, "sampling of an edge"
        assert fine.mean() == pytest.approx(cover.mean(), abs=0.06)


@pytest.mark.parametrize("size", SIZES)
def test_shapes_can_be_told_apart(size: int) -> None:
    for one, other in combinations(SHAPES, 2):
        assert np.abs(coverage(one, size) - coverage(other, size)).mean() > 0.1, (one, other)


def test_colours_can_be_told_apart_from_each_other_and_from_any_background() -> None:
    assert set(RGB) == set(COLOURS)
    for one, other in combinations(RGB.values(), 2):
        assert np.abs(np.subtract(one, other)).sum() > 100
    backgrounds = {draw_distinct(Random(seed), "iid").background for seed in range(300)}
    for colour in RGB.values():
        assert all(np.abs(np.subtract(colour, background)).max() > 100 for background in backgrounds)


def test_a_moved_thing_moves_its_pixels() -> None:
    thing = place(Random(0), "red", "ring", (0, 0))
    moved = thing._replace(x=thing.x + 8, column=1)
    one, other = render(Scene((thing,), 20)), render(Scene((moved,), 20))
    assert (one != other).any()
    assert np.array_equal(np.roll(one, 8, axis=1), other)
