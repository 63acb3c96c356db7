"""Shortcuts of the tasks with depth, and what each can score at most by construction."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from math import dist, log
from random import Random
from typing import NamedTuple

from blindspot.scenes.baselines import BLIND, NAMES, View, learn, named
from blindspot.scenes.relations import SHORTCUT
from blindspot.scenes.solid.draw import FAR, NEAR
from blindspot.scenes.solid.motion import HALF, STEPS
from blindspot.scenes.solid.registry import CUES
from blindspot.scenes.solid.tasks import InFrontOf, Larger, NearestOfAll, SolidExample, SolidTask
from blindspot.scenes.solid.world import SeenSolid, Shot, see
from blindspot.scenes.tasks import Turn

BY_SHADOWS, NOT_BY_SIZE = ("shadow", "naive"), tuple(cue for cue in CUES if cue != "size")
LEARNED = 1000
"""Questions that a rule is learned from."""
Read = Callable[[SeenSolid], float]
Score = Callable[[str, str], float]


class Shortcut(NamedTuple):
    """A view of pictures and prompt that does not suffice, or is one cue alone.

    ``bound``: what the best rule on it scores at most; None: not known in closed form. ``cue``: it is what should be
    read, and answers all. ``seen``: the cues under which it is a shortcut; under others its view is not to be seen,
    or is the cue.
    """

    view: View
    bound: float | None
    cue: bool = False
    seen: tuple[str, ...] = CUES


def line(low: float, high: float, length: float = FAR - NEAR) -> float:
    """The most that the place of one of two says about which is farther, on a bounded line, its middle uniform.

    The nearest place is always nearer: of ``gap``, 1/2 + gap / (2 (length - gap)), averaged over gaps.
    """
    gaps = [low + (high - low) * (step + 0.5) / 50 for step in range(50)]
    return sum(0.5 + gap / (2 * (length - gap)) for gap in gaps) / 50


def lattice(steps: int) -> float:
    """The same on a lattice where neighbours alone are compared."""
    return 0.5 + 1 / (2 * (steps - 1))


def one_of_four(gap: float = NearestOfAll.GAP) -> float:
    """The most that the depth of one of four, ``gap`` from one to the next, says about which is nearest."""
    return 0.25 + gap / (2 * (FAR - NEAR - 3 * gap))


def seen(shots: Sequence[Shot], prompt: str, frame: int = 0) -> list[SeenSolid]:
    """Of each object that a prompt names, once, what a picture shows."""
    shot = shots[frame]
    return [see(shot.find(colour), shot.camera) for colour in dict.fromkeys(named(prompt))]


def side(prompt: str) -> str:
    """From which side a prompt asks to see, if it does."""
    first = prompt.split()[0]
    return first if first.startswith("from") else ""


def compare(read: Read, which: tuple[int, int] = (0, 1), frame: int = 0) -> View:
    """Which of two objects has more of something."""

    def view(shots: Sequence[Shot], prompt: str) -> Hashable:
        a, b = (read(seen(shots, prompt, frame)[place]) for place in which)
        return side(prompt), a > b

    return view


def bins(*reads: tuple[Read, float], which: Sequence[int] = (0,), frame: int = 0) -> View:
    """Something of some objects, in bins of a width."""

    def view(shots: Sequence[Shot], prompt: str) -> Hashable:
        objects = seen(shots, prompt, frame)
        found = tuple(round(read(objects[place]) / width) for place in which for read, width in reads)
        return (side(prompt), *found)

    return view


def most(read: Read) -> View:
    """Which of the objects has most of something."""

    def view(shots: Sequence[Shot], prompt: str) -> Hashable:
        values = [read(own) for own in seen(shots, prompt)]
        return values.index(max(values))

    return view


def closest(read: Callable[[SeenSolid], tuple[float, ...]]) -> View:
    """Which of two objects is closer to the first."""

    def view(shots: Sequence[Shot], prompt: str) -> Hashable:
        a, b, c = (read(own) for own in seen(shots, prompt))
        return dist(a, b) < dist(a, c)

    return view


def cells(which: Sequence[int], axes: Sequence[int]) -> View:
    """Rows (0) and columns (1) of the ground's grid."""

    def view(shots: Sequence[Shot], prompt: str) -> Hashable:
        objects = [seen(shots, prompt)[place] for place in which]
        at = [(round((own.y + 1.35) / InFrontOf.SPACING[1]), round(own.x + 1.5)) for own in objects]
        return tuple(own[axis] for own in at for axis in axes)

    return view


