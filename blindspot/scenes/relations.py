"""Relations between cells, and tables that ask about them without giving the answer away.

"Left of" means *mainly* left of: the columns differ by more than the rows (the dominant-axis rule of ShapeWorld).
With the plain order of columns as the rule, an object in the last column would never be left of anything, so its place
alone would answer; under the dominant-axis rule a table of cell pairs exists in which it does not.
"""

from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np

from blindspot.scenes.world import CELLS, Cell

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


class PairTable:
    """Weights over ordered pairs of cells under which one object's cell says as little as possible.

    ``weights[answer][a, b]`` is the probability of asking about subject cell ``a`` and reference cell ``b`` with that
    answer. Rows and columns are scaled in turn until, for every cell of the subject and for every cell of the
    reference, all answers that are possible there are equally likely (iterative proportional fitting).

    Args:
        answer_of: the answer for a subject and a reference cell, or None where the pair is not asked about.
        answers: all answers.
        exact: keep only cells at which *every* answer is possible, so that no rule on a single object's place beats
            chance. Otherwise keep all: near an edge some answers are impossible and a single place says something.
    """

    def __init__(self, answer_of: Callable[[Cell, Cell], str | None], answers: tuple[str, ...], exact: bool) -> None:
        tables = np.array([[[answer_of(a, b) == answer for b in CELLS] for a in CELLS] for answer in answers], float)
        if exact:
            tables = _keep_undecided(tables)
        self.answers = answers
        self.weights = _equalise(tables)
        self._pairs = {
            answer: [(CELLS[i], CELLS[j], float(table[i, j])) for i, j in zip(*np.nonzero(table), strict=True)]
            for answer, table in zip(answers, self.weights, strict=True)
        }
        self.heaviest = float(self.weights.max())
        self._weight = {answer: {(a, b): w for a, b, w in rows} for answer, rows in self._pairs.items()}

    def weight(self, answer: str, subject: Cell, reference: Cell) -> float:
        """Weight of asking about this pair with this answer; 0 where that is never done."""
        return self._weight[answer].get((subject, reference), 0.0)

    def draw(
        self, rng: Random, answer: str, subject: Cell | None = None, reference: Cell | None = None
    ) -> tuple[Cell, Cell]:
        """Draw a pair of cells that has this answer, by weight; with ``subject`` or ``reference`` fixed where given."""
        pairs = [row for row in self._pairs[answer] if subject in (None, row[0]) and reference in (None, row[1])]
        drawn = rng.choices(pairs, weights=[weight for _, _, weight in pairs])[0]
        return drawn[0], drawn[1]


@cache
def statement_table(name: str) -> PairTable:
    """Pairs for "is A <name> B": yes and no are equally likely whatever either object's cell."""
    return PairTable(lambda a, b: _yes_no(relation(a, b), name), ("yes", "no"), exact=True)


@cache
def direction_table() -> PairTable:
    """Pairs for "where is A relative to B", four answers."""
    return PairTable(relation, RELATIONS, exact=False)


@cache
def neighbour_table() -> PairTable:
    """Adjacent cells, all pairs equally likely, four answers: on a bounded grid a single cell can't say less.

    A cell at the edge rules answers out, so no weights bring a rule on one object's cell down to a quarter. The least
    that it can score on four by four cells is a third (a linear programme over all weights), and here it does.
    """
    return PairTable(lambda a, b: relation(a, b) if _adjacent(a, b) else None, RELATIONS, exact=False)


@cache
def axis_table(answers: tuple[str, str]) -> PairTable:
    """Pairs for "is A left or right of B" (or above, below), two answers."""
    return PairTable(lambda a, b: name if (name := relation(a, b)) in answers else None, answers, exact=False)


def _adjacent(a: Cell, b: Cell) -> bool:
    return abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1


def _yes_no(found: str | None, asked: str) -> str | None:
    return None if found is None else ("yes" if found == asked else "no")


def _keep_undecided(tables: np.ndarray) -> np.ndarray:
    """Drop, until nothing changes, every subject and reference cell at which some answer is impossible."""
    while True:
        rows = (tables.sum(2) > 0).all(0)
        columns = (tables.sum(1) > 0).all(0)
        kept = tables * rows[None, :, None] * columns[None, None, :]
        if np.array_equal(kept, tables):
            return kept
        tables = kept


def _equalise(tables: np.ndarray, rounds: int = 2000) -> np.ndarray:
    for _ in range(rounds):
        for axis in (2, 1):
            sums = tables.sum(axis, keepdims=True)
            possible = sums > 0
            target = sums.sum(0, keepdims=True) / np.maximum(possible.sum(0, keepdims=True), 1)
            tables = tables * np.divide(target, sums, out=np.zeros_like(sums), where=possible)
    return tables / tables.sum()
