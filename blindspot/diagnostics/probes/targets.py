"""What probes try to read: pictures, the truth about each, and a random label for each content (control task).

All pictures show something red, so that the truth has the same meaning at every stage, also where the question is not
known yet. The shape `NEW` is in no picture that a probe is trained on; it is the first object's or the second's in
every picture of the part ``new``.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

import numpy as np

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core import stimuli as ask
from blindspot.diagnostics.core.stimuli import Speech, Stimulus, answers
from blindspot.scenes.relations import RELATIONS, direction_table
from blindspot.scenes.solid.tasks import TASKS
from blindspot.scenes.solid.world import Solid, see
from blindspot.scenes.world import CELL, CELLS, COLOURS, HELD_OUT, SHAPES, Cell, Scene, Thing, place

Kind = Literal["place", "class", "number"]
PARTS = ("train", "test", "new")
"""Parts of the pictures: fitted on, tested on, and tested on content never trained on."""
NEW, NEW_SOLID = "ring", "cone"
SUBJECT, REFERENCE, ASKED = "red", "green", "circle"


@dataclass(frozen=True)
class Target:
    """Something that is true of a picture, or of cells of it.

    Units are what is predicted: pictures, or cells of pictures.

    Attributes:
        name: of the target.
        kind: ``place`` is numbers, ``class`` is one-hot, ``number`` is a whole number that must be hit.
        truth_uk: shape (units, outputs).
        control_uk: the truth of another unit, the same for all units of one content; shape (units, outputs).
        scene_u: picture of every unit.
        cell_uv: row and column of every unit, shape (units, 2), if units are cells.
    """

    name: str
    kind: Kind
    truth_uk: np.ndarray
    control_uk: np.ndarray
    scene_u: np.ndarray
    cell_uv: np.ndarray | None = None


@dataclass(frozen=True)
class Set:
    """Pictures with one question, and all that is to be read from them.

    Attributes:
        stimuli: pictures with their question.
        part_s: index into `PARTS` of every picture.
        targets: what is true.
        asks: name of the target that the question asks for, if one.
    """

    stimuli: list[Stimulus]
    part_s: np.ndarray
    targets: tuple[Target, ...]
    asks: str | None


def places(budget: Budget, speech: Speech) -> Set:
    """Where the red object is, in cells: cells are independent, so that no other object says anything about it."""

    def draw(rng: Random, new: bool, _: int) -> Stimulus:
        return ask.statement(_scene(rng, (SUBJECT, REFERENCE), (NEW,) if new else ()), "left", speech)

    stimuli, part_s = _drawn("places", draw, budget)
    truth_s2 = np.array([middle(stimulus.subject) for stimulus in stimuli]) / CELL
    return Set(stimuli, part_s, (_target("position", "place", truth_s2, stimuli, part_s, budget),), None)


def middle(thing: Thing) -> tuple[float, float]:
    """Row and column of an object's middle, in pixels of the scene."""
    return thing.y + thing.size / 2, thing.x + thing.size / 2


def relations(budget: Budget, speech: Speech) -> Set:

    def draw(rng: Random, new: bool, number: int) -> Stimulus:
        cells = direction_table().draw(rng, RELATIONS[number % 4])
        return ask.direction(_scene(rng, (SUBJECT, REFERENCE), (NEW,) if new else (), cells), speech)

    return _asked("relation", draw, budget)


def numbers(budget: Budget, speech: Speech) -> Set:
    """How many objects there are, and which colour is at cells: of every object, and of one empty cell.

    Of new content, cells are those of the object of new shape.
    """

    def draw(rng: Random, new: bool, number: int) -> Stimulus:
        return ask.number_of(_scene(rng, (), (NEW,) if new else (), count=2 + number % 4), speech)

    stimuli, part_s = _drawn("numbers", draw, budget)
    counted_s1 = np.array([[float(stimulus.answer)] for stimulus in stimuli])
    contents = [tuple(sorted(thing.colour for thing in stimulus.scene.things)) for stimulus in stimuli]
    control_s1 = control(counted_s1, contents, part_s == 0, budget.seed)
    count = Target("count", "number", counted_s1, control_s1, np.arange(len(stimuli)))
    rng = Random(f"diagnostics/probes/binding/{budget.seed}")
    labels, kinds, scenes, cells = [], [], [], []
    for number, stimulus in enumerate(stimuli):
        things = stimulus.scene.things
        empty = rng.choice([cell for cell in CELLS if cell not in {thing.cell for thing in things}])
        shown = [thing for thing in things if PARTS[part_s[number]] != "new" or thing.shape == NEW]
        labels += [*(COLOURS.index(thing.colour) for thing in shown), len(COLOURS)]
        kinds += [*((thing.colour, thing.shape) for thing in shown), "empty"]
        cells += [*(thing.cell for thing in shown), empty]
        scenes += [number] * (len(shown) + 1)
    truth_uk, scene_u = np.eye(len(COLOURS) + 1)[labels], np.array(scenes)
    control_uk = control(truth_uk, kinds, part_s[scene_u] == 0, budget.seed)
    binding = Target("binding", "class", truth_uk, control_uk, scene_u, np.array(cells))
    return Set(stimuli, part_s, (count, binding), "count")


