"""Counting: all objects (CV-Bench 2D), by kind and by relation (TallyQA), and crowds of 2 to 10 (CountBenchQA)."""

from collections import Counter
from random import Random

from blindspot.scenes.relations import PHRASE, RELATIONS, relation
from blindspot.scenes.tasks.base import Item, Task, Turn
from blindspot.scenes.world import COLOURS, SHAPES, Scene, Split, draw_crowd, draw_distinct, draw_kind


class CountObjects(Task):
    """ "how-many objects": 2 to 5, all different."""

    name, column, kind = "count_objects", "cvbench_count", "choice"
    answers = ("2", "3", "4", "5")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        if str(len(scene.things)) != answer:
            return None
        return Turn("how-many objects", answer, self.answers, {"balanced": True})

    def draw(self, rng: Random, answer: str, split: Split) -> Scene:
        return draw_distinct(rng, split, count=int(answer))


class CountKind(Task):
    """ "how-many square": 0 to 5 of them among others."""

    name, column, kind = "count_kind", "tallyqa_simple", "count"
    answers = ("0", "1", "2", "3", "4", "5")
    scenes = "crowd"
    turns = 3.0

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        words = _words(scene, int(answer))
        return Turn(f"how-many {rng.choice(words)}", answer) if words else None

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        word = rng.choice(COLOURS + SHAPES)
        kinds = [_kind(rng, word, True) for _ in range(int(answer))]
        kinds += [_kind(rng, word, False) for _ in range(rng.randint(1, 4))]
        return [Item(draw_crowd(rng, kinds), Turn(f"how-many {word}", answer))]


class CountRelated(Task):
    """ "how-many left-of red": 0 to 3."""

    name, column, kind = "count_related", "tallyqa_complex", "count"
    answers = ("0", "1", "2", "3")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        found = [
            (name, thing)
            for name in RELATIONS
            for thing in scene.things
            if sum(relation(other.cell, thing.cell) == name for other in scene.things) == int(answer)
        ]
        if not found:
            return None
        name, thing = rng.choice(found)
        return Turn(f"how-many {PHRASE[name]} {thing.colour}", answer, (), {"relation": name})


class CountCrowd(Task):
    """ "how-many red": 2 to 10 objects of one kind, with up to two others."""

    name, column, kind = "count_crowd", "countbenchqa", "count"
    answers = tuple(str(n) for n in range(2, 11))
    scenes = "crowd"

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        words = _words(scene, int(answer))
        return Turn(f"how-many {rng.choice(words)}", answer) if words else None

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        kind = draw_kind(rng)
        word = rng.choice(kind)
        others = [_kind(rng, word, False) for _ in range(rng.randint(0, 2))]
        return [Item(draw_crowd(rng, [kind] * int(answer) + others), Turn(f"how-many {word}", answer))]


def _words(scene: Scene, count: int) -> list[str]:
    """The colours and shapes that exactly ``count`` objects have."""
    found = Counter(word for thing in scene.things for word in (thing.colour, thing.shape))
    return [word for word in COLOURS + SHAPES if found[word] == count]


def _kind(rng: Random, word: str, wanted: bool) -> tuple[str, str]:
    while True:
        kind = draw_kind(rng)
        if (word in kind) == wanted:
            return kind
