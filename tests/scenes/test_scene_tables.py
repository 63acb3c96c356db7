"""Tables of cell pairs: what shortcuts tell about the answer, exactly."""

from collections.abc import Callable, Hashable
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

TABLES = [
    *(pytest.param(statement_table(name), id=name) for name in RELATIONS),
    pytest.param(direction_table(), id="direction"),
    pytest.param(neighbour_table(), id="neighbours"),
    pytest.param(axis_table(("left", "right")), id="axis"),
]
VIEWS: dict[str, Callable[[Cell, Cell], Hashable]] = {
    "subject": lambda a, b: a,
    "reference": lambda a, b: b,
    "rows": lambda a, b: (a[0], b[0]),
    "columns": lambda a, b: (a[1], b[1]),
}
"""What a rule sees of a pair."""


def _best_rule(table: PairTable, view: str) -> float:
    """Accuracy of the best answer that knows what ``view`` shows."""
    shares: dict[Hashable, np.ndarray] = {}
    for (i, a), (j, b) in ((first, second) for first in enumerate(CELLS) for second in enumerate(CELLS)):
        seen = VIEWS[view](a, b)
        shares[seen] = shares.get(seen, 0) + table.weights[:, i, j]
    return float(sum(share.max() for share in shares.values()))


def _holds(a: Cell, b: Cell) -> bool | None:
    return None if relation(a, b) is None else relation(a, b) == "above"


@pytest.mark.parametrize("name", RELATIONS)
def test_neither_one_cell_nor_the_wrong_axis_tells_whether_a_statement_holds(name: str) -> None:
    table = statement_table(name)
    for view in ("subject", "reference", "rows" if name in ("left", "right") else "columns"):
        assert _best_rule(table, view) <= 0.612 + 1e-9
    assert (table.weights.sum(0) > 0).sum() > 60, "many pairs are asked about"


@pytest.mark.parametrize("table", TABLES)
def test_weights_are_on_pairs_that_have_the_answer(table: PairTable) -> None:
    for answer, weights in zip(table.answers, table.weights, strict=True):
        assert weights.sum() == pytest.approx(1 / len(table.answers), abs=1e-9)
        for subject, reference in ((CELLS[i], CELLS[j]) for i, j in zip(*np.nonzero(weights), strict=True)):
            found = relation(subject, reference)
            assert found is not None
            assert answer in (found, "yes", "no")


@pytest.mark.parametrize("side", [1, 2])
def test_directions_are_flat_where_all_are_possible(side: int) -> None:
    by_cell = direction_table().weights.sum(side)
    interior = [CELLS.index((row, column)) for row in (1, 2) for column in (1, 2)]
    assert np.allclose(by_cell[:, interior] / by_cell[:, interior].sum(0), 0.25, rtol=0, atol=1e-9)
    assert (by_cell[:, 0] == 0).sum() == 2, "a corner rules out two directions"


@pytest.mark.parametrize(
    ("table", "one_object", "one_axis"), [(neighbour_table, 1 / 3, 3 / 4), (direction_table, 0.381, 0.694)]
)
def test_what_shortcuts_tell_of_directions(table: Callable[[], PairTable], one_object: float, one_axis: float) -> None:
    for view, bound in zip(VIEWS, (one_object, one_object, one_axis, one_axis), strict=True):
        assert _best_rule(table(), view) == pytest.approx(bound, abs=2e-3)


@pytest.mark.parametrize(
    ("answer_of", "caps", "least"),
    [
        (relation, {"subject": None, "reference": None}, 1 / 3),
        (relation, dict.fromkeys(VIEWS), 0.55),
        (_holds, {"subject": None, "reference": None, "columns": None}, 11 / 18),
        (_holds, {"subject": 0.5, "reference": 0.5, "columns": None}, 5 / 6),
    ],
)
def test_no_weights_say_less(
    answer_of: Callable[[Cell, Cell], Hashable], caps: dict[str, float | None], least: float
) -> None:
    """Minimise, over all weights of pairs, the accuracy of the best rule on the views without a cap."""
    pairs = [(a, b, found) for a in CELLS for b in CELLS if (found := answer_of(a, b)) is not None]
    answers = sorted({found for _, _, found in pairs}, key=str)
    # Variables: a weight per pair, then for each view and what it shows the share of its best answer, then the maximum.
    shown = [(view, seen) for view in caps for seen in sorted({VIEWS[view](a, b) for a, b, _ in pairs}, key=str)]
    size = len(pairs) + len(shown) + 1
    above, limits = [], []
    for place, (view, seen) in enumerate(shown, start=len(pairs)):
        for answer in answers:
            row = np.zeros(size)
            row[[k for k, (a, b, found) in enumerate(pairs) if (VIEWS[view](a, b), found) == (seen, answer)]] = 1
            row[place] = -1
            above.append(row)
            limits.append(0)
    for view, cap in caps.items():
        row = np.zeros(size)
        row[[place for place, (name, _) in enumerate(shown, start=len(pairs)) if name == view]] = 1
        row[-1] = -1 if cap is None else 0
        above.append(row)
        limits.append(cap or 0)
    equal = [[found == answer for _, _, found in pairs] + [False] * (len(shown) + 1) for answer in answers]
    found = linprog(np.eye(size)[-1], above, limits, np.array(equal, float), np.full(len(answers), 1 / len(answers)))
    assert found.fun == pytest.approx(least, abs=1e-6)


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
