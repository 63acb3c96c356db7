"""Tasks: each asks about scenes, and builds scenes for an answer that was drawn first.

Objects are named by their colour, which is unique where objects are asked about one by one. The columns are the
benchmarks that the tasks are miniatures of.
"""

from collections import Counter
from collections.abc import Mapping
from random import Random
from types import MappingProxyType
from typing import Any, ClassVar, Literal, NamedTuple

from blindspot.question import Kind
from blindspot.scenes.relations import (
    PHRASE,
    RELATIONS,
    PairTable,
    axis_table,
    direction_table,
    neighbour_table,
    relation,
    statement_table,
)
from blindspot.scenes.text import place_word
from blindspot.scenes.world import (
    CELL,
    CELLS,
    COLOURS,
    HELD_OUT,
    SHAPES,
    Scene,
    Split,
    Thing,
    draw_crowd,
    draw_distinct,
    draw_kind,
)


class Turn(NamedTuple):
    """One question about one scene, with its answer and labels to report by."""

    prompt: str
    answer: str
    choices: tuple[str, ...] = ()
    groups: Mapping[str, Any] = MappingProxyType({})


class Example(NamedTuple):
    """A scene and the question asked about it. Examples that `Task.build` returns together are one cluster."""

    scene: Scene
    turn: Turn


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
    names_cells: ClassVar[bool] = False
    """Whether it asks about cells by name, which are nowhere to be seen where they do not fill the picture."""
    splits: ClassVar[tuple[Split, ...]] = ("iid",)

    def targets(self, split: Split) -> tuple[str, ...]:
        """The answers that questions of this split can have."""
        return self.answers

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        """A question about ``scene`` that has this answer, or None if the scene admits none.

        ``answer`` is one of ``answers``: usually the answer itself, else a label that fixes it ("first", "second").
        """
        raise NotImplementedError

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        """Scenes made for a question with this answer: test questions are answer-first, so exactly balanced."""
        while True:
            scene = self.draw(rng, answer, split)
            if (turn := self.ask(rng, scene, answer)) is not None:
                return [Example(scene, turn)]

    def moved(self, turn: Turn, scene: Scene) -> Turn:
        """The question after its scene was `put` elsewhere."""
        return turn

    def draw(self, rng: Random, answer: str, split: Split) -> Scene:
        """A random scene in which `ask` may find a question with this answer."""
        return draw_distinct(rng, split)


class YesNo(Task):
    """A task whose answers are yes and no."""

    kind = "yes_no"
    answers = ("yes", "no")


def ordered_pairs(scene: Scene) -> list[tuple[Thing, Thing]]:
    """All ordered pairs of different objects."""
    return [(a, b) for a in scene.things for b in scene.things if a is not b]


def choose_pair(rng: Random, scene: Scene, table: PairTable, answer: str) -> tuple[Thing, Thing] | None:
    """Two objects of the scene for which the table's answer is ``answer``, or None.

    Pairs are proposed at random and accepted by their weight, so that over many scenes the pairs asked about follow the
    table. Choosing by weight among the pairs of each scene would not: a scene with unlikely pairs alone would be asked
    about as often as any, and the subject's cell would give the answer away in two of three training questions.
    """
    last = len(scene.things) - 1
    for _ in range(16):
        first, second = rng.randrange(last + 1), rng.randrange(last)
        a, b = scene.things[first], scene.things[last if second == first else second]
        if rng.random() * table.heaviest < table.weight(answer, a.cell, b.cell):
            return a, b
    return None


# Minimal pairs (MMVP): pictures that differ in one exchange, one question, opposite answers; both must be right.


class SwappedPlaces(YesNo):
    """A queried object exchanges its cell with a third one, so that a relation holds in one picture only.

    If the two queried objects changed places, the relation would turn into its opposite, and the cell of either alone
    would tell which picture it is.
    """

    name, column = "swapped_places", "mmvp"
    turns = 0.0

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        name, moving = rng.choice(RELATIONS), rng.randrange(2)
        other = "no" if answer == "yes" else "yes"
        table = statement_table(name)
        while True:
            before, after = table.draw(rng, answer), table.draw(rng, other)
            if before[1 - moving] == after[1 - moving]:
                break
        scene = draw_distinct(rng, split, cells=(*before, after[moving]))
        things = list(scene.things)
        prompt = f"{things[0].colour} {PHRASE[name]} {things[1].colour}"
        things[moving], things[2] = _moved(things[moving], things[2]), _moved(things[2], things[moving])
        groups = {"relation": name, "balanced": True}
        return [
            Example(scene, Turn(prompt, answer, self.answers, groups)),
            Example(Scene(tuple(things), scene.background), Turn(prompt, other, self.answers, groups)),
        ]


def _moved(thing: Thing, target: Thing) -> Thing:
    """``thing`` in the cell of ``target``, at the offset that it has in its own."""
    across, down = target.column - thing.column, target.row - thing.row
    return thing._replace(row=target.row, column=target.column, x=thing.x + across * CELL, y=thing.y + down * CELL)


