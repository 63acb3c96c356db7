"""Tasks about depth and viewpoint: each builds its pictures for an answer that was drawn first.

Questions that a task builds together are a cluster: twins, which differ in what is asked about and are alike in the
rest. A prompt stands in the words of the drawn world, and in English for models that know it.
"""

from collections.abc import Sequence
from itertools import combinations
from math import atan2, cos, degrees, dist, exp, log, radians, sin
from random import Random
from typing import ClassVar, NamedTuple

import numpy as np

from blindspot.question import Kind
from blindspot.scenes.baselines import named
from blindspot.scenes.relations import statement_table
from blindspot.scenes.solid.cast import render
from blindspot.scenes.solid.draw import (
    FAR,
    MIDDLING,
    NEAR,
    SIZES,
    Sighting,
    apart,
    camera,
    facing,
    grounded,
    kinds,
    lift,
    on_disc,
    places,
    two_rows,
    until,
)
from blindspot.scenes.solid.world import HELD_OUT, WALL, WIDE, Camera, Shot, Solid, SolidScene, see
from blindspot.scenes.tasks import Turn

SIDES = ("left", "right")


class SolidExample(NamedTuple):
    """The pictures of a question, in order, and the question."""

    shots: tuple[Shot, ...]
    turn: Turn


class SolidTask:
    """A template of questions."""

    name: ClassVar[str]  # of its column in the registry
    words: ClassVar[str]
    """The prompt in the words of the drawn world; ``{0}`` is the colour of the object asked about first."""
    english: ClassVar[str]  # the prompt for models that know English; ``{0}`` is "the red cube"
    answers: ClassVar[tuple[str, ...]] = ("first", "second")  # labels that fix an answer, drawn in turn
    kind: ClassVar[Kind] = "choice"
    options: ClassVar[dict[str, str]] = {}  # what answers are in English, where they are no colours

    def build(self, rng: Random, answer: str, cue: str = "shadow") -> list[SolidExample]:
        """A cluster whose first question has this answer."""
        return until(lambda: self.draw(rng, answer, cue), f"{self.name} ({cue})")

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        """One try at it; None where a scene does not fit."""
        raise NotImplementedError

    def turn(
        self, asked: Sequence[Solid | Sighting], answer: str, choices: tuple[str, ...] = (), **labels: str
    ) -> Turn:
        colours = [each.colour for each in asked]
        return Turn(self.words.format(*colours, **labels), answer, choices or tuple(colours[-2:]))

    def twins(
        self, shots: Sequence[Shot], asked: Sequence[Solid | Sighting], pair: Sequence[Solid | Sighting], first: int
    ) -> list[SolidExample]:
        """The same question about two pictures: in the one the ``first`` of a pair answers it, then the other."""
        return [SolidExample((shot,), self.turn(asked, pair[abs(first - k)].colour)) for k, shot in enumerate(shots)]

    def in_english(self, example: SolidExample) -> tuple[str, tuple[str, ...]]:
        """The question, and its choices in their order."""
        solids = {solid.colour: solid for shot in example.shots for solid in shot.scene.solids}
        names = [solids[colour].name for colour in named(example.turn.prompt)]
        side = next(
            (word.removeprefix("from-") for word in example.turn.prompt.split() if word.startswith("from-")), ""
        )
        said = [solids[c].name if c in solids else self.options.get(c, c) for c in example.turn.choices]
        alike = not example.shots[0].scene.shadows and len({own.radius for own in solids.values()}) == 1
        text = self.english.format(*names, side=side, total=example.turn.prompt.split()[0])
        return ("All objects are of the same size. " if alike else "") + text, tuple(said)


def number_of(answer: str) -> int:
    return int(answer == "second")


