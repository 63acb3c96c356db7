"""Tasks about what moves from one picture to the next; most are the same for who sees one picture alone."""

from collections.abc import Sequence
from math import cos, radians, sin
from random import Random
from typing import ClassVar

from blindspot.scenes.solid.draw import NEAR, apart, camera, grounded, kinds, on_disc
from blindspot.scenes.solid.tasks import SIDES, SolidExample, SolidTask, number_of, wall
from blindspot.scenes.solid.world import Camera, Shot, Solid, SolidScene
from blindspot.scenes.tasks import Turn

OTHER = {"first": "second", "second": "first"}
HALF = 1.35
"""What moves stays between -HALF and HALF across, so that all of it is seen."""
STEPS = tuple(0.25 * 1.2**step for step in range(8))
"""Lengths of steps that are compared; neighbours alone are, so that one length says little."""
Spot = tuple[float, float]


def things(rng: Random, eye: Camera, spots: Sequence[Spot]) -> list[Solid]:
    """Objects on the ground at places of the camera's frame."""
    found = zip(kinds(rng, len(spots)), spots, strict=True)
    return [grounded(eye, kind, x, y, rng.uniform(0.2, 0.28), rng.uniform(0, 360)) for kind, (x, y) in found]


def frames(eye: Camera, solids: Sequence[Solid], at: Sequence[Sequence[Spot]]) -> tuple[Shot, ...]:
    """Pictures of the same objects, in each of them at other places of the camera's frame."""
    moved = ([eye.turned(x, y, back=True) for x, y in spots] for spots in at)
    return tuple(
        Shot(SolidScene(tuple(own._replace(x=x, y=y) for own, (x, y) in zip(solids, spots, strict=True))), eye)
        for spots in moved
    )


def spread(rng: Random, count: int) -> list[Spot]:
    """Places on the ground, each in a column of its own."""
    width = 2 * HALF / count
    columns = [-HALF + width * (slot + 0.5) for slot in rng.sample(range(count), count)]
    return [(column + rng.uniform(-0.1, 0.1), rng.uniform(NEAR + 0.6, 2.0)) for column in columns]


def two_places(rng: Random, middles: Sequence[Spot], low: float, high: float) -> tuple[list[Spot], list[Spot]]:
    """Where each object is before its step and after it, which could as well be after it and before it."""
    before, after = [], []
    for x, y in middles:
        angle, half = radians(rng.uniform(0, 360)), rng.uniform(low, high) / 2
        before.append((x - half * cos(angle), y - half * sin(angle)))
        after.append((x + half * cos(angle), y + half * sin(angle)))
    return before, after


def one_moved(before: Sequence[Spot], after: Sequence[Spot], which: int) -> list[Spot]:
    """The places before, but of one object that after its step."""
    return [*before[:which], after[which], *before[which + 1 :]]


def fit(examples: list[SolidExample]) -> list[SolidExample] | None:
    """The examples, if nothing touches or leaves in any of their pictures."""
    return examples if all(apart(shot) for one in examples for shot in one.shots) else None


class First(SolidTask):
    """Each of two objects moves once; the first picture and the last are the same under both answers."""

    name, words = "first", "first {0} or {1}"
    english = (
        "The pictures are in order of time. Both objects move, one after the other. Which moves first, {0} or {1}?"
    )

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng)
        before, after = two_places(rng, spread(rng, 2), 0.5, 0.8)
        solids = things(rng, eye, before)
        examples = []
        for label in (answer, OTHER[answer]):
            first = number_of(label)
            shots = frames(eye, solids, [before, one_moved(before, after, first), after])
            examples.append(SolidExample(shots, self.turn(solids, solids[first].colour)))
        return fit(examples)


class Moved(SolidTask):
    """Two pictures of an object that moves along an axis; in the other order it moves the other way."""

    name, words = "moved", "{0} moved left-or-right"
    english = "The pictures are in order of time. Did {0} move to the left or to the right?"
    answers = SIDES

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, step = camera(rng), rng.uniform(0.35, 0.6)
        middle = rng.uniform(-HALF + step / 2, HALF - step / 2)
        rows = rng.sample((rng.uniform(-0.9, 0.0), rng.uniform(1.4, 2.4)), 2)
        still = rng.uniform(-HALF, HALF), rows[1]
        solids = things(rng, eye, [(middle, rows[0]), still])
        left, right = ([(middle + side * step / 2, rows[0]), still] for side in (-1, 1))
        there, back = (frames(eye, solids, each) for each in ([right, left], [left, right]))
        ordered = [(there, "left"), (back, "right")] if answer == "left" else [(back, "right"), (there, "left")]
        return fit([SolidExample(shots, self.turn(solids[:1], said, SIDES)) for shots, said in ordered])


class WhichMoved(SolidTask):
    """One of three objects moves between two pictures; each in its turn."""

    name, words = "which_moved", "moved of-all"
    english = "The pictures are in order of time, and the camera stands still. Which object moved?"
    answers = ("0", "1", "2")

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng)
        before, after = two_places(rng, spread(rng, 3), 0.3, 0.5)
        solids = things(rng, eye, before)
        colours, examples = tuple(own.colour for own in solids), []
        for step in range(3):
            which = (int(answer) + step) % 3
            shots = frames(eye, solids, [before, one_moved(before, after, which)])
            examples.append(SolidExample(shots, Turn(self.words, colours[which], colours)))
        return fit(examples)


