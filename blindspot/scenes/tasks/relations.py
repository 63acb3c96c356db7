"""Left, right, above, below: as statements (VSR), multiple choice (CV-Bench 2D) and map directions (TopViewRS)."""

from random import Random

from blindspot.scenes.relations import PHRASE, RELATIONS, PairTable, direction_table, statement_table
from blindspot.scenes.tasks.base import Item, Referent, Task, Turn, ordered_pairs
from blindspot.scenes.world import Scene, Split, Thing, draw_distinct


class Statement(Task):
    """ "red left-of blue": true or false, equally likely whatever the cell of either object."""

    name, column, kind = "statement", "vsr", "yes_no"
    answers = ("yes", "no")
    turns = 4.0
    splits = ("iid", "compositional")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        name = rng.choice(RELATIONS)
        pair = choose_pair(rng, scene, statement_table(name), answer)
        return pair and self._phrase(rng, name, *pair, answer)

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        name = rng.choice(RELATIONS)
        scene = draw_distinct(rng, split, cells=statement_table(name).draw(rng, answer))
        return [Item(scene, self._phrase(rng, name, *scene.things[:2], answer))]

    def _phrase(self, rng: Random, name: str, a: Thing, b: Thing, answer: str) -> Turn:
        call = Referent(rng)
        prompt = f"{call(a)} {PHRASE[name]} {call(b)}"
        return Turn(prompt, answer, self.answers, {"relation": name, "balanced": True})


class Direction(Task):
    """ "red relative-to blue": one of four. Groups mark questions that no single cell helps to answer."""

    name, column, kind = "direction", "cvbench_relation", "choice"
    answers = RELATIONS
    turns = 4.0
    splits = ("iid", "compositional")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        pair = choose_pair(rng, scene, direction_table(), answer)
        return pair and self._phrase(rng, *pair, answer)

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        cells = direction_table().draw(rng, answer, open_only=rng.random() < 0.5)
        scene = draw_distinct(rng, split, cells=cells)
        return [Item(scene, self._phrase(rng, *scene.things[:2], answer))]

    def _phrase(self, rng: Random, a: Thing, b: Thing, answer: str) -> Turn:
        call = Referent(rng)
        groups = {"relation": answer, "balanced": direction_table().all_possible(a.cell, b.cell)}
        return Turn(f"{call(a)} relative-to {call(b)}", answer, self.answers, groups)


class MapHeading(Task):
    """ "way red to blue" on the map, north up."""

    name, column, kind = "reasoning", "topviewrs", "text"
    answers = ("north", "south", "east", "west")
    turns = 1.0
    _AS_RELATION = {"north": "below", "south": "above", "east": "left", "west": "right"}

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        pair = choose_pair(rng, scene, direction_table(), self._AS_RELATION[answer])
        if pair is None:
            return None
        call = Referent(rng)
        return Turn(f"way {call(pair[0])} to {call(pair[1])}", answer, self.answers)


def choose_pair(rng: Random, scene: Scene, table: PairTable, answer: str) -> tuple[Thing, Thing] | None:
    """Two objects of the scene for which the table's answer is ``answer``, drawn by the table's weights."""
    pairs = ordered_pairs(scene)
    weights = [table.weight(answer, a.cell, b.cell) for a, b in pairs]
    return rng.choices(pairs, weights)[0] if any(weights) else None