class Nearer(SolidTask):
    """Depth-swap twins: the two objects exchange depths and keep their pixels."""

    name, words = "nearer", "nearer {0} or {1}"
    english = "Which of the two is nearer to the camera, {0} or {1}?"

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, near = camera(rng), number_of(answer)
        if cue == "naive":
            return self._naive(rng, eye, near)
        at = overlapping(rng, eye, 1) if cue == "occlusion" else places(rng, eye, 3)
        rows = two_rows(rng, *((0.8, 1.1) if cue == "occlusion" else (0.5, 0.9)))
        swaps = [(rows[near], rows[1 - near]), (rows[1 - near], rows[near])]
        rest = [rng.uniform(NEAR, FAR) for _ in at[2:]]
        shots = [lift(eye, at, [*own, *rest], cue) for own in swaps]
        if cue == "occlusion":
            gap = rows[1] - rows[0]
            behind = [lift(eye, at[:2], own, cue) for own in ((FAR, FAR - gap), (FAR - gap, FAR))]
            if any(map(touching, behind)) or not half_hidden(shots, 2):
                return None
        return self.twins(shots, at[:2], at[:2], near)

    def _naive(self, rng: Random, eye: Camera, near: int) -> list[SolidExample] | None:
        cells = rng.sample(range(16), 3)
        solids = []
        for kind, cell in zip(kinds(rng, 3), cells, strict=True):
            x, y = (cell % 4 - 1.5) * 0.8 + rng.uniform(-0.2, 0.2), (cell // 4 - 0.9) * 1.2 + rng.uniform(-0.2, 0.2)
            solids.append(grounded(eye, kind, x, y, rng.uniform(0.2, 0.4), rng.uniform(0, 360)))
        shot = Shot(SolidScene(tuple(solids)), eye)
        pair = sorted(solids[:2], key=lambda own: see(own, eye).depth)
        if see(pair[1], eye).depth - see(pair[0], eye).depth < 0.3 or not apart(Shot(SolidScene(tuple(pair)), eye)):
            return None
        return [SolidExample((shot,), self.turn(pair[::-1] if near else pair, pair[0].colour))]


class NearestOfAll(SolidTask):
    """Four objects whose depths go round: every one is nearest once."""

    name, words = "nearest", "nearest of-all"
    english = "Which of the objects in the picture is nearest to the camera?"
    answers = ("0", "1", "2", "3")
    GAP = 0.4

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, count = camera(rng), 4
        at = places(rng, eye, count)
        nearest_row = rng.uniform(NEAR, FAR - (count - 1) * self.GAP)
        rows = [nearest_row + step * self.GAP for step in (0, *rng.sample((1, 2, 3), 3))]
        colours = tuple(own.colour for own in at)
        examples = []
        for step in range(count):
            nearest = (int(answer) + step) % count
            shot = lift(eye, at, [rows[(place - nearest) % count] for place in range(count)], cue)
            examples.append(SolidExample((shot,), Turn(self.words, colours[nearest], colours)))
        return examples


class CloserTo(SolidTask):
    """Two objects exchange depths, so that the other one is closer to a third: in the picture both stay."""

    name, words = "closer", "{0} closer-to {1} or {2}"
    english = "In space, not in the picture: which of the two is closer to {0}, {1} or {2}?"

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, closer = camera(rng), number_of(answer)
        at = places(rng, eye, 3)
        rows = [rng.uniform(NEAR, FAR) for _ in at]
        shots = [lift(eye, at, each, cue) for each in (rows, [rows[0], rows[2], rows[1]])]
        margins = [distance(shot, 0, 2) - distance(shot, 0, 1) for shot in shots]
        feet = [self.feet(shot, at) for shot in shots]
        apart_enough = min(map(abs, margins)) >= 0.3 and margins[0] * margins[1] < 0
        if not apart_enough or (margins[0] < 0) != bool(closer) or feet[0] * feet[1] < 0:
            return None  # the distance of feet in the picture is right in one of the twins
        return self.twins(shots, at, at[1:], closer)

    @staticmethod
    def feet(shot: Shot, at: Sequence[Sighting]) -> float:
        """By how much the third foot is farther from the first than the second is, in the picture."""
        feet = [(own.foot_u, own.foot_v) for own in (see(solid, shot.camera) for solid in shot.scene.solids)]
        return dist(feet[0], feet[2]) - dist(feet[0], feet[1])


class InFrontOf(SolidTask):
    """On a grid of the ground: mainly in front, or mainly behind or beside."""

    name, words = "in_front_of", "{0} in-front-of {1}"
    english = (
        "Seen from the camera, is {0} mainly in front of {1} (more to the front than to a side of it), and not mainly "
        "behind or beside it? Please answer yes or no."
    )
    answers, kind = ("yes", "no"), "yes_no"
    SPACING = (1.0, 1.3)

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng, (30.0,))
        cells = [*statement_table("below").draw(rng, answer)]
        cells.append(rng.choice([(r, c) for r in range(4) for c in range(4) if (r, c) not in cells]))
        solids = []
        for kind, (row, column) in zip(kinds(rng, 3), cells, strict=True):
            x, y = (column - 1.5) * self.SPACING[0], (3 - row) * self.SPACING[1] - 1.35
            x, y = x + rng.uniform(-0.05, 0.05), y + rng.uniform(-0.05, 0.05)
            solids.append(grounded(eye, kind, x, y, rng.uniform(0.15, 0.18), rng.uniform(0, 360)))
        shot = Shot(SolidScene(tuple(solids)), eye)
        return [SolidExample((shot,), self.turn(solids[:2], answer, self.answers))]


