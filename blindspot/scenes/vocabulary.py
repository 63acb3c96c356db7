"""Every word that scenes, their descriptions and their questions use."""

from blindspot.scenes.text import place_word
from blindspot.scenes.world import CANVAS, CELLS, COLOURS, SHAPES

_QUESTIONS = (
    "any shape colour cell box of at how-many objects relative-to way to and or higher lower more-left more-right "
    "left right left-of right-of left-or-right above below above-or-below north south east west yes no"
)
_PLACES = [place_word(cell) for cell in CELLS]
_NUMBERS = [str(number) for number in range(CANVAS + 1)]

WORDS = (*COLOURS, *SHAPES, *_QUESTIONS.split(), *_PLACES, *_NUMBERS, "empty")