class SwappedColours(YesNo):
    """Two objects exchange their colours, so what is bound to what turns round."""

    name, column = "swapped_colours", "mmvp"
    turns = 0.0

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        while True:
            scene = draw_distinct(rng, split)
            a, b, *rest = scene.things
            swapped = (a._replace(colour=b.colour), b._replace(colour=a.colour))
            if not HELD_OUT.intersection((thing.colour, thing.shape) for thing in swapped):
                break
        asked = a if answer == "yes" else swapped[0]
        prompt, other = f"any {asked.colour} {asked.shape}", "no" if answer == "yes" else "yes"
        return [
            Example(scene, Turn(prompt, answer, self.answers, {"balanced": True})),
            Example(Scene((*swapped, *rest), scene.background), Turn(prompt, other, self.answers, {"balanced": True})),
        ]


# Left, right, above, below: as multiple choice (CV-Bench 2D), statements (VSR) and map directions (TopViewRS).


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

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        balanced = rng.random() < 0.5
        table = neighbour_table() if balanced else direction_table()
        scene = draw_distinct(rng, split, cells=table.draw(rng, answer))
        return [Example(scene, self._phrase(scene.things[0], scene.things[1], answer, balanced))]

    def _phrase(self, a: Thing, b: Thing, answer: str, balanced: bool) -> Turn:
        groups = {"relation": answer, "balanced": balanced}
        return Turn(f"{a.colour} relative-to {b.colour}", answer, self.answers, groups)


class Statement(YesNo):
    """ "red left-of blue": true or false, asked so that neither object's cell, nor the wrong axis, tells."""

    name, column = "statement", "vsr"
    turns = 6.0
    splits = ("iid", "compositional")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        name = rng.choice(RELATIONS)
        pair = choose_pair(rng, scene, statement_table(name), answer)
        return pair and self._phrase(name, *pair, answer)

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        name = rng.choice(RELATIONS)
        scene = draw_distinct(rng, split, cells=statement_table(name).draw(rng, answer))
        return [Example(scene, self._phrase(name, scene.things[0], scene.things[1], answer))]

    def _phrase(self, name: str, a: Thing, b: Thing, answer: str) -> Turn:
        prompt = f"{a.colour} {PHRASE[name]} {b.colour}"
        return Turn(prompt, answer, self.answers, {"relation": name, "balanced": True})


class MapHeading(Task):
    """ "way red to blue" on the map, north up."""

    name, column, kind = "reasoning", "topviewrs", "text"
    answers = ("north", "south", "east", "west")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        start_lies = {"north": "below", "south": "above", "east": "left", "west": "right"}[answer]
        pair = choose_pair(rng, scene, direction_table(), start_lies)
        return pair and Turn(f"way {pair[0].colour} to {pair[1].colour}", answer, self.answers)


# Absolute places: the cells of a top-view map (TopViewRS) and boxes (object localisation).


class Recognise(Task):
    """ "at b1": the colour there."""

    name, column, kind = "recognition", "topviewrs", "text"
    answers = COLOURS
    turns = 1.5
    names_cells = True

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in scene.things if thing.colour == answer), None)
        return thing and Turn(f"at {place_word(thing.cell)}", answer, self.answers)


class Locate(Task):
    """ "cell of red": its name, as on a chessboard."""

    name, column, kind = "localisation", "topviewrs", "text"
    answers = tuple(place_word(cell) for cell in CELLS)
    turns = 2.0
    names_cells = True

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = next((thing for thing in scene.things if place_word(thing.cell) == answer), None)
        return thing and Turn(f"cell of {thing.colour}", answer, self.answers)


class Box(Task):
    """ "box of red": ``x0 y0 x1 y1`` in pixels of the canvas."""

    name, column, kind = "box", "boxes", "boxes"
    answers = ("any",)

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        thing = rng.choice(scene.things)
        return Turn(f"box of {thing.colour}", " ".join(str(edge) for edge in thing.box))

    def moved(self, turn: Turn, scene: Scene) -> Turn:
        thing = next(thing for thing in scene.things if turn.prompt == f"box of {thing.colour}")
        return turn._replace(answer=" ".join(str(edge) for edge in thing.box))


# Counting: all objects (CV-Bench 2D), by kind and by relation (TallyQA), and crowds of 2 to 10 (CountBenchQA).


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


class Crowd(Task):
    """How many objects of a scene have a colour or a shape."""

    kind = "count"
    scenes = "crowd"

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        counts = Counter(word for thing in scene.things for word in (thing.colour, thing.shape))
        words = [word for word in COLOURS + SHAPES if counts[word] == int(answer)]
        return Turn(f"how-many {rng.choice(words)}", answer) if words else None


class CountKind(Crowd):
    """ "how-many square": 0 to 5 of them among others."""

    name, column = "count_kind", "tallyqa_simple"
    answers = ("0", "1", "2", "3", "4", "5")
    turns = 3.0

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        word = rng.choice(COLOURS + SHAPES)
        kinds = [_kind(rng, word, True) for _ in range(int(answer))]
        kinds += [_kind(rng, word, False) for _ in range(rng.randint(1, 4))]
        return [Example(draw_crowd(rng, kinds), Turn(f"how-many {word}", answer))]


