"""GQA in miniature: choose, compare, logical, query, verify."""

from random import Random

from blindspot.scenes.relations import axis_table
from blindspot.scenes.tasks.base import Item, Task, Turn, ordered_pairs
from blindspot.scenes.tasks.relations import choose_pair
from blindspot.scenes.world import COLOURS, HELD_OUT, SHAPES, Scene, Split, Thing, draw_distinct

AXES = (("left", "right"), ("above", "below"))


class ChooseSide(Task):
    """ "red left-or-right blue"."""

    name, column, kind = "choose_side", "gqa_choose", "choice"
    answers = ("left", "right", "above", "below")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        axis = AXES[0] if answer in AXES[0] else AXES[1]
        pair = choose_pair(rng, scene, axis_table(axis), answer)
        if pair is None:
            return None
        words = "-or-".join(axis)
        return Turn(f"{pair[0].colour} {words} {pair[1].colour}", answer, axis)


class ChooseShape(Task):
    """ "red square or circle": the wrong option is another object's shape.

    The two objects could have each other's shapes in training, so the exchanged scene is as likely as the scene.
    """

    name, column, kind = "choose_shape", "gqa_choose", "choice"
    answers = ("first", "second")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        pairs = [
            (a, b)
            for a, b in ordered_pairs(scene)
            if not HELD_OUT.intersection(((a.colour, b.shape), (b.colour, a.shape)))
        ]
        if not pairs:
            return None
        a, b = rng.choice(pairs)
        options = (a.shape, b.shape) if answer == "first" else (b.shape, a.shape)
        return Turn(f"{a.colour} {options[0]} or {options[1]}", a.shape, options)


class Compare(Task):
    """ "higher red or blue"."""

    name, column, kind = "compare", "gqa_compare", "choice"
    answers = ("first", "second")
    turns = 1.5

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        word, axis, sign = rng.choice((("higher", 0, -1), ("lower", 0, 1), ("more-left", 1, -1), ("more-right", 1, 1)))
        pairs = [(a, b) for a, b in ordered_pairs(scene) if sign * (a.cell[axis] - b.cell[axis]) > 0]
        if not pairs:
            return None
        winner, loser = (thing.colour for thing in rng.choice(pairs))
        options = (winner, loser) if answer == "first" else (loser, winner)
        return Turn(f"{word} {options[0]} or {options[1]}", winner, options)


class Logical(Task):
    """ "any red and square", "any red or square".

    Always a colour and a shape: of two present words, and of two absent ones, more than half are of different kinds,
    so with any two words their kinds would hint at the answer.
    """

    name, column, kind = "logical", "gqa_logical", "yes_no"
    answers = ("yes", "no")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        word = rng.choice(("and", "or"))
        both = {("and", "yes"): True, ("or", "no"): False}.get((word, answer))
        wanted = rng.choice(((True, False), (False, True))) if both is None else (both, both)
        pair = [
            rng.choice([name for name in names if any(thing.has(name) for thing in scene.things) == present])
            for names, present in zip((COLOURS, SHAPES), wanted, strict=True)
        ]
        rng.shuffle(pair)
        return Turn(f"any {pair[0]} {word} {pair[1]}", answer, self.answers)


class QueryShape(Task):
    """ "shape of red"."""

    name, column, kind = "query_shape", "gqa_query", "choice"
    answers = SHAPES
    splits = ("iid", "compositional")

    def targets(self, split: Split) -> tuple[str, ...]:
        return SHAPES[1:] if split == "compositional" else SHAPES

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in _asked(scene) if thing.shape == answer), None)
        return thing and Turn(f"shape of {thing.colour}", answer, _possible(SHAPES, thing.colour, thing))


class QueryColour(Task):
    """ "colour of square"."""

    name, column, kind = "query_colour", "gqa_query", "choice"
    answers = COLOURS
    splits = ("iid", "compositional")

    def targets(self, split: Split) -> tuple[str, ...]:
        return COLOURS[1:] if split == "compositional" else COLOURS

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in _asked(scene) if thing.colour == answer), None)
        return thing and Turn(f"colour of {thing.shape}", answer, _possible(COLOURS, thing.shape, thing))


class Exists(Task):
    """ "any red square". In tests, a "no" has both words in the picture, on different objects (binding)."""

    name, column, kind = "exists", "gqa_verify", "yes_no"
    answers = ("yes", "no")
    turns = 2.0
    splits = ("iid", "compositional")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        if answer == "yes":
            thing = rng.choice(scene.things)
            return self._phrase(thing.colour, thing.shape, answer, True)
        hard = rng.random() < 0.5
        colours = {thing.colour for thing in scene.things}
        shapes = {thing.shape for thing in scene.things}
        kinds = [
            (colour, shape)
            for colour in COLOURS
            for shape in SHAPES
            if ((colour in colours) + (shape in shapes) == (2 if hard else 1)) and (colour, shape) not in HELD_OUT
        ]
        bound = {(thing.colour, thing.shape) for thing in scene.things}
        kinds = [kind for kind in kinds if kind not in bound]
        return self._phrase(*rng.choice(kinds), answer, hard) if kinds else None

    def build(self, rng: Random, answer: str, split: Split) -> list[Item]:
        while True:
            scene = draw_distinct(rng, split if answer == "yes" else "iid")
            if answer == "yes":
                asked = scene.things[0].colour, scene.things[0].shape
                return [Item(scene, self._phrase(*asked, answer, True))]
            crossed = [(a.colour, b.shape) for a, b in ordered_pairs(scene)]
            kinds = [kind for kind in crossed if (kind in HELD_OUT) == (split == "compositional")]
            if kinds:
                return [Item(scene, self._phrase(*rng.choice(kinds), answer, True))]

    def _phrase(self, colour: str, shape: str, answer: str, balanced: bool) -> Turn:
        return Turn(f"any {colour} {shape}", answer, self.answers, {"balanced": balanced})


def _asked(scene: Scene) -> tuple[Thing, ...]:
    """The objects that may be asked about: a held-out pair alone where the scene has one, else all."""
    held_out = tuple(thing for thing in scene.things if (thing.colour, thing.shape) in HELD_OUT)
    return held_out or scene.things


def _possible(words: tuple[str, ...], given: str, thing: Thing) -> tuple[str, ...]:
    """The answers that training leaves open: all ``words`` but one that is held out with ``given``."""
    kept = tuple(word for word in words if (given, word) not in HELD_OUT and (word, given) not in HELD_OUT)
    return kept if (thing.colour, thing.shape) not in HELD_OUT else words
