"""Training turns about random scenes, and test questions whose answer is drawn before their scene."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import cycle
from random import Random

from blindspot.question import Question
from blindspot.scenes.tasks import TASKS, Example, Task, Turn
from blindspot.scenes.world import Scene, Size, Split, Thing, draw_distinct, put

CROWD_SHARE = 0.2
TURNS = 14
"""Turns that a training scene gets."""


class TrainingWorld:
    """Random scenes with turns about them, scene by scene; the answers of every task are kept in balance.

    Args:
        seed: a different seed is a different training set.
        turns: how many turns each scene gets; tasks share them by their ``turns`` weight.
        sizes: of pictures that scenes are `put` in; without, every scene fills its own. Cells are named in any case,
            which words about a scene answer.
    """

    def __init__(self, seed: int, turns: int, sizes: Sequence[Size] = ()) -> None:
        self._rng = Random(f"train/{seed}")
        self._asked: Counter[tuple[str, str]] = Counter()
        self._turns = turns
        self._sizes = sizes

    def draw(self) -> tuple[Scene, list[tuple[Task, Turn]]]:
        """The next scene and its turns, in random order, none twice."""
        rng = self._rng
        kind = "crowd" if rng.random() < CROWD_SHARE else "distinct"
        tasks = [task for task in TASKS if task.scenes == kind and task.turns]
        if kind == "crowd":
            task = rng.choice(tasks)
            scene = task.build(rng, rng.choice(task.answers), "train")[0].scene
        else:
            scene = draw_distinct(rng, "train")
        (scene,) = put(rng, [scene], self._sizes)
        turns: dict[str, tuple[Task, Turn]] = {}
        for task in rng.choices(tasks, [task.turns for task in tasks], k=2 * self._turns):
            if len(turns) == self._turns:
                break
            # The answer that was asked for least so far, as far as the scene admits it.
            for answer in sorted(task.answers, key=lambda answer: (self._asked[task.name, answer], rng.random())):
                if (turn := task.ask(rng, scene, answer)) is not None:
                    self._asked[task.name, answer] += 1
                    turns.setdefault(turn.prompt, (task, turn))
                    break
        return scene, list(turns.values())


def test_questions(
    split: Split,
    per_column: int,
    seed: int,
    training: Iterable[Scene] = (),
    name: str | None = None,
    sizes: Sequence[Size] = (),
) -> tuple[list[Scene], list[Question]]:
    """Draw a test split, every answer of every task equally often.

    Args:
        split: ``iid`` or ``compositional`` (the first object is a colour-shape pair that training never shows).
        per_column: questions in each column; pairs count as two.
        seed: a different seed is a different test set.
        training: scenes that must not occur in the test.
        name: of the draw, by default the split's; another name is another draw from it.
        sizes: as of `TrainingWorld`.

    Returns:
        Scenes, and questions whose ``images`` index them. ``groups`` has the task, the split, the cluster (scenes that
        belong together) and whether a rule on a single object helps (``balanced`` is False where it may).
    """
    trained, name = set(map(_picture, training)), name or split
    scenes: list[Scene] = []
    questions: list[Question] = []
    for column in dict.fromkeys(task.column for task in TASKS):
        tasks = [task for task in TASKS if task.column == column and split in task.splits]
        tasks = [task for task in tasks if not (sizes and task.names_cells)]
        for number, task in enumerate(tasks):
            share = per_column // len(tasks) + (number < per_column % len(tasks))
            rng = Random(f"{name}/{seed}/{task.name}")
            targets = cycle(task.targets(split))
            first = len(scenes)
            while len(scenes) < first + share:
                items = _built(rng, task, answer := next(targets), split, sizes)
                while any(_picture(item.scene) in trained for item in items):
                    items = _built(rng, task, answer, split, sizes)
                cluster = f"{task.name}/{name}/{len(scenes)}"
                for scene, turn in items:
                    own = f"{task.name}/{name}/{len(scenes)}"
                    labels = {"task": task.name, "split": split, "cluster": cluster, **turn.groups}
                    images = (len(scenes),)
                    questions.append(
                        Question(own, column, task.kind, turn.prompt, turn.answer, turn.choices, images, labels)
                    )
                    scenes.append(scene)
    return scenes, questions


def _built(rng: Random, task: Task, answer: str, split: Split, sizes: Sequence[Size]) -> list[Example]:
    items = task.build(rng, answer, split)
    scenes = put(rng, [item.scene for item in items], sizes)
    return [Example(scene, task.moved(item.turn, scene)) for item, scene in zip(items, scenes, strict=True)]


def _picture(scene: Scene) -> tuple[frozenset[Thing], int, Size]:
    """What two scenes that are the same picture share."""
    return frozenset(scene.things), scene.background, (scene.height, scene.width)
