"""Absolute places: the cells of a top-view map (TopViewRS) and boxes (object localisation)."""

from random import Random

from blindspot.scenes.tasks.base import Referent, Task, Turn
from blindspot.scenes.text import place_words
from blindspot.scenes.world import CANVAS, COLOURS, GRID, Scene

BOX_UNITS = CANVAS


class Recognise(Task):
    """ "at r1 c2": the colour there."""

    name, column, kind = "recognition", "topviewrs", "text"
    answers = COLOURS

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in scene.things if thing.colour == answer), None)
        return thing and Turn(f"at {place_words(thing)}", answer, self.answers)


class Locate(Task):
    """ "cell of red": row and column, two words."""

    name, column, kind = "localisation", "topviewrs", "text"
    answers = tuple(f"r{row + 1} c{column + 1}" for row in range(GRID) for column in range(GRID))
    turns = 2.0

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in scene.things if place_words(thing) == answer), None)
        return thing and Turn(f"cell of {Referent(rng)(thing)}", answer, self.answers)


class Box(Task):
    """ "box of red": ``x0 y0 x1 y1`` in pixels of the canvas."""

    name, column, kind = "box", "boxes", "boxes"
    answers = ("any",)

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = rng.choice(scene.things)
        return Turn(f"box of {Referent(rng)(thing)}", " ".join(str(edge) for edge in thing.box))
