"""What a world of solids teaches and asks a model that is trained from nothing, whatever it shows."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from blindspot.question import Kind, Question
from blindspot.scenes.baselines import BLIND, learn
from blindspot.scenes.solid.tasks import SolidExample
from blindspot.scenes.solid.world import Shot
from blindspot.scenes.tasks import Turn


class Told(NamedTuple):
    """A turn, and whether a scene in words answers it too."""

    turn: Turn
    in_words: bool = True


class Lesson(NamedTuple):
    """The pictures of a row of training, in order, and what is asked about them."""

    shots: tuple[Shot, ...]
    told: list[Told]


class Asked:
    """Questions of a split, and the pictures that their ``images`` index."""

    def __init__(self, name: str) -> None:
        self.name, self.shown, self.questions = name, list[tuple[Shot, ...]](), list[Question]()

    def ask(self, column: str, cluster: int, kind: Kind, example: SolidExample) -> None:
        """One more, in a cluster of a column."""
        (shots, turn), number = example, len(self.shown)
        labels = {"task": column, "split": "iid", "cluster": f"{column}/{self.name}/{cluster}"}
        own = f"{column}/{self.name}/{number}"
        self.questions.append(Question(own, column, kind, turn.prompt, turn.answer, turn.choices, (number,), labels))
        self.shown.append(shots)

    def by_column(self) -> dict[str, list[SolidExample]]:
        """Pictures and question of each, by column."""
        found: dict[str, list[SolidExample]] = defaultdict(list)
        for shots, one in zip(self.shown, self.questions, strict=True):
            found[one.benchmark].append(SolidExample(shots, Turn(one.prompt, one.answer, one.choices)))
        return found


def one(of: Lesson, about: str) -> SolidExample:
    """A question of a lesson about one object."""
    return SolidExample(of.shots, next(told.turn for told in of.told if told.turn.prompt.startswith(about)))


def blind(asked: Sequence[SolidExample], learned: Sequence[SolidExample]) -> dict[str, float]:
    """What the best answer without a look scores on questions, learned on others."""
    rule = learn(BLIND, learned)
    return {"blind rule": sum(rule(*each) == each.turn.answer for each in asked) / len(asked)}
