"""Pictures whose truth is known, with questions in the words that a model understands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from random import Random
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from blindspot.scenes.relations import PHRASE, RELATIONS, direction_table, relation, statement_table
from blindspot.scenes.render import render
from blindspot.scenes.solid import cast
from blindspot.scenes.solid.tasks import SolidExample, SolidTask
from blindspot.scenes.solid.world import HELD_OUT, Shot, Solid, see
from blindspot.scenes.tasks import Turn
from blindspot.scenes.world import CANVAS, COLOURS, Scene, Thing, draw_distinct

Speech = Literal["words", "english"]
"""``words``: the closed vocabulary of the miniature. ``english``: sentences, for any other model."""
NUMBERS = ("2", "3", "4", "5")


@dataclass(frozen=True)
class Stimulus:
    """One picture (of solids also several) and one question about it.

    Attributes:
        scene: what is in the picture. ``things[0]`` is asked about; of relations ``things[1]`` is the other object.
            Of solids: where their silhouettes are.
        choices: possible answers to the prompt.
        mentions: words of the prompt that name an object or ask for the relation, by role: ``subject``, ``reference``,
            ``relation``.
        shots: the pictures, where they are of solids.
    """

    scene: Scene
    prompt: str
    choices: tuple[str, ...]
    answer: str
    mentions: dict[str, str]
    shots: tuple[Shot, ...] = ()

    @property
    def subject(self) -> Thing:
        return self.scene.things[0]

    @property
    def reference(self) -> Thing:
        return self.scene.things[1]

    def images(self, side: int) -> list[np.ndarray]:
        """The pictures, ``uint8`` of shape (side, side, 3); ``side`` is a multiple of `scenes.world.CANVAS`."""
        return list(cast.render(self.shots, side).rgb) if self.shots else [render(self.scene, side // CANVAS)]

    def image(self, side: int) -> np.ndarray:
        """The same side by side."""
        return np.concatenate(self.images(side), axis=1)


def directions(count: int, seed: int, speech: Speech) -> list[Stimulus]:
    """Where the subject lies relative to the reference: each of four answers equally often.

    Cells follow `scenes.relations.direction_table`, which keeps what one object's place says small.
    """
    rng, table = Random(f"diagnostics/directions/{seed}"), direction_table()
    cells = (table.draw(rng, RELATIONS[number % 4]) for number in range(count))
    return [direction(draw_distinct(rng, "train", pair), speech) for pair in cells]


def statements(count: int, seed: int, speech: Speech) -> list[Stimulus]:
    """Whether a relation holds: yes and no equally often, with cells by `scenes.relations.statement_table`."""
    rng = Random(f"diagnostics/statements/{seed}")
    found = []
    for number in range(count):
        name, answer = RELATIONS[number // 2 % 4], ("yes", "no")[number % 2]
        found.append(statement(draw_distinct(rng, "train", statement_table(name).draw(rng, answer)), name, speech))
    return found


def counts(count: int, seed: int, speech: Speech) -> list[Stimulus]:
    """How many objects: 2 to 5 equally often."""
    rng = Random(f"diagnostics/counts/{seed}")
    return [number_of(draw_distinct(rng, "train", count=2 + number % 4), speech) for number in range(count)]


def existence(count: int, seed: int, speech: Speech) -> list[Stimulus]:
    """Whether a colour and a shape occur in one object; if not, both occur, in the first two objects."""
    rng = Random(f"diagnostics/existence/{seed}")
    found = []
    for number in range(count):
        scene = draw_distinct(rng, "train", count=rng.randint(2, 5))
        subject, other = scene.things[:2]
        found.append(presence(scene, subject.colour, (subject if number % 2 == 0 else other).shape, speech))
    return found


TASKS = {"direction": directions, "statement": statements, "count": counts, "existence": existence}
"""What a model is asked, by name: functions of the number of stimuli, the seed and the speech."""


def direction(scene: Scene, speech: Speech) -> Stimulus:
    """The question where ``things[0]`` of a scene lies relative to ``things[1]``: never on a diagonal."""
    answer = relation(scene.things[0].cell, scene.things[1].cell)
    if answer is None:
        raise ValueError(f"the first two of {scene.things} lie on a diagonal")
    a, b = _names(scene, speech)
    phrase, prompt = "relative-to", f"{a} relative-to {b}"
    if speech == "english":
        phrase = "relative to"
        prompt = f"Where is the {a} {phrase} the {b}? Answer with one word: left, right, above or below."
    return Stimulus(scene, prompt, RELATIONS, answer, {"subject": a, "reference": b, "relation": phrase})


def statement(scene: Scene, name: str, speech: Speech) -> Stimulus:
    """The question whether ``things[0]`` of a scene is in relation ``name`` to ``things[1]``."""
    answer = "yes" if relation(scene.things[0].cell, scene.things[1].cell) == name else "no"
    a, b = _names(scene, speech)
    phrase, prompt = PHRASE[name], f"{a} {PHRASE[name]} {b}"
    if speech == "english":
        phrase = {"left": "to the left of", "right": "to the right of"}.get(name, name)
        prompt = f"Is the {a} {phrase} the {b}? Answer with one word: yes or no."
    return Stimulus(scene, prompt, ("yes", "no"), answer, {"subject": a, "reference": b, "relation": phrase})


def twins(
    task: SolidTask,
    rng: Random,
    first: int,
    speech: Speech,
    fits: Callable[[Sequence[Solid]], bool] = lambda solids: True,
) -> tuple[Stimulus, Stimulus]:
    """The same question about a red and a green solid twice, with another answer: red in the first, or (``first`` 1) in
    the second. Of `Nearer` silhouettes are the same, of `First` all but the picture in the middle. ``fits`` chooses
    among scenes, the red and the green solid in front."""
    (a, b), rest = ("red", "green"), [colour for colour in COLOURS if colour not in ("red", "green")]
    while True:
        examples = task.build(rng, task.answers[first])
        was = dict.fromkeys((*examples[0].turn.choices, *(own.colour for own in examples[0].shots[0].scene.solids)))
        now = dict(zip(was, [a, b, *rng.sample(rest, len(rest))], strict=False))
        made = []
        for shots, turn in examples:
            shown = []
            for shot in shots:
                named = {now[own.colour]: own._replace(colour=now[own.colour]) for own in shot.scene.solids}
                solids = named[a], named[b], *(own for colour, own in named.items() if colour in rest)
                shown.append(shot._replace(scene=shot.scene._replace(solids=solids)))
            example = SolidExample(tuple(shown), Turn(task.words.format(a, b), now[turn.answer], (a, b)))
            prompt, names = example.turn.prompt, [a, b]
            if speech == "english":
                prompt = f"{task.in_english(example)[0]} Answer with one word: {a} or {b}."
                names = [own.name.removeprefix("the ") for own in solids[:2]]
            mentions = {"subject": names[0], "reference": names[1]}
            seen = Scene(_silhouettes(shown[0]), 0)
            made.append(Stimulus(seen, prompt, (a, b), example.turn.answer, mentions, example.shots))
        if fits(solids) and HELD_OUT.isdisjoint((own.colour, own.shape) for own in solids):
            return made[0], made[1]


def _silhouettes(shot: Shot) -> tuple[Thing, ...]:
    """Of every solid a square around what is seen of it, whole pixels of the canvas."""
    found = []
    for solid in shot.scene.solids:
        own = see(solid, shot.camera)
        half = max(own.sides(solid))
        (x0, y0), size = (floor(CANVAS / 2 * (1 + at - half)) for at in (own.u, own.v)), ceil(CANVAS * half)
        found.append(Thing(solid.colour, solid.shape, 0, 0, size, x0, y0))
    return tuple(found)


def number_of(scene: Scene, speech: Speech) -> Stimulus:
    prompt = "how-many objects" if speech == "words" else "How many objects are there? Answer with one number."
    return Stimulus(scene, prompt, NUMBERS, str(len(scene.things)), {})


def presence(scene: Scene, colour: str, shape: str, speech: Speech) -> Stimulus:
    name, answer = f"{colour} {shape}", "yes" if (colour, shape) in {t[:2] for t in scene.things} else "no"
    prompt = f"any {name}" if speech == "words" else f"Is there a {name}? Answer with one word: yes or no."
    return Stimulus(scene, prompt, ("yes", "no"), answer, {"subject": name})


def _names(scene: Scene, speech: Speech) -> list[str]:
    return [thing.colour if speech == "words" else f"{thing.colour} {thing.shape}" for thing in scene.things[:2]]


def answers(stimuli: Sequence[Stimulus]) -> np.ndarray:
    """Index of the right answer among the choices, shape (stimuli,)."""
    return np.array([stimulus.choices.index(stimulus.answer) for stimulus in stimuli])


def patch_pixels(stimuli: Sequence[Stimulus], side: int, grid: tuple[int, int]) -> Tensor:
    """The pixels of every patch, shape (stimuli, patches, pixels), 0 to 255: whole pixels, so a rest is cut off."""
    (rows, columns), count = grid, len(stimuli)
    high, wide = side // rows, side // columns
    images = np.stack([stimulus.image(side)[: high * rows, : wide * columns] for stimulus in stimuli])
    patches = images.reshape(count, rows, high, columns, wide, 3).swapaxes(2, 3).reshape(count, rows * columns, -1)
    return torch.from_numpy(patches).float()


def covered(things: Sequence[Thing], grid: tuple[int, int]) -> Tensor:
    """Whether a patch overlaps the box of the thing in its picture, shape (pictures, patches), in raster order."""
    rows, columns = grid
    top_h, left_w = torch.arange(rows) * CANVAS / rows, torch.arange(columns) * CANVAS / columns
    x0_b, y0_b, x1_b, y1_b = torch.tensor([thing.box for thing in things]).T
    down_bh = (top_h < y1_b[:, None]) & (top_h + CANVAS / rows > y0_b[:, None])
    across_bw = (left_w < x1_b[:, None]) & (left_w + CANVAS / columns > x0_b[:, None])
    return (down_bh[:, :, None] & across_bw[:, None]).flatten(1)