class HiddenBy(SolidTask):
    """Two objects overlap a third, one before it and one behind; the twins exchange their depths."""

    name, words = "hidden_by", "{0} hidden-by {1} or {2}"
    english = "Which of the two hides a part of {0}, {1} or {2}?"

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, front = camera(rng), number_of(answer)
        at = overlapping(rng, eye, 2)
        step = rng.uniform(0.6, 0.75)
        middle = rng.uniform(NEAR + step, FAR - step)
        pair = [middle - step, middle + step]
        rows = [[middle, pair[front], pair[1 - front]], [middle, pair[1 - front], pair[front]]]
        shots = [lift(eye, at, each, cue) for each in rows]
        behind = [lift(eye, at, [row + FAR - pair[1] for row in each], cue) for each in rows]
        if any(map(touching, behind)) or not half_hidden(shots, 3):
            return None
        return self.twins(shots, at, at[1:], front)


class Higher(SolidTask):
    """Half are depth-swap twins whose heights change order; half stand at one depth and exchange heights."""

    name, words = "higher", "higher-up {0} or {1}"
    english = "Which of the two floats higher above the ground, {0} or {1}?"

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, high, level = camera(rng, (22.5, 30.0)), number_of(answer), rng.random() < 0.5
        return until(lambda: self._pair(rng, eye, high, level, cue), self.name)

    def _pair(self, rng: Random, eye: Camera, high: int, level: bool, cue: str) -> list[SolidExample] | None:
        at = places(rng, eye, 3)
        rows = [*two_rows(rng, 0.8, 1.4), rng.uniform(NEAR, FAR)]
        rng.shuffle(pair := rows[:2])
        if level:
            other = [at[0]._replace(v=at[1].v), at[1]._replace(v=at[0].v), at[2]]
            shots = [lift(eye, each, [rows[0], rows[0], rows[2]], cue) for each in (at, other)]
        else:
            shots = [lift(eye, at, [*each, rows[2]], cue) for each in (pair, pair[::-1])]
        heights = [[solid.height for solid in shot.scene.solids] for shot in shots]
        first, second = (own[high] - own[1 - high] for own in heights)
        if first < 0.12 or second > -0.12 or not all(map(apart, shots)):
            return None
        return self.twins(shots, at[:2], at[:2], high)


class Facing(SolidTask):
    """Headings at least 25 degrees off the diagonals, seen from the camera."""

    name, words = "facing", "{0} facing"
    english = "Every object has a dark ball in the middle of its front. Which way does {0} face, as the camera sees it?"
    answers = ("away", "left", "toward", "right")
    options: ClassVar[dict[str, str]] = {"toward": "toward the camera", "away": "away from the camera"}

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng)
        turns = [rng.choice((0, 90, 180, 270)) for _ in range(3)]
        turns[0] = 90 * self.answers.index(answer)
        solids = []
        for kind, column, turn in zip(kinds(rng, 3), rng.sample((-1.1, 0, 1.1), 3), turns, strict=True):
            x, y = column + rng.uniform(-0.1, 0.1), rng.uniform(-0.8, 1.5)
            heading = facing(eye, x, y, turn + rng.uniform(-20, 20))
            solids.append(grounded(eye, kind, x, y, rng.uniform(0.28, 0.36), heading, nose=True))
        shot = Shot(SolidScene(tuple(solids)), eye)
        return [SolidExample((shot,), self.turn(solids[:1], answer, self.answers))] if apart(shot) else None


class ForWhom(SolidTask):
    """Left or right of an object that faces somewhere: the twin faces the other way."""

    name, words = "for_whom", "{0} left-or-right for {1}"
    english = (
        "A dark ball marks the front of every object. For someone who stands at {1} and looks where it faces, is {0} "
        "on the left or on the right?"
    )
    answers = SIDES

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng, (22.5, 30.0))
        pair, angle = couple(rng, eye, sighted=True)
        turn = (1 if answer == "left" else -1) * rng.uniform(30, 150)
        heading = angle + eye.azimuth - turn
        shots = [Shot(SolidScene((pair[0]._replace(heading=heading + k), pair[1])), eye) for k in (0, 180)]
        if not all(map(apart, shots)):
            return None
        sides = (answer, SIDES[answer == "left"])
        return [SolidExample((s,), self.turn(pair[::-1], said, SIDES)) for s, said in zip(shots, sides, strict=True)]


