"""The procedural world: a scene graph is the truth, everything else is derived from it.

A scene lies on a grid of cells. Every object sits in a cell of its own, a little off its centre, so every queried
relation between cells has a margin: no object is ever between "left of" and "above".
"""

from collections.abc import Sequence
from random import Random
from typing import Literal, NamedTuple

GRID = 4
CELL = 8
CANVAS = GRID * CELL
SHAPES = ("circle", "square", "triangle", "cross", "diamond", "ring")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES = (6, 7, 8)
CELLS = tuple((row, column) for row in range(GRID) for column in range(GRID))

HELD_OUT = frozenset(zip(COLOURS[1:], SHAPES[1:], strict=True))
"""Colour-shape pairs that training never shows. ``circle`` and ``red`` are the anchors: they occur in every pair."""

Split = Literal["train", "iid", "compositional"]
Cell = tuple[int, int]
Size = tuple[int, int]
"""Height and width in pixels."""


class Thing(NamedTuple):
    """One object: what it is, its cell, and its box in canvas pixels (``x``, ``y``: top left corner)."""

    colour: str
    shape: str
    row: int
    column: int
    size: int
    x: int
    y: int

    @property
    def cell(self) -> Cell:
        return self.row, self.column

    @property
    def box(self) -> tuple[int, int, int, int]:
        """``x0, y0, x1, y1`` in pixels of the picture at scale 1; ``x1`` and ``y1`` are exclusive."""
        return self.x, self.y, self.x + self.size, self.y + self.size

    def has(self, word: str) -> bool:
        """Whether the object is of this colour or of this shape."""
        return word in (self.colour, self.shape)


class Scene(NamedTuple):
    """A picture's scene graph, and its size at scale 1."""

    things: tuple[Thing, ...]
    background: int
    height: int = CANVAS
    width: int = CANVAS

    def graph(self) -> dict[str, object]:
        """The scene as plain JSON values; ``relations`` lists ``[subject, relation, object]`` by index."""
        from blindspot.scenes.relations import relation

        pairs = ((i, j) for i in range(len(self.things)) for j in range(len(self.things)) if i != j)
        return {
            "background": self.background,
            "objects": [thing._asdict() for thing in self.things],
            "relations": [
                [i, name, j] for i, j in pairs if (name := relation(self.things[i].cell, self.things[j].cell))
            ],
        }


def place(rng: Random, colour: str, shape: str, cell: Cell) -> Thing:
    """Put an object of random size at a random offset inside ``cell``."""
    size = rng.choice(SIZES)
    row, column = cell
    x = column * CELL + int(rng.random() * (CELL - size + 1))
    y = row * CELL + int(rng.random() * (CELL - size + 1))
    return Thing(colour, shape, row, column, size, x, y)


def draw_distinct(rng: Random, split: Split, cells: Sequence[Cell] = (), count: int | None = None) -> Scene:
    """Draw a scene in which every colour and every shape occurs at most once.

    Args:
        split: ``compositional`` makes the first object a held-out pair; the other splits never show one.
        cells: cells of the first objects, in order; the others get cells at random.
        count: number of objects; 2 to 5 at random if not given.
    """
    count = count or rng.randint(max(2, len(cells)), 5)
    kinds = _distinct_kinds(rng, count, split)
    free = [cell for cell in CELLS if cell not in cells]
    places = [*cells, *rng.sample(free, count - len(cells))]
    things = [place(rng, *kind, cell) for kind, cell in zip(kinds, places, strict=True)]
    return Scene(tuple(things), background=rng.randint(16, 56))


def draw_crowd(rng: Random, kinds: Sequence[tuple[str, str]]) -> Scene:
    """Draw a scene with an object of each ``(colour, shape)`` of ``kinds``, repeats allowed."""
    things = [place(rng, *kind, cell) for kind, cell in zip(kinds, rng.sample(CELLS, len(kinds)), strict=True)]
    rng.shuffle(things)
    return Scene(tuple(things), background=rng.randint(16, 56))


def put(rng: Random, scenes: Sequence[Scene], sizes: Sequence[Size]) -> list[Scene]:
    """The scenes in larger pictures of one of some ``sizes``: their cells, together, anywhere in it, alike in all.

    So objects lie across patches, and nothing but other objects says where one is. Without sizes the cells fill the
    picture.
    """
    if not sizes:
        return list(scenes)
    height, width = rng.choice(sizes)
    down, across = int(rng.random() * (height - CANVAS + 1)), int(rng.random() * (width - CANVAS + 1))
    return [
        Scene(tuple(thing._replace(x=thing.x + across, y=thing.y + down) for thing in scene.things), scene.background,
              height, width)
        for scene in scenes
    ]  # fmt: skip


def draw_kind(rng: Random) -> tuple[str, str]:
    """A random colour and shape that training may show."""
    while True:
        kind = rng.choice(COLOURS), rng.choice(SHAPES)
        if kind not in HELD_OUT:
            return kind


def _distinct_kinds(rng: Random, count: int, split: Split) -> list[tuple[str, str]]:
    while True:
        kinds: list[tuple[str, str]] = list(zip(rng.sample(COLOURS, count), rng.sample(SHAPES, count), strict=True))
        if split == "compositional":
            kinds[0] = rng.choice(sorted(HELD_OUT))
            colours, shapes = zip(*kinds, strict=True)
            if len(set(colours)) < count or len(set(shapes)) < count:
                continue
            if not HELD_OUT.intersection(kinds[1:]):
                return kinds
        elif not HELD_OUT.intersection(kinds):
            return kinds
