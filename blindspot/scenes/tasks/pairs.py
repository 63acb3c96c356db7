"""Minimal pairs (MMVP): two pictures that differ in one exchange, one question, opposite answers; both must be right."""

from random import Random

from blindspot.scenes.relations import OPPOSITE, PHRASE, RELATIONS, relation, statement_table
from blindspot.scenes.tasks.base import Item, Referent, Task, Turn
from blindspot.scenes.world import HELD_OUT, Scene, Split, Thing, draw_distinct, place


class SwappedPlaces(Task):
    """Two objects exchange their cells, so a relation between them turns round."""

    name, column, kind = "swapped_places", "mmvp", "yes_no"
    answers = ("yes", "no")
    turns = 0.0

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        name = rng.choice(RELATIONS)
        table = statement_table(name)
        while True:
            cells = table.draw(rng, "yes")
            if table.weight("no", cells[1], cells[0]) > 0:
                break
        scene = draw_distinct(rng, split, cells=cells if answer == "yes" else cells[::-1])
        a, b, *rest = scene.things
        swapped = Scene((_moved(rng, a, b), _moved(rng, b, a), *rest), scene.background)
        call = Referent(rng)
        prompt = f"{call(a)} {PHRASE[name]} {call(b)}"
        groups = {"relation": name, "balanced": True}
        other = "no" if answer == "yes" else "yes"
        assert relation(a.cell, b.cell) == (name if answer == "yes" else OPPOSITE[name])
        return [
            Item(scene, Turn(prompt, answer, self.answers, groups)),
            Item(swapped, Turn(prompt, other, self.answers, groups)),
        ]


class SwappedColours(Task):
    """Two objects exchange their colours, so what is bound to what turns round."""

    name, column, kind = "swapped_colours", "mmvp", "yes_no"
    answers = ("yes", "no")
    turns = 0.0

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        while True:
            scene = draw_distinct(rng, split)
            a, b, *rest = scene.things
            swapped = (a._replace(colour=b.colour), b._replace(colour=a.colour))
            if not HELD_OUT.intersection((thing.colour, thing.shape) for thing in swapped):
                break
        asked = a if answer == "yes" else swapped[0]
        prompt = f"any {asked.colour} {asked.shape}"
        other = "no" if answer == "yes" else "yes"
        return [
            Item(scene, Turn(prompt, answer, self.answers, {"balanced": True})),
            Item(Scene((*swapped, *rest), scene.background), Turn(prompt, other, self.answers, {"balanced": True})),
        ]


def _moved(rng: Random, thing: Thing, target: Thing) -> Thing:
    return place(rng, thing.colour, thing.shape, target.cell)


