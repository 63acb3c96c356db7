"""Scenes in words: what the language model reads before it sees a picture, the captions encoders learn from, and
every word that these and the questions use."""

from random import Random
from typing import Literal, get_args

from blindspot.scenes.world import CANVAS, CELLS, COLOURS, SHAPES, Cell, Scene, Thing

TextStyle = Literal["plain", "raster"]
CaptionContent = Literal["objects", "places"]
TEXT_STYLES: tuple[TextStyle, ...] = get_args(TextStyle)
CAPTION_CONTENTS: tuple[CaptionContent, ...] = get_args(CaptionContent)


def describe(scene: Scene, style: TextStyle, rng: Random) -> str:
    """A scene as text.

    Args:
        style: ``plain`` names each object and its place in words, in any order, as a language model has read it;
            ``raster`` goes through the cells in reading order without a word about place, so that the order of the
            words is the place, as the order of image tokens is.
        rng: decides the order of a plain description.
    """
    if style == "raster":
        by_cell = {thing.cell: thing for thing in scene.things}
        return " ".join(_name(by_cell[cell]) if cell in by_cell else "empty" for cell in CELLS)
    return caption(scene, "places", rng)


def caption(scene: Scene, content: CaptionContent, rng: Random) -> str:
    """The objects in random order: ``objects`` by colour and shape alone, ``places`` with their cells too."""
    things = rng.sample(scene.things, len(scene.things))
    if content == "objects":
        return " ".join(_name(thing) for thing in things)
    return " ".join(f"{_name(thing)} {place_word(thing.cell)}" for thing in things)


def place_word(cell: Cell) -> str:
    """A cell's name as on a chessboard: columns a to d from the left, rows 1 to 4 from the top."""
    row, column = cell
    return f"{'abcdefgh'[column]}{row + 1}"


def _name(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


_QUESTIONS = (
    "any shape colour cell box of at how-many objects relative-to way to and or higher lower more-left more-right "
    "left right left-of right-of left-or-right above below above-or-below north south east west yes no"
)
_PLACES = [place_word(cell) for cell in CELLS]


def words(longest: int = CANVAS) -> tuple[str, ...]:
    """Every word that is used of pictures whose longer side is so many pixels."""
    numbers = (str(number) for number in range(longest + 1))
    return (*COLOURS, *SHAPES, *_QUESTIONS.split(), *_PLACES, *numbers, "empty")


WORDS = words()
