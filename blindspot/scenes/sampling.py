"""Training turns about random scenes, and test questions whose answer is drawn before their scene."""

from collections import Counter
from collections.abc import Iterable
from itertools import cycle
from random import Random

from blindspot.question import Question
from blindspot.scenes.tasks import TASKS, Item, Task, Turn
from blindspot.scenes.world import Scene, Split, Thing, draw_distinct

CROWD_SHARE = 0.2
TURNS = 14
"""Turns that a training scene gets."""


class TrainingWorld:
    """Random scenes with turns about them, scene by scene; the answers of every task are kept in balance.

    Args:
        seed: a different seed is a different training set.
        turns: how many turns each scene gets; tasks share them by their ``turns`` weight.
    """

    def __init__(self, seed: int, turns: int) -> None:
        self._rng = Random(f"train/{seed}")
        self._asked: Counter[tuple[str, str]] = Counter()
        self._turns = turns
        self._tasks = {
            kind: [task for task in TASKS if task.scenes == kind and task.turns] for kind in ("distinct", "crowd")
        }

    def draw(self) -> tuple[Scene, list[tuple[Task, Turn]]]:
        """The next scene and its turns, in random order, none twice."""
        rng = self._rng
        if rng.random() < CROWD_SHARE:
            tasks = self._tasks["crowd"]
            task = rng.choice(tasks)
            scene = task.build(rng, rng.choice(task.answers), "train")[0].scene
        else:
            tasks = self._tasks["distinct"]
            scene = draw_distinct(rng, "train")
        weights = [task.turns for task in tasks]
        turns: dict[str, tuple[Task, Turn]] = {}
        for task in rng.choices(tasks, weights, k=2 * self._turns):
            if len(turns) == self._turns:
                break
            if (turn := self._ask(task, scene)) is not None:
                turns.setdefault(turn.prompt, (task, turn))
        return scene, list(turns.values())

    def _ask(self, task: Task, scene: Scene) -> Turn | None:
        """Ask for the answer that was asked for least so far, as far as the scene admits it."""
        order = sorted(task.answers, key=lambda answer: (self._asked[task.name, answer], self._rng.random()))
        for answer in order:
            turn = task.ask(self._rng, scene, answer)
            if turn is not None:
                self._asked[task.name, answer] += 1
                return turn
        return None


def test_questions(
    split: Split, per_column: int, seed: int, training: Iterable[Scene] = ()
) -> tuple[list[Scene], list[Question]]:
    """Draw a test split, every answer of every task equally often.

    Args:
        split: ``iid`` or ``compositional`` (the first object is a colour-shape pair that training never shows).
        per_column: questions in each column; pairs count as two.
        seed: a different seed is a different test set.
        training: scenes that must not occur in the test.

    Returns:
        Scenes, and questions whose ``images`` index them. ``groups`` has the task, the split, the cluster (scenes that
        belong together) and whether a rule on a single object helps (``balanced`` is False where it may).
    """
    trained = {_graph(scene) for scene in training}
    scenes: list[Scene] = []
    questions: list[Question] = []
    for column in dict.fromkeys(task.column for task in TASKS):
        tasks = [task for task in TASKS if task.column == column and split in task.splits]
        for number, task in enumerate(tasks):
            share = per_column // len(tasks) + (number < per_column % len(tasks))
            rng = Random(f"{split}/{seed}/{task.name}")
            targets = cycle(task.targets(split))
            drawn = 0
            while drawn < share:
                items = task.build(rng, answer := next(targets), split)
                while any(_graph(item.scene) in trained for item in items):
                    items = task.build(rng, answer, split)
                questions += _questions(task, items, split, len(scenes))
                scenes += [item.scene for item in items]
                drawn += len(items)
    return scenes, questions


def _graph(scene: Scene) -> tuple[frozenset[Thing], int]:
    """What makes two scenes the same picture."""
    return frozenset(scene.things), scene.background


def _questions(task: Task, items: list[Item], split: Split, first_image: int) -> list[Question]:
    cluster = f"{task.name}/{split}/{first_image}"
    return [
        Question(
            id=f"{task.name}/{split}/{image}",
            benchmark=task.column,
            kind=task.kind,
            prompt=turn.prompt,
            answer=turn.answer,
            choices=turn.choices,
            images=(image,),
            groups={"task": task.name, "split": split, "cluster": cluster, **turn.groups},
        )
        for image, (_, turn) in enumerate(items, start=first_image)
    ]
