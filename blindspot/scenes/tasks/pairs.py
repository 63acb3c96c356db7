"""Minimal pairs (MMVP): pictures that differ in one exchange, one question, opposite answers; both must be right."""

from random import Random

from blindspot.scenes.relations import PHRASE, RELATIONS, statement_table
from blindspot.scenes.tasks.base import Item, Task, Turn
from blindspot.scenes.world import CELL, HELD_OUT, Scene, Split, Thing, draw_distinct


class SwappedPlaces(Task):
    """A queried object exchanges its cell with a third one, so that a relation holds in one picture only.

    If the two queried objects changed places, the relation would turn into its opposite, and the cell of either alone
    would tell which picture it is.
    """

    name, column, kind = "swapped_places", "mmvp", "yes_no"
    answers = ("yes", "no")
    turns = 0.0

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        name, moving = rng.choice(RELATIONS), rng.randrange(2)
        other = "no" if answer == "yes" else "yes"
        table = statement_table(name)
        while True:
            before, after = table.draw(rng, answer), table.draw(rng, other)
            if before[1 - moving] == after[1 - moving]:
                break
        scene = draw_distinct(rng, split, cells=(*before, after[moving]))
        things = list(scene.things)
        things[moving], things[2] = _moved(things[moving], things[2]), _moved(things[2], things[moving])
        swapped = Scene(tuple(things), scene.background)
        prompt = f"{things[0].colour} {PHRASE[name]} {things[1].colour}"
        groups = {"relation": name, "balanced": True}
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


def _moved(thing: Thing, target: Thing) -> Thing:
    """``thing`` in the cell of ``target``, at the offset that it has in its own."""
    across, down = target.column - thing.column, target.row - thing.row
    return thing._replace(row=target.row, column=target.column, x=thing.x + across * CELL, y=thing.y + down * CELL)