def visible(shots: Sequence[Shot], prompt: str, frames: Sequence[int]) -> Hashable:
    """How many objects pictures of a wall show."""
    found = []
    for frame in frames:
        rows = [see(own, shots[frame].camera).y for own in shots[frame].scene.solids if own.colour != "grey"]
        found.append(sum(row < 0.4 for row in rows))
    return prompt, sum(found)


def ratios(read: Read, shots: Sequence[Shot], prompt: str) -> Hashable:
    """How many times as much of something the object has that appears larger, in steps of `Larger.RATIOS`."""
    pair = sorted(enumerate(seen(shots, prompt)), key=lambda own: own[1].size)
    value = abs(read(pair[1][1]) / read(pair[0][1]))
    value = max(value, 1 / value)
    return pair[1][0], min(range(8), key=lambda step: abs(Larger.RATIOS[step] - value))


def moves(start: int, end: int, shots: Sequence[Shot], prompt: str) -> Hashable:
    """Which of two objects moves more in the picture from one frame to another."""
    pairs = zip(seen(shots, prompt, start), seen(shots, prompt, end), strict=True)
    a, b = (dist(_foot(before), _foot(after)) for before, after in pairs)
    return a > b


def one_step(shots: Sequence[Shot], prompt: str) -> Hashable:
    """How far the first object moves over the ground."""
    a, b = (seen(shots, prompt, frame)[0] for frame in (0, 1))
    return round(log(dist((a.x, a.y), (b.x, b.y)) / STEPS[0]) / log(STEPS[1] / STEPS[0]))


def apart_by(shots: Sequence[Shot], prompt: str) -> Hashable:
    """How far two objects are apart across the first picture, and which is left."""
    a, b = seen(shots, prompt)
    return round((a.u - b.u) / 0.08)


def columns_seen(frame: int, shots: Sequence[Shot], prompt: str) -> Hashable:
    """Where across a picture its objects are, roughly, in their order."""
    return tuple(round(see(own, shots[frame].camera).u / 0.25) for own in shots[frame].scene.solids)


def rows_seen(frame: int, shots: Sequence[Shot], prompt: str) -> Hashable:
    """Where in depth the objects of a picture are, roughly, from left to right."""
    found = sorted((own.u, own.y) for own in (see(each, shots[frame].camera) for each in shots[frame].scene.solids))
    return tuple((round(u / 0.4), round(y / 0.8)) for u, y in found)


def _ratio(places: Sequence[tuple[float, ...]]) -> float:
    a, b, c = places
    return min(9.0, dist(a, b) / dist(a, c))


def _foot(own: SeenSolid) -> tuple[float, float]:
    return own.foot_u, own.foot_v