class ForCamera(ForWhom):
    """The same pictures without the object's view: headings say nothing, and the twin exchanges places."""

    name, words = "for_camera", "{0} left-or-right {1}"
    english = "Seen from the camera, is {0} to the left or to the right of {1}?"
    margins: ClassVar[tuple[float, float]] = (0.3, 0.0)

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng, (22.5, 30.0))
        pair, angle = couple(rng, eye)
        across, along = cos(radians(angle)), sin(radians(angle))
        if abs(across) < self.margins[0] or abs(along) < self.margins[1]:
            return None
        word = rng.choice(SIDES)
        left = {"": across < 0, "left": along > 0, "right": along < 0}[word if "side" in self.words else ""]
        there, back = Shot(SolidScene(pair), eye), Shot(SolidScene(exchanged(pair)), eye)
        shots = (there, back) if left == (answer == "left") else (back, there)
        if not all(map(apart, shots)):
            return None
        sides = (answer, SIDES[answer == "left"])
        turns = [self.turn(pair[::-1], said, SIDES, side=word) for said in sides]
        return [SolidExample((shot,), turn) for shot, turn in zip(shots, turns, strict=True)]


class FromSide(ForCamera):
    """The camera a quarter turn on, imagined: what is farther and nearer becomes left and right."""

    name, words = "from_side", "from-{side} {0} left-or-right {1}"
    english = (
        "Imagine that the camera moved a quarter of a circle around the scene, to the {side} side of it, and looked at "
        "the middle of the scene again. Would {0} then be to the left or to the right of {1} in its picture?"
    )
    margins = (0.4, 0.4)


class CameraMoved(SolidTask):
    """Two views, 30 to 45 degrees apart; the twin has them in the other order."""

    name, words = "camera_moved", "camera moved"
    english = (
        "The two pictures show the same scene, which did not move. Around the scene, did the camera move to its "
        "left or to its right between the first picture and the second?"
    )
    answers = SIDES

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, turn = camera(rng, (22.5, 30.0)), rng.uniform(30, 45)
        other = eye._replace(azimuth=eye.azimuth + turn)
        solids = [
            grounded(eye, kind, *on_disc(rng, 1.2), rng.uniform(0.2, 0.28), rng.uniform(0, 360))
            for kind in kinds(rng, 3)
        ]
        scene = SolidScene(tuple(solids))
        shots = Shot(scene, eye), Shot(scene, other)
        if not all(map(apart, shots)):
            return None
        ordered = [(shots, "right"), (shots[::-1], "left")]
        ordered = ordered if answer == "right" else ordered[::-1]
        return [SolidExample(each, Turn(self.words, said, SIDES)) for each, said in ordered]


class InAll(SolidTask):
    """Both sides of a wall: how many are before it in one view says nothing about how many are behind it."""

    name, words = "in_all", "{total} in-all"
    english = (
        "The two pictures show one scene from two opposite sides of a grey wall. Objects beside the wall are in both "
        "pictures, the others in one. Not counting the wall, are there exactly {total} objects in all? "
        "Please answer yes or no."
    )
    answers, kind = ("yes", "no"), "yes_no"
    NUMBERS = ("three", "four", "five", "six", "seven")

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        beside, total = rng.randrange(3), rng.choice((3, 4, 5))
        before = rng.randint(max(1, total - 4), min(4, total - 1))
        counts = range(max(1, total - 4), min(4, total - 1) + 1)
        behind = total - before if answer == "yes" else rng.choice([b for b in counts if b != total - before])
        eye = camera(rng, (15.0,))
        spots = [(x, rng.uniform(-1.2, -0.6)) for x in rng.sample((-0.9, -0.3, 0.3, 0.9), before)]
        spots += [(x, rng.uniform(0.6, 1.2)) for x in rng.sample((-0.9, -0.3, 0.3, 0.9), behind)]
        spots += [(x, rng.uniform(-0.2, 0.2)) for x in rng.sample((-1.65, 1.65), beside)]
        solids = [
            grounded(eye, kind, x + rng.uniform(-0.05, 0.05), y, rng.uniform(0.15, 0.19), rng.uniform(0, 360))
            for kind, (x, y) in zip(many_kinds(rng, len(spots)), spots, strict=True)
        ]
        scene = SolidScene((*solids, wall(eye)))
        shots = Shot(scene, eye), Shot(scene, eye._replace(azimuth=eye.azimuth + 180))
        turn = Turn(self.words.format(total=self.NUMBERS[total + beside - 3]), answer, self.answers)
        return [SolidExample(shots, turn)]


