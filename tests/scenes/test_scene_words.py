"""Everything that is said about scenes, in words of the vocabulary."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blindspot.scenes.text import CAPTION_CONTENTS, TEXT_STYLES, WORDS, caption, describe, place_word
from blindspot.scenes.world import CELLS, Scene, draw_crowd, draw_distinct, draw_kind

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