U, V, SIZE, FOOT = (lambda own: own.u), (lambda own: own.v), (lambda own: own.size), (lambda own: own.foot_v)
Y, X, DEPTH = (lambda own: own.y), (lambda own: own.x), (lambda own: own.depth)
FACING = (lambda own: own.facing % 360, 30.0)
IN_THE_BAND = {
    "lower in the picture": Shortcut(compare(V), 0.5),
    "larger in the picture": Shortcut(compare(SIZE), 0.5, seen=NOT_BY_SIZE),
    "both heights and sizes": Shortcut(bins((V, 0.15), (SIZE, 0.02), which=(0, 1)), 0.5, seen=NOT_BY_SIZE),
    "one column": Shortcut(bins((U, 0.1)), 0.5),
    "one height": Shortcut(bins((V, 0.05)), 0.5),
    "one size": Shortcut(bins((SIZE, 0.006)), 0.5),
    "one object's depth": Shortcut(bins((Y, 0.25)), line(0.5, 0.9), seen=BY_SHADOWS),
    "one height, size and foot": Shortcut(bins((V, 0.1), (SIZE, 0.02), (FOOT, 0.1)), line(0.5, 0.9), seen=BY_SHADOWS),
    "both feet": Shortcut(compare(FOOT), None, cue=True),
}
SHORTCUTS: dict[str, dict[str, Shortcut]] = {
    "nearer": IN_THE_BAND,
    "nearest": {
        "lowest in the picture": Shortcut(most(V), 0.25),
        "largest in the picture": Shortcut(most(SIZE), 0.25, seen=NOT_BY_SIZE),
        "one object's depth": Shortcut(bins((Y, 0.2)), one_of_four(), seen=BY_SHADOWS),
        "lowest foot": Shortcut(most(FOOT), None, cue=True),
    },
    "closer": {
        "closer in the picture": Shortcut(closest(lambda own: (own.u, own.v)), 0.5),
        "closer feet in the picture": Shortcut(closest(_foot), 0.5, seen=BY_SHADOWS),
        "closer columns": Shortcut(closest(lambda own: (own.u,)), 0.5),
        "one object's depth": Shortcut(bins((Y, 0.25), which=(1,)), None, seen=BY_SHADOWS),
        "closer in depth alone": Shortcut(closest(lambda own: (own.y,)), None, cue=True),
    },
    "in_front_of": {
        "one object's cell": Shortcut(cells((0,), (0, 1)), SHORTCUT),
        "both columns": Shortcut(cells((0, 1), (1,)), SHORTCUT),
        "both rows": Shortcut(cells((0, 1), (0,)), None),
    },
    "hidden_by": {
        "lower in the picture": Shortcut(compare(V, (1, 2)), 0.5),
        "larger in the picture": Shortcut(compare(SIZE, (1, 2)), 0.5),
        "one column": Shortcut(bins((U, 0.1), which=(1,)), 0.5),
        "one object's depth": Shortcut(bins((Y, 0.25), which=(1,)), line(1.2, 1.5), seen=BY_SHADOWS),
        "both feet": Shortcut(compare(FOOT, (1, 2)), None, cue=True),
    },
    "higher": {
        "higher in the picture": Shortcut(compare(V), None),
        "nearer": Shortcut(compare(FOOT), None),
        "larger in the picture": Shortcut(compare(SIZE), 0.5),
        "one height in the picture": Shortcut(bins((V, 0.05)), None),
    },
    "facing": {
        "its place": Shortcut(bins((U, 0.2), (V, 0.1)), 0.25),
        "its heading on the map": Shortcut(
            lambda shots, prompt: round(shots[0].find(named(prompt)[0]).heading % 360 / 30), None
        ),
    },
    "for_whom": {
        "left in the picture": Shortcut(compare(U), 0.5),
        "its heading": Shortcut(bins(FACING, which=(1,)), 0.5),
        "one place": Shortcut(bins((X, 0.3), (Y, 0.3)), 0.5),
        "one place and its heading": Shortcut(bins((X, 0.4), (Y, 0.5), FACING, which=(1,)), None),
    },
    "for_camera": {
        "nearer": Shortcut(compare(Y), 0.5),
        "its heading": Shortcut(bins(FACING, which=(1,)), 0.5),
        "one column": Shortcut(bins((X, 0.15)), None),
    },
    "from_side": {
        "left in the picture": Shortcut(compare(U), 0.5),
        "one place": Shortcut(bins((X, 0.3), (Y, 0.3)), None),
        "nearer": Shortcut(compare(Y), None, cue=True),
    },
    "camera_moved": {
        "the first picture": Shortcut(partial(columns_seen, 0), 0.5),
        "the second picture": Shortcut(partial(columns_seen, 1), 0.5),
    },
    "in_all": {
        "the first picture": Shortcut(partial(visible, frames=(0,)), 0.5),
        "the second picture": Shortcut(partial(visible, frames=(1,)), 0.5),
        "both added up": Shortcut(partial(visible, frames=(0, 1)), None),
    },
    "ratio": {
        "feet in the picture": Shortcut(
            lambda shots, prompt: round(_ratio([_foot(own) for own in seen(shots, prompt)]) * 10), None
        ),
        "places in the picture, without the third": Shortcut(
            lambda shots, prompt: round(dist(*[_foot(own) for own in seen(shots, prompt)][:2]) * 10), None
        ),
    },
    "first": {
        **{
            f"the {name} picture": Shortcut(bins((X, 1.0), (Y, 1.0), which=(0, 1), frame=frame), 0.5)
            for frame, name in enumerate(("first", "middle", "last"))
        },
        "which moves to the middle picture": Shortcut(partial(moves, 0, 1), None, cue=True),
    },
    "moved": {
        "the first picture": Shortcut(bins((X, 0.1)), line(0.35, 0.6, 2 * HALF)),
        "the last picture": Shortcut(bins((X, 0.1), frame=-1), line(0.35, 0.6, 2 * HALF)),
    },
    "which_moved": {
        "the first picture": Shortcut(bins((X, 0.3), (Y, 0.4)), 1 / 3),
        "the last picture": Shortcut(bins((X, 0.3), (Y, 0.4), frame=1), 1 / 3),
    },
    "faster": {
        "the last picture": Shortcut(bins((X, 1.0), (Y, 1.0), which=(0, 1), frame=2), None),
        "one step": Shortcut(one_step, lattice(8)),
        "the longer step in the picture": Shortcut(partial(moves, 0, 2), None),
    },
    "thing_or_camera": {
        "the last picture": Shortcut(partial(rows_seen, 1), 0.5),
    },
    "behind": {
        "the first picture": Shortcut(partial(rows_seen, 0), 1 / 3),
        "the last picture": Shortcut(lambda shots, prompt: len(shots), 1 / 3),
    },
    "next": {
        "the last picture": Shortcut(bins((U, 0.1), which=(0, 1), frame=2), 0.5),
        "the first picture": Shortcut(apart_by, None),
        "the side it is on": Shortcut(compare(U, frame=2), 0.5),
    },
    "larger": {
        "larger in the picture": Shortcut(compare(SIZE), 0.5),
        "nearer": Shortcut(compare(DEPTH), 0.5),
        "one ratio of sizes": Shortcut(partial(ratios, SIZE), lattice(8)),
        "one ratio of depths": Shortcut(partial(ratios, DEPTH), lattice(8)),
    },
}
"""By task."""