class Ratio(SolidTask):
    """How many times as far: of places on the ground."""

    name, words = "ratio", "ratio {0}-{1} {0}-{2}"
    english = (
        "In space, measured between the centres of objects: how many times as far from {0} is {1} as {2} is? "
        "Answer with one number, for example 1.5."
    )
    answers, kind = ("1.0", "1.3", "1.7", "2.2", "2.9", "3.8"), "number"

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, size = camera(rng, (22.5, 30.0)), rng.uniform(0.15, 0.2)
        short = rng.uniform(0.7, min(1.6, 3.0 / float(answer)))
        at = [(rng.uniform(-1.5, 1.5), rng.uniform(NEAR, FAR))]
        for length in (short * float(answer), short):
            angle = radians(rng.uniform(0, 360))
            at.append((at[0][0] + length * cos(angle), at[0][1] + length * sin(angle)))
        found = zip(kinds(rng, 3), at, strict=True)
        solids = [grounded(eye, kind, x, y, size, rng.uniform(0, 360)) for kind, (x, y) in found]
        shot = Shot(SolidScene(tuple(solids)), eye)
        if not apart(shot) or not all(NEAR <= y <= FAR for _, y in at):
            return None
        a, b, c = (solid.colour for solid in solids)
        return [SolidExample((shot,), Turn(f"ratio {a} {b} {a} {c}", answer))]

    def in_english(self, example: SolidExample) -> tuple[str, tuple[str, ...]]:
        a, b, c = (solid.name for solid in example.shots[0].scene.solids)
        return self.english.format(a, b, c), ()


class Larger(SolidTask):
    """One object appears larger and is nearer; which ratio is greater decides. The twin exchanges the ratios."""

    name, words = "larger", "really larger {0} or {1}"
    english = (
        "Which of the two is really larger, not just larger in the picture: {0} or {1}? (One may only be nearer; they "
        "have the same shape, and a shadow lies straight below each.)"
    )
    RATIOS = tuple(exp(log(1.05) + step * log(1.75 / 1.05) / 7) for step in range(8))

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, step, up, first = camera(rng), rng.randrange(7), rng.random() < 0.5, number_of(answer)
        apparent, depth = self.RATIOS[step + up], self.RATIOS[step + 1 - up]
        return until(lambda: self._pair(rng, eye, apparent, depth, first), self.name)

    def _pair(self, rng: Random, eye: Camera, apparent: float, depth: float, first: int) -> list[SolidExample] | None:
        at = places(rng, eye, 3)
        size, shape = rng.uniform(SIZES[0] * 0.8, SIZES[1] / self.RATIOS[-1]), at[0].shape
        middle = rng.uniform(log(5.7), log(10.3))
        if (at[1].colour, shape) in HELD_OUT:
            return None
        shots = []
        for seen, behind in ((apparent, depth), (depth, apparent)):
            pair = [at[0]._replace(size=size * seen), at[1]._replace(size=size, shape=shape)]
            rows = [row_at(eye, own.v, exp(middle + k * log(behind))) for own, k in zip(pair, (-0.5, 0.5), strict=True)]
            if not all(NEAR <= row <= FAR for row in rows):
                return None
            shots.append(lift(eye, [*pair, at[2]], [*rows, 1.0], "shadow"))
        really = apparent > depth
        asked = [at[0], at[1]] if really == (first == 0) else [at[1], at[0]]
        sides = (at[0], at[1]) if really else (at[1], at[0])
        examples = [SolidExample((s,), self.turn(asked, own.colour)) for s, own in zip(shots, sides, strict=True)]
        return examples if all(map(apart, shots)) else None


def row_at(eye: Camera, v: float, depth: float) -> float:
    """The depth row of what is seen at height ``v`` at a depth along the camera's axis."""
    near, far = (eye.through(0, v, y)[2] for y in (0.0, 1.0))
    return (depth - near) / (far - near)


