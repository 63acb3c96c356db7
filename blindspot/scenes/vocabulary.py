"""Every word that scenes, their descriptions and their questions use."""

from blindspot.scenes.world import CANVAS, COLOURS, GRID, SHAPES

_QUESTIONS = (
    "any shape colour cell box of at how-many objects relative-to way to and or higher lower more-left more-right "
    "left right left-of right-of left-or-right above below above-or-below north south east west yes no"
)
_PLACES = [f"{axis}{number}" for axis in "rc" for number in range(1, GRID + 1)]
_NUMBERS = [str(number) for number in range(CANVAS + 1)]

WORDS = (*COLOURS, *SHAPES, *_QUESTIONS.split(), *_PLACES, *_NUMBERS, "empty", ",")
