"""What a model trained from nothing is shown and asked of films: three pictures of two objects.

Each film is drawn by a task of motion, so that no picture of it alone says who moved `first`, and little which way
something `moved` (.607 at most). Of each object it is also asked when it moved, and where it is in one of the pictures.
"""

from collections.abc import Mapping
from random import Random

from blindspot.scenes.solid.depth import cell_of
from blindspot.scenes.solid.lessons import Column, Lesson, Told, World
from blindspot.scenes.solid.motion import TASKS
from blindspot.scenes.solid.tasks import SolidExample
from blindspot.scenes.solid.world import SHAPES, Shot, Solid, see
from blindspot.scenes.tasks import Turn
from blindspot.scenes.text import place_word

FILMS = ("first", "moved")
"""The tasks whose films are shown, `first` twice as often, and asked with either object named first."""
MOMENTS = ("at-first", "between", "at-last")
WHEN = {(True, False): "early", (False, True): "late", (True, True): "always", (False, False): "never"}
"""Whether an object moved before the second picture, and after it."""


class Films(World):
    """Besides the tasks `first` is tested with the pictures in random order."""

    columns: Mapping[str, Column] = {
        name: Column(TASKS[name.removesuffix("_shuffled")], apart=f"/{name}") for name in (*FILMS, "first_shuffled")
    }

    side = 8
    said = " ".join(("shape of cell when then first or moved left-or-right left right", *MOMENTS, *WHEN.values()))

    def about(self, cue: str) -> Mapping[str, tuple[str, ...]]:
        return {"cell": self.cells, "shape": SHAPES}

    def where(self, solid: Solid, shot: Shot) -> str:
        return place_word(cell_of(see(solid, shot.camera), self.side))

    def lesson(self, rng: Random, cue: str) -> Lesson:
        task = TASKS[rng.choice((FILMS[0], *FILMS))]
        shots, turn = three(rng, rng.choice(task.build(rng, rng.choice(task.answers))))
        told, noticed = [], False
        for own in shots[0].scene.solids:
            cells = [self.where(shot.find(own.colour), shot) for shot in shots]
            places = [shot.find(own.colour)[2:4] for shot in shots]
            really, in_words = ((each[0] != each[1], each[1] != each[2]) for each in (places, cells))
            noticed |= {"first": any(in_words), "moved": cells[0][0] != cells[-1][0]}.get(task.name, False)
            at = rng.randrange(len(MOMENTS))
            told.append(Told(Turn(f"shape of {own.colour}", own.shape)))
            told.append(Told(Turn(f"cell of {own.colour} {MOMENTS[at]}", cells[at])))
            told.append(Told(Turn(f"when {own.colour} moved", WHEN[really]), really == in_words))
        told.append(Told(turn, noticed))
        if task.name == "first":
            told.append(Told(task.turn(shots[0].scene.solids[::-1], turn.answer), noticed))
        return Lesson(shots, rng.sample(told, len(told)))

    def shown(self, column: str, example: SolidExample, rng: Random) -> SolidExample:
        film = three(rng, example)
        return film if column in FILMS else film._replace(shots=tuple(rng.sample(film.shots, len(film.shots))))


def three(rng: Random, film: SolidExample) -> SolidExample:
    """A film of three pictures; one of two stands still before or after what it shows."""
    if len(film.shots) == len(MOMENTS):
        return film
    first, last = film.shots
    return film._replace(shots=(first, rng.choice((first, last)), last))