class Faster(SolidTask):
    """Two objects make two equal steps each; the twin exchanges the lengths of their steps."""

    name, words = "faster", "faster {0} or {1}"
    english = (
        "The pictures are in order of time, equal times apart. Both objects move evenly over the ground. Which moves "
        "faster in space, {0} or {1}?"
    )

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, place, fast = camera(rng), rng.randrange(len(STEPS) - 1), number_of(answer)
        middle = spread(rng, 2)
        angles = [radians(rng.uniform(0, 360)) for _ in middle]
        solids, examples = things(rng, eye, middle), []
        for fastest in (fast, 1 - fast):
            lengths = [STEPS[place + (own == fastest)] for own in range(2)]
            at = [
                [
                    (x + when * length * cos(angle), y + when * length * sin(angle))
                    for (x, y), length, angle in zip(middle, lengths, angles, strict=True)
                ]
                for when in (-1, 0, 1)
            ]
            examples.append(SolidExample(frames(eye, solids, at), self.turn(solids, solids[fastest].colour)))
        return fit(examples)


class ThingOrCamera(SolidTask):
    """The first picture is the same; then an object moves, or the camera does."""

    name, words = "thing_or_camera", "moved thing or camera"
    english = "The pictures are in order of time. What moved between them, one of the objects or the camera?"
    answers = ("thing", "camera")
    options: ClassVar[dict[str, str]] = {"thing": "one of the objects", "camera": "the camera"}

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng, (22.5, 30.0))
        before, after = two_places(rng, [on_disc(rng, 1.2) for _ in range(3)], 0.3, 0.5)
        solids, which = things(rng, eye, before), rng.randrange(3)
        thing = frames(eye, solids, [before, one_moved(before, after, which)])
        turned = eye._replace(azimuth=eye.azimuth + rng.choice((-1, 1)) * rng.uniform(10, 20))
        shots = {"thing": thing, "camera": (thing[0], Shot(thing[0].scene, turned))}
        order = [answer, *(own for own in self.answers if own != answer)]
        return fit([SolidExample(shots[own], Turn(self.words, own, self.answers)) for own in order])


class Behind(SolidTask):
    """Each of two objects goes behind a wall or out of the picture; in the last picture neither is seen."""

    name, words = "behind", "behind the-wall"
    english = (
        "The pictures are in order of time. In the last one no object is seen but the wall. Objects that left the "
        "picture are gone. Which object is behind the wall now?"
    )
    answers = ("0", "1", "none")
    options: ClassVar[dict[str, str]] = {"none": "none of them"}

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye = camera(rng, (15.0,))
        rows = [rng.uniform(0.5, 0.9) for _ in range(2)]
        sides = rng.sample((-1, 1), 2)
        jitter = [rng.uniform(-0.05, 0.05) for _ in range(2)]
        solids = [grounded(eye, kind, 0.0, 0.0, rng.uniform(0.17, 0.21), rng.uniform(0, 360)) for kind in kinds(rng, 2)]
        colours = (*(own.colour for own in solids), "none")
        examples = []
        for step in range(3):
            label = self.answers[(self.answers.index(answer) + step) % 3]
            at = []
            for inward, outward in ((1.75, 1.75), (1.5, 2.05), (1.22, 2.4), (0.5, 5.0)):
                reach = [inward if str(own) == label else outward for own in range(2)]
                at.append([(sides[own] * reach[own] + jitter[own], rows[own]) for own in range(2)])
            shots = frames(eye, solids, at)
            shots = tuple(Shot(SolidScene((*shot.scene.solids, wall(eye))), eye) for shot in shots)
            examples.append(SolidExample(shots, Turn(self.words, colours[self.answers.index(label)], colours)))
        return examples


class Next(SolidTask):
    """An object moves evenly toward another and passes it with the next step, or does not; the last picture is the
    same."""

    name, words = "next", "next {0} left-or-right {1}"
    english = (
        "The pictures are in order of time, equal times apart, and {0} goes on as before. At the next moment, will it "
        "be to the left or to the right of {1}?"
    )
    answers = SIDES

    def draw(self, rng: Random, answer: str, cue: str) -> list[SolidExample] | None:
        eye, way = camera(rng), rng.choice((-1, 1))
        row, other = rng.uniform(1.0, 1.8), (way * rng.uniform(-0.1, 0.9), rng.uniform(-0.7, 0.0))
        wide = eye.slope * eye.project(0, row, 0.24)[2]  # of half a picture where it moves
        start = eye.project(*other, 0.24)[0] - way * (gap := rng.uniform(0.12, 0.26))
        solids, examples = things(rng, eye, [(start * wide, row), other]), []
        for said in (answer, SIDES[answer == "left"]):
            passes = (said == "right") == (way == 1)
            step = way * (gap + (1 if passes else -1) * rng.uniform(0.05, 0.07))
            at = [[((start - when * step) * wide, row), other] for when in (2, 1, 0)]
            examples.append(SolidExample(frames(eye, solids, at), self.turn(solids, said, SIDES)))
        return fit(examples)


TASKS: dict[str, SolidTask] = {
    task.name: task for task in (First(), Moved(), WhichMoved(), Faster(), ThingOrCamera(), Behind(), Next())
}
"""Those of several moments."""
