"""What a model trained from nothing is shown and asked of scenes with depth, in the words of the drawn world.

A picture has three objects whose depths say nothing about each other or about where they stand in the picture, and
about fifteen turns. Twins alone teach nothing: no single cue has a gradient. What opens the way is to be asked where
the foot of every object is.
"""

from collections.abc import Sequence
from itertools import combinations
from random import Random

from blindspot.scenes.solid import rules
from blindspot.scenes.solid.draw import FAR, NEAR, camera, lift
from blindspot.scenes.solid.draw import places as placed
from blindspot.scenes.solid.lessons import Asked, Lesson, Told, blind, one
from blindspot.scenes.solid.registry import CUES, FEET
from blindspot.scenes.solid.tasks import TASKS, SolidExample
from blindspot.scenes.solid.world import SHAPES, SeenSolid, Shot, see
from blindspot.scenes.tasks import Turn
from blindspot.scenes.text import place_word
from blindspot.scenes.world import COLOURS, Cell

GAP = 0.3
"""Depth rows between two objects that are compared in training."""
CELLS = tuple(place_word((row, column)) for row in range(4) for column in range(4))
ABOUT = {"foot": CELLS, "cell": CELLS, "shape": SHAPES}
"""What is asked of one object: the answers."""


def words() -> tuple[str, ...]:
    """Every word of its texts and questions."""
    said = "shape of colour cell foot nearer or in-front-of yes no"
    return (*COLOURS, *SHAPES, *said.split(), *CELLS)


def lesson(rng: Random, cue: str) -> Lesson:
    """A training picture by a cue, and everything that is asked about it."""
    shot = picture(rng, cue)
    return Lesson((shot,), turns(rng, shot, cue))


def picture(rng: Random, cue: str) -> Shot:
    """A training picture by a cue (`CUES`)."""
    if cue in ("occlusion", "naive"):
        nearer = TASKS["nearer"]
        return rng.choice(nearer.build(rng, rng.choice(nearer.answers), cue)).shots[0]
    eye = camera(rng)
    at = placed(rng, eye, 3)
    return lift(eye, at, [rng.uniform(NEAR, FAR) for _ in at], cue)


def cells(shot: Shot) -> list[tuple[Cell, Cell]]:
    """Of each object its cell in the picture, and that of its foot: the same columns, four rows of the ground."""
    found = []
    for solid in shot.scene.solids:
        own = see(solid, shot.camera)
        row = 3 - _bin((own.y - NEAR) / (FAR - NEAR))
        found.append((cell_of(own), (row, _bin((own.foot_u + 1) / 2))))
    return found


def cell_of(own: SeenSolid) -> Cell:
    """The cell of the picture that an object's centre is in."""
    return _bin((own.v + 1) / 2), _bin((own.u + 1) / 2)


def _bin(share: float) -> int:
    return min(3, max(0, int(4 * share)))


def describe(shots: Sequence[Shot], rng: Random, places: bool) -> str:
    """The objects in random order; with ``places`` the cells of object and foot of each too."""
    (shot,) = shots
    named = list(zip(shot.scene.solids, cells(shot), strict=True))
    return " ".join(
        f"{solid.colour} {solid.shape}" + (f" {place_word(cell)} {place_word(foot)}" if places else "")
        for solid, (cell, foot) in rng.sample(named, len(named))
    )


def turns(rng: Random, shot: Shot, cue: str) -> list[Told]:
    """Everything that is asked about a picture, in random order."""
    found, at = [], cells(shot)
    for solid, (cell, foot) in zip(shot.scene.solids, at, strict=True):
        found += [
            Told(Turn(f"shape of {solid.colour}", solid.shape)),
            Told(Turn(f"colour of {solid.shape}", solid.colour)),
            Told(Turn(f"cell of {solid.colour}", place_word(cell))),
        ]
        found += [Told(Turn(f"foot of {solid.colour}", place_word(foot)))] if cue in FEET else []
    for pair in combinations(zip(shot.scene.solids, at, strict=True), 2):
        for asked in ("nearer {} or {}", "{} in-front-of {}"):
            (a, (_, foot_a)), (b, (_, foot_b)) = rng.sample(pair, 2)
            gap = see(b, shot.camera).y - see(a, shot.camera).y
            if abs(gap) >= GAP:
                answers = (a.colour, b.colour) if asked.startswith("nearer") else ("yes", "no")
                found.append(Told(Turn(asked.format(a.colour, b.colour), answers[gap < 0]), foot_a[0] != foot_b[0]))
    return rng.sample(found, len(found))


def questions(name: str, per_column: int, seed: int, cue: str) -> Asked:
    """Questions of a split: `nearer` by every cue, of twins; what else was trained, of pictures by its cue."""
    found = Asked(name)
    for own in CUES:
        for place, twins in enumerate(rules.questions(TASKS["nearer"], per_column, f"{name}/{seed}", own)):
            for example in twins:
                found.ask(f"nearer_{own}", place, "choice", example)
    for about, answers in ABOUT.items():
        rng = Random(f"{name}/{seed}/{about}")
        for place in range(per_column if about != "foot" or cue in FEET else 0):
            shots, turn = one(lesson(rng, cue), about)
            found.ask(about, place, "text", SolidExample(shots, turn._replace(choices=answers)))
    return found


def baselines(asked: Asked, seed: int, cue: str) -> dict[str, dict[str, float]]:
    """What shortcuts score on the questions, by column."""
    found = {}
    for column, own in asked.by_column().items():
        if column in ABOUT:
            rng = Random(f"rules/{seed}/{column}")
            found[column] = blind(own, [one(lesson(rng, cue), column) for _ in range(4 * len(own))])
        else:
            found[column] = rules.shortcuts(TASKS["nearer"], own, column.removeprefix("nearer_"), 4 * len(own))
    return found
