"""Tables of cell pairs: what one object's cell tells about the answer, exactly."""

from random import Random

import numpy as np
import pytest
from scipy.optimize import linprog

from blindspot.scenes.relations import (
    RELATIONS,
    PairTable,
    axis_table,
    direction_table,
    neighbour_table,
    relation,
    statement_table,
)
from blindspot.scenes.world import CELLS, Cell

SUBJECT, REFERENCE = 2, 1  # the axis of weights (answer, subject, reference) that is summed away
TABLES = [
    *(pytest.param(statement_table(name), id=name) for name in RELATIONS),
    pytest.param(direction_table(), id="direction"),
    pytest.param(neighbour_table(), id="neighbours"),
    pytest.param(axis_table(("left", "right")), id="axis"),
]


def _best_rule(table: PairTable, side: int) -> float:
    """Accuracy of the best answer that knows one cell."""
    return float(table.weights.sum(side).max(0).sum())


@pytest.mark.parametrize("name", RELATIONS)
def test_no_single_cell_tells_whether_a_statement_holds(name: str) -> None:
    table = statement_table(name)
    assert np.isclose(table.weights.sum(), 1, atol=1e-12)
    for side in (SUBJECT, REFERENCE):
        by_cell = table.weights.sum(side)
        asked = by_cell.sum(0) > 0
        assert asked.sum() >= 8
        assert np.allclose(by_cell[:, asked] / by_cell[:, asked].sum(0), 0.5, rtol=0, atol=1e-9)
        assert _best_rule(table, side) == pytest.approx(0.5, abs=1e-9)


@pytest.mark.parametrize("table", TABLES)
def test_weights_are_on_pairs_that_have_the_answer(table: PairTable) -> None:
    for answer, weights in zip(table.answers, table.weights, strict=True):
        assert weights.sum() == pytest.approx(1 / len(table.answers), abs=1e-9)
        for subject, reference in ((CELLS[i], CELLS[j]) for i, j in zip(*np.nonzero(weights), strict=True)):
            found = relation(subject, reference)
            assert found is not None
            assert answer in (found, "yes", "no")


@pytest.mark.parametrize("side", [SUBJECT, REFERENCE])
def test_directions_are_flat_where_all_are_possible(side: int) -> None:
    by_cell = direction_table().weights.sum(side)
    interior = [CELLS.index((row, column)) for row in (1, 2) for column in (1, 2)]
    assert np.allclose(by_cell[:, interior] / by_cell[:, interior].sum(0), 0.25, rtol=0, atol=1e-9)
    assert (by_cell[:, 0] == 0).sum() == 2, "a corner rules out two directions"


@pytest.mark.parametrize("side", [SUBJECT, REFERENCE])
def test_neighbours_say_as_little_as_a_grid_allows(side: int) -> None:
    assert _best_rule(neighbour_table(), side) == pytest.approx(1 / 3, abs=1e-9)


def test_no_weights_say_less_than_neighbours_do() -> None:
    """Minimise, over all weights of pairs, the accuracy of the best rule on either cell: a linear programme."""
    pairs = [(i, j, name) for i, a in enumerate(CELLS) for j, b in enumerate(CELLS) if (name := relation(a, b))]
    # Variables: a weight per pair, then for each side and cell the share that its best answer gets, then the maximum.
    size, cells = len(pairs), len(CELLS)
    above, equal = [], []
    for side in (0, 1):
        for cell in range(cells):
            for name in RELATIONS:
                row = np.zeros(size + 2 * cells + 1)
                row[[k for k, pair in enumerate(pairs) if (pair[side], pair[2]) == (cell, name)]] = 1
                row[size + side * cells + cell] = -1
                above.append(row)
        row = np.zeros(size + 2 * cells + 1)
        row[size + side * cells : size + (side + 1) * cells] = 1
        row[-1] = -1
        above.append(row)
    for name in RELATIONS:
        equal.append(np.array([pair[2] == name for pair in pairs] + [False] * (2 * cells + 1), float))
    goal = np.eye(size + 2 * cells + 1)[-1]
    found = linprog(goal, np.array(above), np.zeros(len(above)), np.array(equal), np.full(len(RELATIONS), 0.25))
    assert found.fun == pytest.approx(1 / 3, abs=1e-6)


@pytest.mark.parametrize("table", TABLES)
def test_draws_follow_the_weights(table: PairTable) -> None:
    rng = Random(0)
    answer = table.answers[0]
    drawn = [table.draw(rng, answer) for _ in range(2000)]
    first = table.weights[0] / table.weights[0].sum()
    counts = np.zeros_like(first)
    for subject, reference in drawn:
        assert table.weight(answer, subject, reference) > 0
        counts[CELLS.index(subject), CELLS.index(reference)] += 1
    spread = np.sqrt(first * (1 - first) / len(drawn))
    assert (np.abs(counts / len(drawn) - first) <= 5 * spread + 1e-12).all()


def test_a_fixed_cell_is_kept() -> None:
    table, rng = statement_table("left"), Random(0)
    reference: Cell = table.draw(rng, "yes")[1]
    drawn = {table.draw(rng, "no", reference=reference) for _ in range(200)}
    assert {pair[1] for pair in drawn} == {reference}
    assert len(drawn) > 3
    subject: Cell = table.draw(rng, "yes")[0]
    assert {table.draw(rng, "yes", subject=subject)[0] for _ in range(20)} == {subject}
