"""What a task is: it asks about scenes, and it builds scenes for an answer that was drawn first.

Objects are named by their colour, which is unique where objects are asked about one by one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

from blindspot.question import Kind
from blindspot.scenes.world import Scene, Split, Thing, draw_distinct


class Turn(NamedTuple):
    """One question about one scene, with its answer and labels to report by."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    groups: Mapping[str, Any] = MappingProxyType({})


class Item(NamedTuple):
    """A scene and the question asked about it. Items that `Task.build` returns together are one cluster."""

    scene: Scene
    turn: Turn


@dataclass(frozen=True)
class Task:
    """A template of questions that fills (part of) a column.

    A subclass states its class attributes and implements `ask`. `build` draws random scenes until one admits the
    wanted answer; tasks that can place the queried objects directly override it.
    """

    name: ClassVar[str]
    column: ClassVar[str]
    kind: ClassVar[Kind]
    answers: ClassVar[tuple[str, ...]]
    scenes: ClassVar[Literal["distinct", "crowd"]] = "distinct"
    turns: ClassVar[float] = 1.0
    splits: ClassVar[tuple[Split, ...]] = ("iid",)

    def targets(self, split: Split) -> tuple[str, ...]:
        """The answers that questions of this split can have."""
        return self.answers

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        """A question about ``scene`` that has this answer, or None if the scene admits none.

        ``answer`` is one of ``answers``: usually the answer itself, else a label that fixes it ("first", "second").
        """
        raise NotImplementedError

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        """Scenes made for a question with this answer: test questions are answer-first, so exactly balanced."""
        while True:
            scene = self.draw(rng, answer, split)
            if (turn := self.ask(rng, scene, answer)) is not None:
                return [Item(scene, turn)]

    def draw(self, rng: Random, answer: str, split: Split) -> Scene:
        """A random scene in which `ask` may find a question with this answer."""
        return draw_distinct(rng, split)


def ordered_pairs(scene: Scene) -> list[tuple[Thing, Thing]]:
    """All ordered pairs of different objects."""
    return [(a, b) for a in scene.things for b in scene.things if a is not b]
