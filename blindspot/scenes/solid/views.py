"""What a model trained from nothing is shown and asked of viewpoints: pictures of objects whose front is marked.

A picture is drawn by a task of viewpoints and asks its question: left or right for the camera, for one of the objects,
or for a camera a quarter turn on; or which way an object faces. Of each object it is also asked where it is in the
picture, over which place of the ground, and which way it faces.
"""

from collections.abc import Mapping, Sequence
from random import Random

from blindspot.scenes.solid.depth import Depth, cells, places_of
from blindspot.scenes.solid.lessons import Column, Lesson, Told
from blindspot.scenes.solid.tasks import TASKS, Facing
from blindspot.scenes.solid.world import SHAPES, see
from blindspot.scenes.tasks import Turn
from blindspot.scenes.text import place_word
from blindspot.scenes.world import COLOURS

VIEWS = ("for_camera", "for_whom", "from_side", "facing")
"""The tasks whose pictures are shown, equally often."""
OBLIQUE = 30
"""Degrees off away, left, toward and right up to which it is asked which of these an object faces."""


class Views(Depth):
    """Pictures and places in words are those of depth."""

    columns: Mapping[str, Column] = {name: Column(TASKS[name]) for name in VIEWS}
    side = 8

    def words(self) -> tuple[str, ...]:
        said = "shape of colour cell foot left-or-right for from-left from-right facing"
        return (*COLOURS, *SHAPES, *said.split(), *Facing.answers, *places_of(self.side))

    def lesson(self, rng: Random, cue: str) -> Lesson:
        task = TASKS[rng.choice(VIEWS)]
        shots, turn = rng.choice(task.build(rng, rng.choice(task.answers)))
        told, at = [], cells(shots[0], self.side)
        for own, (cell, foot) in zip(shots[0].scene.solids, at, strict=True):
            told += [
                Told(Turn(f"shape of {own.colour}", own.shape)),
                Told(Turn(f"colour of {own.shape}", own.colour)),
                Told(Turn(f"cell of {own.colour}", place_word(cell))),
                Told(Turn(f"foot of {own.colour}", place_word(foot))),
            ]
            quarter, off = divmod(see(own, shots[0].camera).facing + 45, 90)
            faces = Told(Turn(f"{own.colour} facing", Facing.answers[int(quarter) % 4]), in_words=False)
            if abs(off - 45) <= OBLIQUE and faces.turn.prompt != turn.prompt:
                told.append(faces)
        told.append(Told(turn, _in_words(task.name, at)))
        return Lesson(shots, rng.sample(told, len(told)))


def _in_words(task: str, at: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> bool:
    """Whether places in words tell the answer: who is more to the left, or nearer."""
    (cell_a, foot_a), (cell_b, foot_b), *_ = at
    return (task == "for_camera" and cell_a[1] != cell_b[1]) or (task == "from_side" and foot_a[0] != foot_b[0])
