"""What every scene, every relation, every picture and every sentence obeys, whatever the seed."""

import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.scenes import sampling
from blindspot.scenes.relations import RELATIONS, relation
from blindspot.scenes.render import RGB, coverage, render
from blindspot.scenes.sampling import TrainingWorld
from blindspot.scenes.text import CAPTION_CONTENTS, TEXT_STYLES, WORDS, caption, describe, place_word
from blindspot.scenes.world import (
    CANVAS,
    CELL,
    CELLS,
    COLOURS,
    GRID,
    HELD_OUT,
    SHAPES,
    SIZES,
    Cell,
    Scene,
    Split,
    draw_crowd,
    draw_distinct,
    draw_kind,
    place,
)

ROOT = Path(__file__).parents[2]
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

seeds = st.integers(0, 2**32)
cells = st.sampled_from(CELLS)


def _kinds(scene: Scene) -> list[tuple[str, str]]:
    return [(thing.colour, thing.shape) for thing in scene.things]


def _graph_key(scene: Scene) -> tuple[object, ...]:
    return tuple(sorted(scene.things)), scene.background


@given(seeds, st.sampled_from(["train", "iid", "compositional"]), st.integers(2, 5))
def test_things_lie_in_cells_of_their_own(seed: int, split: str, count: int) -> None:
    scene = draw_distinct(Random(seed), split, count=count)  # pyright: ignore[reportArgumentType]
    assert len(scene.things) == count == len({thing.cell for thing in scene.things})
    assert len({thing.colour for thing in scene.things}) == len({thing.shape for thing in scene.things}) == count
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        assert thing.column * CELL <= x0 < x1 <= (thing.column + 1) * CELL <= CANVAS
        assert thing.row * CELL <= y0 < y1 <= (thing.row + 1) * CELL <= CANVAS


@given(seeds, st.integers(1, len(CELLS)))
def test_a_crowd_has_the_kinds_it_was_given_in_cells_of_their_own(seed: int, count: int) -> None:
    rng = Random(seed)
    kinds = [draw_kind(rng) for _ in range(count)]
    scene = draw_crowd(rng, kinds)
    assert sorted(_kinds(scene)) == sorted(kinds)
    assert len({thing.cell for thing in scene.things}) == count


@given(seeds, st.lists(cells, min_size=1, max_size=5, unique=True))
def test_asked_cells_are_used_in_order(seed: int, wanted: list[Cell]) -> None:
    scene = draw_distinct(Random(seed), "iid", cells=wanted)
    assert [thing.cell for thing in scene.things[: len(wanted)]] == wanted


@given(seeds, st.integers(2, 5))
def test_held_out_kinds_appear_in_the_compositional_split_only(seed: int, count: int) -> None:
    for split in ("train", "iid"):
        assert not HELD_OUT.intersection(_kinds(draw_distinct(Random(seed), split, count=count)))
    first, *rest = _kinds(draw_distinct(Random(seed), "compositional", count=count))
    assert first in HELD_OUT
    assert not HELD_OUT.intersection(rest)
    assert draw_kind(Random(seed)) not in HELD_OUT


def test_every_colour_and_shape_has_kinds_that_training_shows() -> None:
    for words, position in ((COLOURS, 0), (SHAPES, 1)):
        held = [kind[position] for kind in HELD_OUT]
        assert all(held.count(word) <= 1 for word in words)
        assert any(word not in held for word in words), "no anchor"


@given(cells, cells)
def test_a_relation_seen_from_the_other_side_is_its_opposite(a: Cell, b: Cell) -> None:
    found = relation(a, b)
    assert relation(b, a) == (None if found is None else OPPOSITE[found])
    assert (found is None) == (abs(a[0] - b[0]) == abs(a[1] - b[1]))


@given(cells, cells, st.booleans(), st.integers(0, 3))
def test_mirrors_and_quarter_turns_carry_relations_along(a: Cell, b: Cell, mirror: bool, turns: int) -> None:
    def moved(cell: Cell) -> Cell:
        row, column = cell
        if mirror:
            column = GRID - 1 - column
        for _ in range(turns):  # clockwise
            row, column = column, GRID - 1 - row
        return row, column

    def renamed(name: str) -> str:
        clockwise = ("above", "right", "below", "left")
        if mirror and name in ("left", "right"):
            name = OPPOSITE[name]
        return clockwise[(clockwise.index(name) + turns) % 4]

    found = relation(a, b)
    assert relation(moved(a), moved(b)) == (None if found is None else renamed(found))


@given(seeds)
def test_the_graph_lists_every_relation(seed: int) -> None:
    scene = draw_distinct(Random(seed), "iid")
    listed = {(i, j): name for i, name, j in scene.graph()["relations"]}  # pyright: ignore
    for i, a in enumerate(scene.things):
        for j, b in enumerate(scene.things):
            assert listed.get((i, j)) == (relation(a.cell, b.cell) if i != j else None)
    assert set(listed.values()) <= set(RELATIONS)


