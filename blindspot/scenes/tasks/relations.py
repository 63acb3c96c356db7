"""Left, right, above, below: as statements (VSR), multiple choice (CV-Bench 2D) and map directions (TopViewRS)."""

from random import Random

from blindspot.scenes.relations import PHRASE, RELATIONS, PairTable, direction_table, neighbour_table, statement_table
from blindspot.scenes.tasks.base import Item, Task, Turn
from blindspot.scenes.world import Scene, Split, Thing, draw_distinct

PROPOSALS = 16
START_LIES = {"north": "below", "south": "above", "east": "left", "west": "right"}
"""Where one stands relative to what lies in that direction on a map with north up."""


class Statement(Task):
    """ "red left-of blue": true or false, asked so that neither object's cell, nor the wrong axis, tells."""

    name, column, kind = "statement", "vsr", "yes_no"
    answers = ("yes", "no")
    turns = 6.0
    splits = ("iid", "compositional")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        name = rng.choice(RELATIONS)
        pair = choose_pair(rng, scene, statement_table(name), answer)
        return pair and self._phrase(name, *pair, answer)

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        name = rng.choice(RELATIONS)
        scene = draw_distinct(rng, split, cells=statement_table(name).draw(rng, answer))
        subject, reference = scene.things[:2]
        return [Item(scene, self._phrase(name, subject, reference, answer))]

    def _phrase(self, name: str, a: Thing, b: Thing, answer: str) -> Turn:
        prompt = f"{a.colour} {PHRASE[name]} {b.colour}"
        return Turn(prompt, answer, self.answers, {"relation": name, "balanced": True})


class Direction(Task):
    """ "red relative-to blue": one of four.

    Half of the test questions are ``balanced``: drawn from `neighbour_table`, where a single cell says least.
    """

    name, column, kind = "direction", "cvbench_relation", "choice"
    answers = RELATIONS
    turns = 3.0
    splits = ("iid", "compositional")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        pair = choose_pair(rng, scene, direction_table(), answer)
        return pair and self._phrase(*pair, answer, balanced=False)

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        balanced = rng.random() < 0.5
        table = neighbour_table() if balanced else direction_table()
        scene = draw_distinct(rng, split, cells=table.draw(rng, answer))
        subject, reference = scene.things[:2]
        return [Item(scene, self._phrase(subject, reference, answer, balanced))]

    def _phrase(self, a: Thing, b: Thing, answer: str, balanced: bool) -> Turn:
        groups = {"relation": answer, "balanced": balanced}
        return Turn(f"{a.colour} relative-to {b.colour}", answer, self.answers, groups)


class MapHeading(Task):
    """ "way red to blue" on the map, north up."""

    name, column, kind = "reasoning", "topviewrs", "text"
    answers = ("north", "south", "east", "west")
    turns = 1.0

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        pair = choose_pair(rng, scene, direction_table(), START_LIES[answer])
        if pair is None:
            return None
        return Turn(f"way {pair[0].colour} to {pair[1].colour}", answer, self.answers)


def choose_pair(rng: Random, scene: Scene, table: PairTable, answer: str) -> tuple[Thing, Thing] | None:
    """Two objects of the scene for which the table's answer is ``answer``, or None.

    Pairs are proposed at random and accepted by their weight, so that over many scenes the pairs asked about follow the
    table. Choosing by weight among the pairs of each scene would not: a scene with unlikely pairs alone would be asked
    about as often as any, and the subject's cell would give the answer away in two of three training questions.
    """
    last = len(scene.things) - 1
    for _ in range(PROPOSALS):
        first, second = rng.randrange(last + 1), rng.randrange(last)
        a, b = scene.things[first], scene.things[last if second == first else second]
        if rng.random() * table.heaviest < table.weight(answer, a.cell, b.cell):
            return a, b
    return None
