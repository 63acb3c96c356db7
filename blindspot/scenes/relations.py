"""Relations between cells, and tables that ask about them without giving the answer away.

"Left of" means *mainly* left of: the columns differ by more than the rows (the dominant-axis rule of ShapeWorld).
With the plain order of columns as the rule, an object in the last column would never be left of anything, so its place
alone would answer; under the dominant-axis rule tables of cell pairs exist in which it says little.
"""

from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np

from blindspot.scenes.world import CELLS, GRID, Cell

RELATIONS = ("left", "right", "above", "below")
PHRASE = {"left": "left-of", "right": "right-of", "above": "above", "below": "below"}


def relation(subject: Cell, reference: Cell) -> str | None:
    """Where ``subject`` lies relative to ``reference``; None on an exact diagonal, which is never asked about."""
    down, across = reference[0] - subject[0], reference[1] - subject[1]
    if abs(across) > abs(down):
        return "left" if across > 0 else "right"
    if abs(down) > abs(across):
        return "above" if down > 0 else "below"
    return None


SHORTCUT = 0.612
"""What a rule on one object's cell, or on both objects' places along the wrong axis, scores on statements at most.

The wrong axis is that of columns for above and below, of rows for left and right. On four by four cells no weights hold
both kinds of rule to less than 11/18; with one object at 1/2 the wrong axis would reach 5/6.
"""


class PairTable:
    """Weights over ordered pairs of cells: how often each is asked about with each answer.

    ``weights[answer][a, b]`` is the probability of asking about subject cell ``a`` and reference cell ``b`` with that
    answer.
    """

    def __init__(self, answers: tuple[str, ...], weights: np.ndarray) -> None:
        self.answers = answers
        self.weights = weights
        self.heaviest = float(weights.max())
        self._weight = {
            answer: {(CELLS[i], CELLS[j]): float(table[i, j]) for i, j in zip(*np.nonzero(table), strict=True)}
            for answer, table in zip(answers, weights, strict=True)
        }

    def weight(self, answer: str, subject: Cell, reference: Cell) -> float:
        """Weight of asking about this pair with this answer; 0 where that is never done."""
        return self._weight[answer].get((subject, reference), 0.0)

    def draw(self, rng: Random, answer: str) -> tuple[Cell, Cell]:
        """Draw a pair of cells that has this answer, by weight."""
        pairs = self._weight[answer]
        return rng.choices(list(pairs), weights=list(pairs.values()))[0]


@cache
def statement_table(name: str) -> PairTable:
    """Pairs for "is A <name> B", yes and no equally often, under which shortcuts score `SHORTCUT` at most.

    One table, turned: what is asked about above is what is asked about left with rows for columns.
    """
    last = GRID - 1
    turned = {
        "left": lambda row, column: (row, column),
        "right": lambda row, column: (row, last - column),
        "above": lambda row, column: (column, row),
        "below": lambda row, column: (column, last - row),
    }[name]
    order = [CELLS.index(turned(*cell)) for cell in CELLS]
    return PairTable(("yes", "no"), _left_weights()[:, order][:, :, order])


@cache
def direction_table() -> PairTable:
    """Pairs for "where is A relative to B", four answers."""
    return _level_table(relation, RELATIONS)


@cache
def neighbour_table() -> PairTable:
    """Adjacent cells, all pairs equally likely, four answers: on a bounded grid a single cell can't say less.

    A cell at the edge rules answers out, so no weights bring a rule on one object's cell down to a quarter. The least
    that it can score on four by four cells is a third (a linear programme over all weights), and here it does. The
    price is that both columns, or both rows, answer three in four; with less than 0.55 for each of the two kinds of
    rule there are no weights.
    """

    def adjacent(a: Cell, b: Cell) -> str | None:
        return relation(a, b) if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 else None

    return _level_table(adjacent, RELATIONS)


@cache
def axis_table(answers: tuple[str, str]) -> PairTable:
    """Pairs for "is A left or right of B" (or above, below), two answers."""
    return _level_table(lambda a, b: name if (name := relation(a, b)) in answers else None, answers)


def _level_table(answer_of: Callable[[Cell, Cell], str | None], answers: tuple[str, ...]) -> PairTable:
    """The pairs that have an answer, so that every cell says as little as its place on the grid allows.

    Rows and columns are scaled in turn until, for every cell of the subject and for every cell of the reference, all
    answers that are possible there are equally likely (iterative proportional fitting). Near an edge some are not.
    """
    weights = _asked(answer_of, answers)
    for _ in range(2000):
        for axis in (2, 1):
            sums = weights.sum(axis, keepdims=True)
            possible = sums > 0
            target = sums.sum(0, keepdims=True) / np.maximum(possible.sum(0, keepdims=True), 1)
            weights = weights * np.divide(target, sums, out=np.zeros_like(sums), where=possible)
    return PairTable(answers, weights / weights.sum())


def _asked(answer_of: Callable[[Cell, Cell], str | None], answers: tuple[str, ...]) -> np.ndarray:
    return np.array([[[answer_of(a, b) == answer for b in CELLS] for a in CELLS] for answer in answers], float)


@cache
def _left_weights() -> np.ndarray:
    """Weights for "left", yes and no: the heaviest as light as `SHORTCUT` permits, so that many pairs are asked about.

    A linear programme over the weights, the gaps between yes and no wherever a rule sees the same (a rule scores half
    of 1 + its gaps), and the heaviest weight. Averaged over the symmetries of the question, the solution is one too.
    """
    from scipy.optimize import linprog
    from scipy.sparse import block_array, eye_array, kron

    asked = _asked(lambda a, b: (found := relation(a, b)) and ("yes" if found == "left" else "no"), ("yes", "no"))
    answer_n, a_n, b_n = np.nonzero(asked)
    row_n = np.array(CELLS)[:, 0]
    views = (a_n, b_n, GRID * row_n[a_n] + row_n[b_n])
    sign_n = 1 - 2 * answer_n
    gaps_kn = np.concatenate([(seen_n == np.arange(len(CELLS))[:, None]) * sign_n for seen_n in views])
    keys, pairs = gaps_kn.shape
    above = block_array(
        [
            [gaps_kn, -eye_array(keys), None],
            [-gaps_kn, -eye_array(keys), None],
            [None, kron(eye_array(len(views)), np.ones((1, len(CELLS)))), None],
            [eye_array(pairs), None, -np.ones((pairs, 1))],
        ]
    )
    limits = np.repeat([0, 2 * SHORTCUT - 1, 0], [2 * keys, len(views), pairs])
    equal = np.pad([np.ones(pairs), sign_n], ((0, 0), (0, keys + 1)))
    found = linprog(np.eye(pairs + keys + 1)[-1], above, limits, equal, [1, 0]).x[:pairs]
    weights = np.zeros_like(asked)
    weights[answer_n, a_n, b_n] = np.where(found > 1e-9, found, 0)
    weights = weights.reshape(2, GRID, GRID, GRID, GRID)
    weights = (weights + weights[:, ::-1, :, ::-1]) / 2
    weights = (weights + weights.transpose(0, 3, 4, 1, 2)[:, :, ::-1, :, ::-1]) / 2
    return weights.reshape(asked.shape)
