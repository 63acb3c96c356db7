"""What a world of solids teaches and asks a model that is trained from nothing, whatever it shows."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple

from blindspot.question import Kind, Question
from blindspot.scenes.baselines import BLIND, learn
from blindspot.scenes.solid import rules
from blindspot.scenes.solid.tasks import SolidExample, SolidTask
from blindspot.scenes.solid.world import SHAPES, Shot, Solid
from blindspot.scenes.tasks import Turn
from blindspot.scenes.text import place_word
from blindspot.scenes.world import COLOURS


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


class Column(NamedTuple):
    """A column of a task's questions, what tells depth in them, and what draws it apart from others of its task."""

    task: SolidTask
    cue: str = "shadow"
    apart: str = ""


class World(ABC):
    """A world of solids; `depth`, `films` and `views` have one each.

    Attributes:
        columns: what is tested of its tasks, in their twins.
        side: cells along a side of the picture.
        said: the words of its prompts and answers beside colours, shapes and cells.
    """

    columns: Mapping[str, Column]
    side: int
    said: str

    def words(self) -> tuple[str, ...]:
        """Every word of its texts and questions."""
        return (*COLOURS, *SHAPES, *self.said.split(), *self.cells)

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of the cells of a picture."""
        return tuple(place_word((row, column)) for row in range(self.side) for column in range(self.side))

    @abstractmethod
    def about(self, cue: str) -> Mapping[str, tuple[str, ...]]:
        """What is tested of one object of the pictures of training, the first word of its prompts: the answers."""

    @abstractmethod
    def lesson(self, rng: Random, cue: str) -> Lesson:
        """Pictures in which a cue tells depth, and everything that is asked about them, in random order."""

    @abstractmethod
    def where(self, solid: Solid, shot: Shot) -> str:
        """What words say of the place of an object."""

    def describe(self, shots: Sequence[Shot], rng: Random, places: bool) -> str:
        """Pictures in words, of each the objects in random order; with ``places`` where they are too."""
        return " then ".join(
            " ".join(
                f"{solid.colour} {solid.shape}" + (f" {self.where(solid, shot)}" if places else "")
                for solid in rng.sample(shot.scene.solids, len(shot.scene.solids))
            )
            for shot in shots
        )

    def shown(self, column: str, example: SolidExample, rng: Random) -> SolidExample:
        """A task's example as a column shows it."""
        return example

    def questions(self, name: str, per_column: int, seed: int, cue: str) -> Asked:
        """Questions of a split: of every task twins, and what is asked of one object."""
        found = Asked(name)
        for column, (task, own, apart) in self.columns.items():
            rng = Random(f"{name}/{seed}/{column}/order")
            for place, twins in enumerate(rules.questions(task, per_column, f"{name}/{seed}{apart}", own)):
                for example in twins:
                    found.ask(column, place, "choice", self.shown(column, example, rng))
        for about, answers in self.about(cue).items():
            rng = Random(f"{name}/{seed}/{about}")
            for place in range(per_column):
                shots, turn = self._one(rng, about, cue)
                found.ask(about, place, "text", SolidExample(shots, turn._replace(choices=answers)))
        return found

    def baselines(self, asked: Asked, seed: int, cue: str) -> dict[str, dict[str, float]]:
        """What shortcuts score on questions, by column."""
        found = {}
        for column, own in asked.by_column().items():
            count = 4 * len(own)
            if column in self.columns:
                task, of, _ = self.columns[column]
                found[column] = rules.shortcuts(task, own, of, count)
            else:
                rng = Random(f"rules/{seed}/{column}")
                rule = learn(BLIND, [self._one(rng, column, cue) for _ in range(count)])
                found[column] = {"blind rule": sum(rule(*each) == each.turn.answer for each in own) / len(own)}
        return found

    def _one(self, rng: Random, about: str, cue: str) -> SolidExample:
        """The first question of this kind of the next lesson that has one."""
        while True:
            shots, told = self.lesson(rng, cue)
            for turn, _ in told:
                if turn.prompt.split()[0] == about:
                    return SolidExample(shots, turn)
