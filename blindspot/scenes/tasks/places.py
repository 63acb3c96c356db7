"""Absolute places: the cells of a top-view map (TopViewRS) and boxes (object localisation)."""

from random import Random

from blindspot.scenes.tasks.base import Task, Turn
from blindspot.scenes.text import place_word
from blindspot.scenes.world import CELLS, COLOURS, Scene


class Recognise(Task):
    """ "at b1": the colour there."""

    name, column, kind = "recognition", "topviewrs", "text"
    answers = COLOURS
    turns = 1.5

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in scene.things if thing.colour == answer), None)
        return thing and Turn(f"at {place_word(thing.cell)}", answer, self.answers)


class Locate(Task):
    """ "cell of red": its name, as on a chessboard."""

    name, column, kind = "localisation", "topviewrs", "text"
    answers = tuple(place_word(cell) for cell in CELLS)
    turns = 2.0

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in scene.things if place_word(thing.cell) == answer), None)
        return thing and Turn(f"cell of {thing.colour}", answer, self.answers)


class Box(Task):
    """ "box of red": ``x0 y0 x1 y1`` in pixels of the canvas."""

    name, column, kind = "box", "boxes", "boxes"
    answers = ("any",)

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = rng.choice(scene.things)
        return Turn(f"box of {thing.colour}", " ".join(str(edge) for edge in thing.box))