class CountCrowd(Crowd):
    """ "how-many red": 2 to 10 objects of one kind, with up to two others."""

    name, column = "count_crowd", "countbenchqa"
    answers = tuple(str(n) for n in range(2, 11))

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        kind = draw_kind(rng)
        word = rng.choice(kind)
        others = [_kind(rng, word, False) for _ in range(rng.randint(0, 2))]
        return [Example(draw_crowd(rng, [kind] * int(answer) + others), Turn(f"how-many {word}", answer))]


def _kind(rng: Random, word: str, wanted: bool) -> tuple[str, str]:
    """A kind that has a word, or one that has it not."""
    while True:
        kind = draw_kind(rng)
        if (word in kind) == wanted:
            return kind


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


# GQA: choose, compare, logical, query, verify.


class ChooseSide(Task):
    """ "red left-or-right blue"."""

    name, column, kind = "choose_side", "gqa_choose", "choice"
    answers = ("left", "right", "above", "below")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        axis = ("left", "right") if answer in ("left", "right") else ("above", "below")
        pair = choose_pair(rng, scene, axis_table(axis), answer)
        return pair and Turn(f"{pair[0].colour} {'-or-'.join(axis)} {pair[1].colour}", answer, axis)


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


class Logical(YesNo):
    """ "any red and square", "any red or square".

    Always a colour and a shape: of two present words, and of two absent ones, more than half are of different kinds,
    so with any two words their kinds would hint at the answer.
    """

    name, column = "logical", "gqa_logical"

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


class Query(Task):
    """The colour of a shape, or the shape of a colour; of a held-out pair alone where the scene has one."""

    column, kind = "gqa_query", "choice"
    splits = ("iid", "compositional")

    def targets(self, split: Split) -> tuple[str, ...]:
        return self.answers[1:] if split == "compositional" else self.answers

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        held_out = tuple(thing for thing in scene.things if (thing.colour, thing.shape) in HELD_OUT)
        thing = next((thing for thing in held_out or scene.things if thing.has(answer)), None)
        if thing is None:
            return None
        what, given = ("shape", thing.colour) if answer == thing.shape else ("colour", thing.shape)
        choices = self.answers
        if not held_out:  # the answers that training leaves open
            choices = tuple(word for word in choices if not HELD_OUT.intersection(((given, word), (word, given))))
        return Turn(f"{what} of {given}", answer, choices)


class QueryShape(Query):
    """ "shape of red"."""

    name = "query_shape"
    answers = SHAPES


class QueryColour(Query):
    """ "colour of square"."""

    name = "query_colour"
    answers = COLOURS


class Exists(YesNo):
    """ "any red square". In tests, a "no" has both words in the picture, on different objects (binding)."""

    name, column = "exists", "gqa_verify"
    turns = 2.0
    splits = ("iid", "compositional")

    def ask(self, rng: Random, scene: Scene, answer: str) -> Turn | None:
        if answer == "yes":
            thing = rng.choice(scene.things)
            return self._phrase(thing.colour, thing.shape, answer, True)
        hard = rng.random() < 0.5
        bound = {(thing.colour, thing.shape) for thing in scene.things}
        colours, shapes = map(set, zip(*bound, strict=True))
        kinds = [
            (colour, shape)
            for colour in COLOURS
            for shape in SHAPES
            if (colour in colours) + (shape in shapes) == (2 if hard else 1)
        ]
        kinds = [kind for kind in kinds if kind not in HELD_OUT and kind not in bound]
        return self._phrase(*rng.choice(kinds), answer, hard) if kinds else None

    def build(self, rng: Random, answer: str, split: Split) -> list[Example]:
        while True:
            scene = draw_distinct(rng, split if answer == "yes" else "iid")
            if answer == "yes":
                return [Example(scene, self._phrase(scene.things[0].colour, scene.things[0].shape, answer, True))]
            crossed = [(a.colour, b.shape) for a, b in ordered_pairs(scene)]
            kinds = [kind for kind in crossed if (kind in HELD_OUT) == (split == "compositional")]
            if kinds:
                return [Example(scene, self._phrase(*rng.choice(kinds), answer, True))]

    def _phrase(self, colour: str, shape: str, answer: str, balanced: bool) -> Turn:
        return Turn(f"any {colour} {shape}", answer, self.answers, {"balanced": balanced})


TASKS: tuple[Task, ...] = (
    SwappedPlaces(),
    SwappedColours(),
    Direction(),
    CountObjects(),
    CountKind(),
    CountRelated(),
    ChooseSide(),
    ChooseShape(),
    Compare(),
    Logical(),
    QueryShape(),
    QueryColour(),
    Exists(),
    Statement(),
    Recognise(),
    Locate(),
    MapHeading(),
    CountCrowd(),
    Box(),
)
"""All tasks; a new one is one class and one line here."""