def test_the_same_seed_is_the_same_data_and_another_is_not() -> None:
    def drawn(seed: int) -> list[object]:
        world = TrainingWorld(seed, 6)
        return [world.draw() for _ in range(20)]

    assert repr(drawn(3)) == repr(drawn(3)) != repr(drawn(4))
    test = sampling.test_questions
    assert test("iid", 12, 3) == test("iid", 12, 3) != test("iid", 12, 4)


def test_data_do_not_depend_on_the_hash_seed_of_the_process() -> None:
    code = (
        "import hashlib\n"
        "from blindspot.scenes.sampling import TrainingWorld, test_questions\n"
        "world = TrainingWorld(0, 10)\n"
        "drawn = [[(scene, [turn for _, turn in turns]) for scene, turns in [world.draw()]] for _ in range(60)]\n"
        "drawn += [test_questions(split, 12, 0) for split in ('iid', 'compositional')]\n"
        "print(hashlib.sha256(repr(drawn).encode()).hexdigest())\n"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


@pytest.mark.parametrize("split", ["iid", "compositional"])
def test_no_test_scene_is_a_training_scene(split: Split) -> None:
    likely, questions = sampling.test_questions(split, 40, 5)
    scenes, redrawn = sampling.test_questions(split, 40, 5, training=likely)
    assert not {_graph_key(scene) for scene in scenes}.intersection(_graph_key(scene) for scene in likely)
    assert [question.groups["task"] for question in redrawn] == [question.groups["task"] for question in questions]


def test_training_scenes_show_no_held_out_kind_and_every_other(train) -> None:
    shown = {kind for scene, _ in train for kind in _kinds(scene)}
    assert shown == {(colour, shape) for colour in COLOURS for shape in SHAPES} - HELD_OUT


def test_training_never_asks_about_a_held_out_kind_as_such(train) -> None:
    prompts = {turn.prompt for _, turns in train for _, turn in turns}
    for colour, shape in HELD_OUT:
        assert not any(f"{colour} {shape}" in prompt for prompt in prompts)


def test_compositional_questions_ask_about_the_held_out_kind(compositional) -> None:
    scenes, questions = compositional
    shown = [set(_kinds(scene)) & HELD_OUT for scene in scenes]
    assert all(len(kinds) <= 1 for kinds in shown)
    for question in questions:
        words = set(question.prompt.split())
        kinds = shown[question.images[0]]
        if kinds:
            assert words & set(next(iter(kinds))), question
        else:  # a negative: both words are there, on different objects
            assert question.answer == "no"
            assert any({colour, shape} <= words for colour, shape in HELD_OUT), question


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


KNOWN = set(WORDS)


def _scene(seed: int) -> Scene:
    rng = Random(seed)
    if rng.random() < 0.5:
        return draw_distinct(rng, rng.choice(["train", "iid", "compositional"]))  # pyright: ignore[reportArgumentType]
    return draw_crowd(rng, [draw_kind(rng) for _ in range(rng.randint(1, 12))])


def test_no_word_comes_twice() -> None:
    assert len(KNOWN) == len(WORDS)
    assert all(word == word.strip() and len(word.split()) == 1 for word in WORDS)


def test_prompts_and_answers_use_known_words(train, iid, compositional) -> None:
    said = {f"{turn.prompt} {turn.answer} {' '.join(turn.choices)}" for _, turns in train for _, turn in turns}
    for _, questions in (iid, compositional):
        said |= {f"{one.prompt} {one.answer} {' '.join(one.choices)}" for one in questions}
    assert {word for text in said for word in text.split()} <= KNOWN


@given(st.integers(0, 2**32))
def test_descriptions_and_captions_use_known_words(seed: int) -> None:
    scene, rng = _scene(seed), Random(seed)
    texts = [describe(scene, style, rng) for style in TEXT_STYLES]
    texts += [caption(scene, content, rng) for content in CAPTION_CONTENTS]
    assert {word for text in texts for word in text.split()} <= KNOWN


@given(st.integers(0, 2**32))
def test_a_plain_description_says_what_is_where(seed: int) -> None:
    scene = _scene(seed)
    text = describe(scene, "plain", Random(seed))
    for thing in scene.things:
        assert f"{thing.colour} {thing.shape} {place_word(thing.cell)}" in text
        assert f"{thing.colour} {thing.shape}" in caption(scene, "objects", Random(seed))
    named = [place_word(cell) for cell in CELLS if place_word(cell) in text]
    assert len(named) == len(scene.things)
    assert not any(place_word(cell) in caption(scene, "objects", Random(seed)) for cell in CELLS)


@given(st.integers(0, 2**32))
def test_a_raster_description_goes_through_the_cells_in_order(seed: int) -> None:
    scene = _scene(seed)
    by_cell = {thing.cell: thing for thing in scene.things}
    words = iter(describe(scene, "raster", Random(seed)).split())
    for cell in CELLS:
        word = next(words)
        if cell in by_cell:
            assert (word, next(words)) == (by_cell[cell].colour, by_cell[cell].shape)
        else:
            assert word not in (thing.colour for thing in scene.things)
    assert next(words, None) is None


@pytest.mark.parametrize("cell", CELLS)
def test_place_words_are_distinct(cell: tuple[int, int]) -> None:
    assert [other for other in CELLS if place_word(other) == place_word(cell)] == [cell]