def presence(budget: Budget, speech: Speech) -> Set:
    """Whether there is a red circle; if not, something else is red and something else is a circle."""

    def draw(rng: Random, new: bool, number: int) -> Stimulus:
        other = NEW if new else rng.choice(_known(ASKED))
        shapes = (other, ASKED) if number % 2 else (ASKED, other)
        return ask.presence(_scene(rng, (SUBJECT,), shapes), SUBJECT, ASKED, speech)

    return _asked("existence", draw, budget)


def depths(budget: Budget, speech: Speech) -> Set:
    """Which of two solids is nearer, and how far away the red one is; shadows alone tell, of every pair of twins one is
    shown."""

    def draw(rng: Random, new: bool, number: int) -> Stimulus:
        def fits(solids: Sequence[Solid]) -> bool:
            shapes = [solid.shape for solid in solids]
            return NEW_SOLID in shapes[:2] if new else NEW_SOLID not in shapes

        return ask.twins(TASKS["nearer"], rng, number % 2, speech, fits)[0]

    asked = _asked("nearer", draw, budget)
    rows_s1 = np.array([[see(s.shots[0].scene.solids[0], s.shots[0].camera).y] for s in asked.stimuli])
    away = _target("depth", "place", rows_s1, asked.stimuli, asked.part_s, budget)
    return replace(asked, targets=(*asked.targets, away))


SETS: tuple[Callable[[Budget, Speech], Set], ...] = (places, relations, numbers, presence, depths)
"""Each has 1.5 x ``stimuli`` of the budget to train, 1 x to test and 0.5 x with new content."""


def _asked(name: str, draw: Callable[[Random, bool, int], Stimulus], budget: Budget) -> Set:
    """A set whose one target is the answer to its question."""
    stimuli, part_s = _drawn(name, draw, budget)
    truth_sk = np.eye(len(stimuli[0].choices))[answers(stimuli)]
    return Set(stimuli, part_s, (_target(name, "class", truth_sk, stimuli, part_s, budget),), name)


def _drawn(
    name: str, draw: Callable[[Random, bool, int], Stimulus], budget: Budget
) -> tuple[list[Stimulus], np.ndarray]:
    """Stimuli of all parts, and the part of each."""
    sizes = (3 * budget.stimuli // 2, budget.stimuli, budget.stimuli // 2)
    rng = Random(f"diagnostics/probes/{name}/{budget.seed}")
    stimuli = [draw(rng, PARTS[part] == "new", number) for part, size in enumerate(sizes) for number in range(size)]
    return stimuli, np.repeat(np.arange(len(PARTS)), sizes)


def _target(
    name: str, kind: Kind, truth_sk: np.ndarray, stimuli: Sequence[Stimulus], part_s: np.ndarray, budget: Budget
) -> Target:
    """What is true of whole pictures, whose content is their first two objects."""
    contents = [tuple((thing.colour, thing.shape) for thing in stimulus.scene.things[:2]) for stimulus in stimuli]
    control_sk = control(truth_sk, contents, part_s == 0, budget.seed)
    return Target(name, kind, truth_sk, control_sk, np.arange(len(truth_sk)))


def control(truth_uk: np.ndarray, contents: Sequence[Hashable], trained_u: np.ndarray, seed: int) -> np.ndarray:
    """A control task (Hewitt and Liang 2019): all units of one content have the truth of one training unit.

    These are taken at equal steps through the training units in order of truth, so that labels are as even as there.
    """
    rng = np.random.default_rng([seed, len(truth_uk)])
    trained = np.nonzero(trained_u)[0]
    ordered = trained[np.lexsort(truth_uk[trained].T)]
    known = sorted(set(contents), key=repr)
    taken = rng.permutation(ordered[np.linspace(0, len(ordered) - 1, len(known)).round().astype(int)])
    drawn = dict(zip(known, taken, strict=True))
    return truth_uk[[drawn[content] for content in contents]]


def _scene(
    rng: Random, colours: tuple[str, ...], shapes: tuple[str, ...], cells: Sequence[Cell] = (), count: int | None = None
) -> Scene:
    """A scene whose first objects have these colours, shapes and cells; `NEW` occurs only if it is among the shapes."""
    count = count or rng.randint(2, 5)
    while True:
        hues = [*colours, *rng.sample([c for c in COLOURS if c not in colours], count - len(colours))]
        forms = [*shapes, *rng.sample(_known(*shapes), count - len(shapes))]
        if not HELD_OUT.intersection(zip(hues, forms, strict=True)):
            break
    free = [cell for cell in CELLS if cell not in cells]
    spots = [*cells, *rng.sample(free, count - len(cells))]
    things = [place(rng, *kind) for kind in zip(hues, forms, spots, strict=True)]
    return Scene(tuple(things), background=rng.randint(16, 56))


def _known(*without: str) -> list[str]:
    return [shape for shape in SHAPES if shape != NEW and shape not in without]