def questions(task: SolidTask, count: int, seed: str, cue: str = "shadow") -> list[list[SolidExample]]:
    """Clusters of at least ``count`` questions; answers come equally often, and more questions begin with these."""
    rng, found, total = Random(f"{seed}/{task.name}"), [], 0
    while total < count:
        found.append(task.build(rng, task.answers[len(found) % len(task.answers)], cue))
        total += len(found[-1])
    return found


def shortcuts(
    task: SolidTask,
    asked: Sequence[SolidExample],
    cue: str = "shadow",
    learned: int | None = None,
    score: Score = str.__eq__,
    cues: bool = False,
) -> dict[str, float]:
    """What each shortcut of a task, learned on other questions of the same kind, scores on those asked.

    Args:
        cue: by which they are asked.
        learned: on how many others; None: `LEARNED`.
        score: of an answer and the gold.
        cues: also what should be read, which answers all.
    """
    rules = {"the prompt alone": BLIND["template"]} | {
        name: rule.view
        for name, rule in SHORTCUTS.get(task.name, {}).items()
        if cues or (not rule.cue and cue in rule.seen)
    }
    train = [
        (each.shots, _listed(each.turn)) for own in questions(task, learned or LEARNED, "rules", cue) for each in own
    ]
    found = {}
    for name, view in rules.items():
        rule = learn({name: view}, train)
        found[name] = sum(float(score(rule(e.shots, _listed(e.turn)), e.turn.answer)) for e in asked) / len(asked)
    if task.kind == "number":
        found["the best constant"] = max(sum(score(a, e.turn.answer) for e in asked) / len(asked) for a in task.answers)
    return found


def _listed(turn: Turn) -> Turn:
    """The question with its choices, where these are objects that it does not name: a rule may say "the first"."""
    more = [] if named(turn.prompt) or not set(turn.choices) <= NAMES else turn.choices
    return turn._replace(prompt=" ".join((turn.prompt, *more)))
