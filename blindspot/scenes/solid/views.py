"""What a model trained from nothing is shown and asked of viewpoints: pictures of objects whose front is marked.

A picture is drawn by a task of viewpoints. Of two objects it is asked which is left for the camera, for the other, and
for a camera a quarter turn on; of each where it is in the picture, over which place of the ground, and which way it
faces.
"""

from collections.abc import Mapping
from itertools import permutations
from math import cos, hypot, radians, sin
from random import Random

from blindspot.scenes.solid.depth import Depth, cells, of_one
from blindspot.scenes.solid.lessons import Column, Lesson, Told
from blindspot.scenes.solid.tasks import SIDES, TASKS, Facing, ForCamera, ForWhom, FromSide
from blindspot.scenes.solid.world import SeenSolid, Shot, Solid, see
from blindspot.scenes.tasks import Turn

VIEWS = ("for_camera", "for_whom", "from_side", "facing")
"""The tasks whose pictures are shown, equally often."""
OBLIQUE = 30
"""Degrees off away, left, toward and right up to which it is asked which of these an object faces."""
ASIDE = 0.5
"""Of the distance to another, how far to its left or right an object is that it is asked about, at least."""


class Views(Depth):
    """As depth, with which way each object faces."""

    columns: Mapping[str, Column] = {name: Column(TASKS[name]) for name in VIEWS}
    side = 8

    said = " ".join(("shape of colour cell foot left-or-right for from-left from-right facing", *Facing.answers))

    def where(self, solid: Solid, shot: Shot) -> str:
        return f"{super().where(solid, shot)} {facing_word(see(solid, shot.camera))}"

    def lesson(self, rng: Random, cue: str) -> Lesson:
        task = TASKS[rng.choice(VIEWS)]
        (shot,) = rng.choice(task.build(rng, rng.choice(task.answers))).shots
        told = []
        seen = {own.colour: (own, see(own, shot.camera)) for own in shot.scene.solids}
        at = dict(zip(seen, cells(shot, self.side), strict=True))
        for own, its in seen.values():
            told += of_one(own, *at[own.colour])
            if abs(its.facing % 90 - 45) >= 45 - OBLIQUE:
                told.append(Told(Turn(Facing.words.format(own.colour), facing_word(its))))
        for (a, (_, its)), (b, (other, theirs)) in permutations(seen.items(), 2) if len(seen) == 2 else ():
            x, y = its.x - theirs.x, its.y - theirs.y
            length, ahead, side = hypot(x, y), radians(other.heading - shot.camera.azimuth), rng.choice(SIDES)
            left = (cos(ahead) * y - sin(ahead) * x) / length
            (cell_a, foot_a), (cell_b, foot_b) = at[a], at[b]
            if abs(x) >= ForCamera.margins[0] * length:
                told.append(Told(Turn(ForCamera.words.format(a, b), SIDES[x > 0]), cell_a[1] != cell_b[1]))
            if min(abs(x), abs(y)) >= FromSide.margins[0] * length:
                answer = SIDES[(y > 0) == (side == "right")]
                told.append(Told(Turn(FromSide.words.format(a, b, side=side), answer), foot_a[0] != foot_b[0]))
            if abs(left) >= ASIDE:
                told.append(Told(Turn(ForWhom.words.format(a, b), SIDES[left < 0]), in_words=False))
        return Lesson((shot,), rng.sample(told, len(told)))


def facing_word(own: SeenSolid) -> str:
    """Which of four ways an object faces."""
    return Facing.answers[int((own.facing + 45) // 90) % 4]
