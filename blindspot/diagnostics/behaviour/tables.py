"""Tables of behaviour, from what was asked and what was answered."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from blindspot.diagnostics.base import Table, against, bounds, resampled_means, share
from blindspot.diagnostics.behaviour import plots as typed
from blindspot.diagnostics.core.stimuli import NUMBERS, Stimulus, answers
from blindspot.scenes.world import CELLS, GRID

RELATIONAL = ("direction", "statement")
PERMUTATIONS = 999
_WILSON = "Intervals: Wilson."
_BEYOND = (
    "Beyond: accuracy minus that on the same right answers anywhere, so that preferring an answer does not count; its "
    "interval is a bootstrap over stimuli."
)


@dataclass(frozen=True)
class Asked:
    """Stimuli of one task, and the logits of their choices, shape (stimuli, choices)."""

    stimuli: list[Stimulus]
    logits_bk: np.ndarray

    @cached_property
    def chosen_b(self) -> np.ndarray:
        """Index of the answer that is preferred."""
        return self.logits_bk.argmax(axis=1)

    @cached_property
    def truth_b(self) -> np.ndarray:
        return answers(self.stimuli)

    @cached_property
    def right_b(self) -> np.ndarray:
        return self.chosen_b == self.truth_b

    @cached_property
    def beyond_b(self) -> np.ndarray:
        """Right or wrong beyond how often the model is right where the answer is the same: 0 if it always says one."""
        found_b = self.right_b.astype(float)
        for truth in np.unique(self.truth_b):
            found_b[self.truth_b == truth] -= self.right_b[self.truth_b == truth].mean()
        return found_b

    def first(self, count: int) -> "Asked":
        return Asked(self.stimuli[:count], self.logits_bk[:count])


def condition_table(under: Mapping[str, Mapping[str, Asked]]) -> Table:
    """Accuracy with and without the picture, by task and condition; the first condition is the model as it is."""
    rows: list[typed.Condition] = []
    for task, conditions in under.items():
        plain, *_ = conditions.values()
        chance = 1 / plain.logits_bk.shape[1]
        for name, asked in conditions.items():
            gap = against(asked.right_b, plain.right_b)
            rows.append({"task": task, "condition": name, **share(asked.right_b), "chance": chance, **gap})
    return Table("conditions", "Accuracy as it is, blind, with noise, and with another question's picture", rows, (
        "Blind: the drawn world without objects, the same for all questions. Noise: every pixel at random.",
        "Answers are balanced, so a model that does not see is right by chance.",
        f"{_WILSON} Differences to the model as it is are paired, with McNemar's exact p.",
    ))  # fmt: skip


def cell_tables(asked: Mapping[str, Asked]) -> tuple[Table, Table]:
    """Accuracy by the cell of each object, and how much cells differ."""
    rows: list[typed.Cell] = []
    spread: list[typed.Spread] = []
    for task, role, level_b in _placed(asked):
        found = _by_level(asked[task], level_b, range(len(CELLS)))
        rows.extend(
            {"task": task, "object": role, "row": cell[0], "column": cell[1], **row}
            for cell, row in zip(CELLS, found, strict=True)
        )
        shares = [row["value"] for row in found if row["value"] is not None]
        spread.append({
            "task": task, "object": role, "value": max(shares) - min(shares), "low": None, "high": None,
            "n": int((level_b >= 0).sum()), "cells": len(shares), "deviation": float(np.std(shares)),
            "p": _same_everywhere(asked[task], level_b),
        })  # fmt: skip
    cells = Table("cells", "Accuracy by the place of each object", rows, (
        "Row 0 is at the top, column 0 at the left. Existence: of objects that are there. n 0: never asked.",
        _BEYOND, _WILSON))  # fmt: skip
    differ = Table("spread", "Highest minus lowest accuracy of all cells", spread, (
        "Some spread is chance, and some a preferred answer, since the answer depends on the place.",
        "p: of cells being alike for each answer; places permuted among stimuli of the same answer."))  # fmt: skip
    return cells, differ


def factor_table(asked: Mapping[str, Asked]) -> Table:
    """Accuracy by distance, margin, size and number of objects."""
    relational: dict[str, Callable[[Stimulus], int]] = {
        "distance": lambda stimulus: max(_apart(stimulus)),
        "margin": lambda stimulus: max(_apart(stimulus)) - min(_apart(stimulus)),
        "size": lambda stimulus: min(stimulus.subject.size, stimulus.reference.size),
        "objects": lambda stimulus: len(stimulus.scene.things),
    }
    alone: dict[str, Callable[[Stimulus], int]] = {
        "size": lambda stimulus: stimulus.subject.size,
        "objects": relational["objects"],
    }
    factors = {**dict.fromkeys(RELATIONAL, relational), "existence": alone}
    rows: list[typed.Factor] = []
    for task, of in factors.items():
        for factor, level in of.items():
            level_b = np.array([level(stimulus) for stimulus in asked[task].stimuli])
            levels = np.unique(level_b).tolist()
            found = _by_level(asked[task], level_b, levels)
            rows.extend(
                {"task": task, "factor": factor, "level": number, **row}
                for number, row in zip(levels, found, strict=True)
            )
    return Table("factors", "Accuracy by distance, margin, size, and number of objects", rows, (
        "Distance: cells along the axis that decides. Margin: that minus cells along the other axis.",
        "Size: pixels of the smaller object, of a cell's 8. Distance and margin go together.",
        _BEYOND, _WILSON))  # fmt: skip


def axis_table(given: Asked, transposed: Asked) -> Table:
    """Left and right against above and below, on the same objects with rows and columns exchanged."""
    flat_b = given.truth_b < 2
    rows: list[typed.Axis] = []
    for measure, first_b, second_b in (
        ("of four", given.right_b, transposed.right_b),
        ("of two", _right_of_two(given), _right_of_two(transposed)),
    ):
        across_b, down_b = np.where(flat_b, first_b, second_b), np.where(flat_b, second_b, first_b)
        gap = against(across_b, down_b)
        found: typed.Axis = {
            "measure": measure, "axis": "difference", "value": gap["difference"], "low": gap["difference_low"],
            "high": gap["difference_high"], "n": len(flat_b), "p": gap["p"],
        }  # fmt: skip
        rows.append({"measure": measure, "axis": "left, right", **share(across_b)})
        rows.append({"measure": measure, "axis": "above, below", **share(down_b)})
        rows.append(found)
    return Table("axes", "Accuracy on left and right against above and below", rows, (
        "Every picture is asked about twice, the second time with rows and columns exchanged.",
        "Of two: the better of the two answers on the right axis, so that preferring an axis does not count.",
        "Intervals: Wilson; of the paired difference, from its bootstrap error, with McNemar's exact p."))  # fmt: skip


def _right_of_two(asked: Asked) -> np.ndarray:
    """Whether the right one of left and right, or of above and below, has the higher logit."""
    pair_b2 = asked.truth_b[:, None] // 2 * 2 + np.arange(2)
    return np.take_along_axis(asked.logits_bk, pair_b2, axis=1).argmax(axis=1) == asked.truth_b % 2


def count_table(asked: Asked) -> Table:
    """How often each number is taken for each."""
    truth_b = answers(asked.stimuli)
    rows: list[typed.Count] = [
        {
            "truth": int(NUMBERS[truth]),
            "answer": int(NUMBERS[chosen]),
            **share((asked.chosen_b == chosen)[truth_b == truth]),
        }
        for truth in range(len(NUMBERS))
        for chosen in range(len(NUMBERS))
    ]
    return Table("counts", "Share of each answer, by the number of objects", rows, (_WILSON,))


def answer_table(asked: Mapping[str, Asked]) -> Table:
    """Which answers are given, whatever is right, and how often each is given where it is right."""
    rows: list[typed.Given] = []
    for task, found in asked.items():
        truth_b = found.truth_b
        for number, choice in enumerate(found.stimuli[0].choices):
            for measure, holds_b in (
                ("given", found.chosen_b == number),
                ("right", found.right_b[truth_b == number]),
            ):
                rows.append({"task": task, "answer": choice, "measure": measure, **share(holds_b)})
    return Table("answers", "How often each answer is given, and given where it is right", rows, (
        "Every answer is the right one equally often.", _WILSON))  # fmt: skip


def heatmaps(asked: Mapping[str, Asked]) -> dict[str, np.ndarray]:
    """Accuracy by cell, shape (rows, columns), NaN where never asked; by ``<task> <object>``."""
    found = {}
    for task, role, level_b in _placed(asked):
        rows = _by_level(asked[task], level_b, range(len(CELLS)))
        values = [np.nan if row["value"] is None else row["value"] for row in rows]
        found[f"{task} {role}"] = np.array(values).reshape(GRID, GRID)
    return found


def _by_level(asked: Asked, level_b: np.ndarray, levels: Sequence[int]) -> list[typed.Beyond]:
    """Share right at every level, and how far it is beyond that of the same answers."""
    inside_bl = level_b[:, None] == np.array(levels)
    low_l, high_l = bounds(_beyond_drawn(asked, inside_bl))
    rows: list[typed.Beyond] = []
    for number, inside_b in enumerate(inside_bl.T):
        found = (asked.beyond_b[inside_b].mean(), low_l[number], high_l[number]) if inside_b.any() else ()
        beyond, low, high = (float(value) for value in found) if found else (None, None, None)
        rows.append({**share(asked.right_b[inside_b]), "beyond": beyond, "beyond_low": low, "beyond_high": high})
    return rows


def _beyond_drawn(asked: Asked, inside_bl: np.ndarray) -> np.ndarray:
    """What is beyond the same answers at every level, with stimuli drawn anew; shape (replicates, levels)."""
    answer_bk = asked.truth_b[:, None] == np.arange(asked.logits_bk.shape[1])
    inside_blk = inside_bl[:, :, None] & answer_bk[:, None]
    count, levels, choices = inside_blk.shape
    series = (inside_bl * asked.right_b[:, None], answer_bk * asked.right_b[:, None], answer_bk, inside_blk)
    series_bs = np.hstack([part.reshape(count, -1) for part in series]).astype(float)
    drawn_rs = resampled_means(series_bs)
    ends = np.cumsum([levels, choices, choices])
    right_rl, right_rk, answer_rk, inside_rs = np.split(drawn_rs, ends, axis=1)
    inside_rlk = inside_rs.reshape(-1, levels, choices)
    expected_rl = (inside_rlk @ (right_rk / np.maximum(answer_rk, 1 / count))[..., None])[..., 0]
    return (right_rl - expected_rl) / np.maximum(inside_rlk.sum(axis=2), 1 / count)


def _placed(asked: Mapping[str, Asked]) -> list[tuple[str, str, np.ndarray]]:
    """Task, role of an object, and the index of its cell in every stimulus, -1 where it is not there."""
    found = []
    for task in RELATIONAL:
        for role in ("subject", "reference"):
            cells = [getattr(stimulus, role).cell for stimulus in asked[task].stimuli]
            found.append((task, role, np.array([CELLS.index(cell) for cell in cells])))
    there = [CELLS.index(s.subject.cell) if s.answer == "yes" else -1 for s in asked["existence"].stimuli]
    return [*found, ("existence", "subject", np.array(there))]


def _apart(stimulus: Stimulus) -> tuple[int, int]:
    (row, column), (other_row, other_column) = stimulus.subject.cell, stimulus.reference.cell
    return abs(row - other_row), abs(column - other_column)


def _same_everywhere(asked: Asked, level_b: np.ndarray) -> float:
    """p of levels being alike: how often they differ as much with levels permuted among stimuli of one answer."""
    placed_b = level_b >= 0
    beyond_b, truth_b = asked.beyond_b[placed_b], asked.truth_b[placed_b]
    _, level_b = np.unique(level_b[placed_b], return_inverse=True)
    inside_bl = np.eye(level_b.max() + 1)[level_b] / np.sqrt(np.bincount(level_b))
    drawn_rb = np.tile(beyond_b, (PERMUTATIONS, 1))
    rng = np.random.default_rng(0)
    for truth in np.unique(truth_b):
        drawn_rb[:, truth_b == truth] = rng.permuted(drawn_rb[:, truth_b == truth], axis=1)
    observed = np.square(beyond_b @ inside_bl).sum() - 1e-9
    return float((1 + (np.square(drawn_rb @ inside_bl).sum(axis=1) >= observed).sum()) / (1 + PERMUTATIONS))
