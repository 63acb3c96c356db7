"""What a model trained from nothing is shown and asked of scenes with depth, in the words of the drawn world.

A picture has three objects whose depths say nothing about each other or about where they stand in the picture, and
about fifteen turns. Twins alone teach nothing: no single cue has a gradient. What opens the way is to be asked where
the foot of every object is.
"""

from collections.abc import Mapping
from itertools import combinations
from random import Random

from blindspot.scenes.solid.draw import FAR, NEAR, camera, lift
from blindspot.scenes.solid.draw import places as placed
from blindspot.scenes.solid.lessons import Column, Lesson, Told, World
from blindspot.scenes.solid.registry import CUES, FEET
from blindspot.scenes.solid.tasks import TASKS
from blindspot.scenes.solid.world import SHAPES, SeenSolid, Shot, Solid, see
from blindspot.scenes.tasks import Turn
from blindspot.scenes.text import place_word
from blindspot.scenes.world import Cell

GAP = 0.3
"""Depth rows between two objects that are compared in training."""
SIDE = 4
"""Cells along a side of the picture."""


def picture(rng: Random, cue: str) -> Shot:
    """A training picture by a cue (`CUES`)."""
    if cue in ("occlusion", "naive"):
        nearer = TASKS["nearer"]
        return rng.choice(nearer.build(rng, rng.choice(nearer.answers), cue)).shots[0]
    eye = camera(rng)
    at = placed(rng, eye, 3)
    return lift(eye, at, [rng.uniform(NEAR, FAR) for _ in at], cue)


def cells(shot: Shot, side: int = SIDE) -> list[tuple[Cell, Cell]]:
    """Of each object its cell in the picture, and that of its foot."""
    return [cell_and_foot(see(solid, shot.camera), side) for solid in shot.scene.solids]


def cell_and_foot(own: SeenSolid, side: int) -> tuple[Cell, Cell]:
    """The cell of the picture that an object is in, and its foot's: the same columns, as many rows of the ground."""
    row = side - 1 - _bin((own.y - NEAR) / (FAR - NEAR), side)
    return cell_of(own, side), (row, _bin((own.foot_u + 1) / 2, side))


def cell_of(own: SeenSolid, side: int) -> Cell:
    """The cell of the picture that an object's centre is in."""
    return _bin((own.v + 1) / 2, side), _bin((own.u + 1) / 2, side)


def _bin(share: float, side: int) -> int:
    return min(side - 1, max(0, int(side * share)))


def of_one(solid: Solid, cell: Cell, foot: Cell) -> list[Told]:
    """What is asked of an object by itself, its foot last."""
    return [
        Told(Turn(f"shape of {solid.colour}", solid.shape)),
        Told(Turn(f"colour of {solid.shape}", solid.colour)),
        Told(Turn(f"cell of {solid.colour}", place_word(cell))),
        Told(Turn(f"foot of {solid.colour}", place_word(foot))),
    ]


def turns(rng: Random, shot: Shot, cue: str) -> list[Told]:
    """Everything that is asked about a picture, in random order."""
    found, at = [], cells(shot)
    for solid, own in zip(shot.scene.solids, at, strict=True):
        found += of_one(solid, *own)[: None if cue in FEET else -1]
    for pair in combinations(zip(shot.scene.solids, at, strict=True), 2):
        for asked in ("nearer {} or {}", "{} in-front-of {}"):
            (a, (_, foot_a)), (b, (_, foot_b)) = rng.sample(pair, 2)
            gap = see(b, shot.camera).y - see(a, shot.camera).y
            if abs(gap) >= GAP:
                answers = (a.colour, b.colour) if asked.startswith("nearer") else ("yes", "no")
                found.append(Told(Turn(asked.format(a.colour, b.colour), answers[gap < 0]), foot_a[0] != foot_b[0]))
    return rng.sample(found, len(found))


class Depth(World):
    """`nearer` is tested by every cue; where an object and its foot are, of pictures by the cue of training."""

    columns: Mapping[str, Column] = {f"nearer_{cue}": Column(TASKS["nearer"], cue) for cue in CUES}
    side = SIDE
    said = "shape of colour cell foot nearer or in-front-of yes no"

    def about(self, cue: str) -> Mapping[str, tuple[str, ...]]:
        feet = {"foot": self.cells} if cue in FEET else {}
        return {**feet, "cell": self.cells, "shape": SHAPES}

    def lesson(self, rng: Random, cue: str) -> Lesson:
        shot = picture(rng, cue)
        return Lesson((shot,), turns(rng, shot, cue))

    def where(self, solid: Solid, shot: Shot) -> str:
        return " ".join(map(place_word, cell_and_foot(see(solid, shot.camera), self.side)))