def distance(shot: Shot, a: int, b: int) -> float:
    """In space, between centres."""
    first, second = shot.scene.solids[a], shot.scene.solids[b]
    return dist((first.x, first.y, first.height), (second.x, second.y, second.height))


def couple(rng: Random, eye: Camera, sighted: bool = False) -> tuple[tuple[Solid, Solid], float]:
    """Two objects with noses on the ground, and the direction from the first to the second in the camera's frame.

    All directions are alike in that frame, or to the line of sight of the first (``sighted``): what stands on the left
    is seen from its right, and has the other on its right more often, so that the way it is seen to face would tell.
    """
    drawn, gap = rng.uniform(0, 360), rng.uniform(0.75, 1.0)
    middle = rng.uniform(-1.2, 1.2), rng.uniform(-0.6, 1.5)
    radius, tilt = rng.uniform(0.17, 0.21), 0.0
    for _ in range(6 if sighted else 1):  # the line of sight depends on the place, which depends on the direction
        angle = radians(drawn + tilt)
        step = gap / 2 * cos(angle), gap / 2 * sin(angle)
        at = [(middle[0] + k * step[0], middle[1] + k * step[1]) for k in (-1, 1)]
        tilt = degrees(atan2(at[0][1] - eye.eye[0], at[0][0])) - 90
    found = zip(kinds(rng, 2), at, strict=True)
    a, b = (grounded(eye, kind, x, y, radius, rng.uniform(0, 360), nose=True) for kind, (x, y) in found)
    return (a, b), degrees(angle)


def exchanged(pair: tuple[Solid, Solid]) -> tuple[Solid, Solid]:
    """Both in the place of the other."""
    a, b = pair
    return a._replace(x=b.x, y=b.y), b._replace(x=a.x, y=a.y)


def many_kinds(rng: Random, count: int) -> list[tuple[str, str]]:
    """Colours and shapes, no pair of them twice."""
    found: list[tuple[str, str]] = []
    while len(found) < count:
        found += [kind for kind in kinds(rng, 4) if kind not in found]
    return found[:count]


def wall(eye: Camera, y: float = 0.0) -> Solid:
    """A slab across the picture."""
    return Solid("grey", WALL, *eye.turned(0.0, y, back=True), 0.62 * 1.15, 1.15, eye.azimuth)


def overlapping(rng: Random, eye: Camera, around: int) -> list[Sighting]:
    """Objects that overlap the first one in the picture, to its left and right; of one, a third stands apart."""
    at = [own._replace(size=rng.uniform(*MIDDLING)) for own in places(rng, eye, 3)]
    first = at[0]._replace(u=rng.uniform(-0.3, 0.3))
    moved = [first]
    for own, side in zip(at[1:], rng.sample((-1, 1), 2), strict=True):
        reach = (first.size + own.size) * rng.uniform(0.45, 0.8) if len(moved) <= around else 0.55
        moved.append(own._replace(u=first.u + side * reach, v=first.v + rng.uniform(-0.06, 0.06)))
    return moved


def touching(shot: Shot) -> bool:
    """Whether two solids may touch. What is enlarged about the eye grows, so far away is where they would first."""
    pairs = combinations(shot.scene.solids, 2)
    return any(dist(a[2:4], b[2:4]) < WIDE[a.shape] * a.radius + WIDE[b.shape] * b.radius for a, b in pairs)


def half_hidden(shots: Sequence[Shot], count: int) -> bool:
    """Whether one of the first two objects, or the first of three, is hidden by 15 to 60 %, and none by more."""
    picture = render([Shot(shot.scene._replace(shadows=False), shot.camera) for shot in shots], 32)
    seen = np.stack([(picture.ids == place).sum((1, 2)) for place in range(count)], 1)
    hidden = 1 - seen / picture.hits[:, :count]
    asked = hidden[:, 0] if count > 2 else hidden.max(1)
    return bool((asked >= 0.15).all() and hidden.max() <= 0.6)


TASKS: dict[str, SolidTask] = {
    task.name: task
    for task in (
        Nearer(),
        NearestOfAll(),
        CloserTo(),
        InFrontOf(),
        HiddenBy(),
        Higher(),
        Facing(),
        ForWhom(),
        ForCamera(),
        FromSide(),
        CameraMoved(),
        InAll(),
        Ratio(),
        Larger(),
    )
}
"""Those of one or two views; a new one is one class, one line here and one in the registry."""
