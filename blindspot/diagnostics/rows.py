"""The rows of every table, typed once: diagnostics write them, pages read them; for whoever may not import torch."""

from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

Number = Annotated[float, Field(strict=True)] | None
"""None, also in files for what was not finite, where there is no such number."""


class Value(TypedDict):
    """What every row has: a number, its 95 % interval, and the units that the interval is over."""

    value: Number
    low: Number
    high: Number
    n: int | None


class Against(TypedDict):
    """A paired difference to a condition of the same table, and its p."""

    difference: Number
    difference_low: Number
    difference_high: Number
    p: Number


class Beyond(Value):
    """Accuracy, and by how much it is above that on the same right answers anywhere."""

    beyond: Number
    beyond_low: Number
    beyond_high: Number


class Stage(Value):
    stage: str
    order: int
    tokens: str
    target: str
    readout: str
    error: Number
    control: Number
    selectivity: Number
    chance: Number
    held_out: bool


_Between = TypedDict("_Between", {"from": str, "to": str})


class Drop(_Between, Value):
    target: str


class Gap(Value):
    target: str
    stage: str
    readout: str
    probe: Number
    model: Number


class Outcomes(Value):
    unchanged: Number
    other: Number


class Follows(Outcomes):
    factor: str
    move: str
    elsewhere: Number
    asked: NotRequired[int]


class Arrangement(TypedDict):
    content: str
    ids: str
    encoder: str


_By = TypedDict("_By", {"by ids": Number, "by encoder": Number})


class Arranged(Arrangement, _By, Value):
    pass


class _Example(TypedDict):
    picture: int
    drawn: int
    prompt: str
    answer: str
    right: str | None


class Moved(Arrangement, _Example, Value):
    pass


class Turned(Value, _Example):
    symmetry: str


class Symmetry(Value):
    symmetry: str
    measure: str


class Together(Value):
    set: str
    measure: str
    guess: Number


class Coherence(Value):
    encoder: str
    layer: int | None
    near: Number
    far: Number


class Looked(Value):
    query: str
    object: str
    measure: str
    layer: int
    heads: str
    head: int | None


class Share(Value):
    query: str
    measure: str
    layer: int
    even: Number


class Rollout(Value):
    object: str
    measure: str
    layer: int


class Sensitivity(Value):
    form: str
    layer: int


class Scaled(Value, Against):
    task: str
    method: str
    form: str | None
    alpha: Number


class Norm(Value):
    layer: int
    image: Number
    text: Number


class Accuracy(Value):
    task: str
    condition: str


class Permuted(Value):
    task: str
    norms: str


class Patched(Value):
    part: str
    layer: int
    group: str
    flipped: Number
    tokens: Number


class Knocked(_Between, Value):
    first: int
    last: int
    margin: Number
    margin_low: Number
    margin_high: Number


class Lattice(Value):
    token: str
    layer: int
    chance: Number
    share: Number


class Steered(Value):
    token: str
    layer: int
    direction: str
    strength: float


class Condition(Accuracy, Against):
    chance: Number


class Cell(Beyond):
    task: str
    object: str
    row: int
    column: int


class Spread(Value):
    task: str
    object: str
    cells: int
    deviation: Number
    p: Number


class Factor(Beyond):
    task: str
    factor: str
    level: int


class Axis(Value):
    measure: str
    axis: str
    p: NotRequired[Number]


class Count(Value):
    truth: int
    answer: int


class Given(Value):
    task: str
    answer: str
    measure: str


ROWS: dict[str, dict[str, type]] = {
    "probes": {"stages": Stage, "drops": Drop, "gap": Gap},
    "counterfactuals": {"shares": Follows, "factorial": Arranged, "flips": Moved},
    "consistency": {"symmetries": Symmetry, "together": Together, "flips": Turned},
    "coherence": {"coherence": Coherence},
    "attention": {"objects": Looked, "shares": Share, "rollout": Rollout, "sensitivity": Sensitivity,
                  "scaling": Scaled},
    "norms": {"norms": Norm, "accuracy": Accuracy, "permutation": Permuted},
    "patching": {"patching": Patched, "knockout": Knocked, "spatial_id": Lattice, "steering": Steered},
    "behaviour": {"conditions": Condition, "cells": Cell, "spread": Spread, "factors": Factor, "axes": Axis,
                  "counts": Count, "answers": Given},
}  # fmt: skip
"""The type of a table's rows, by diagnostic and table."""
