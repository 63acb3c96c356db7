"""Behaviour: where, how far apart, how small and in what company may objects be, and how much does the picture matter?

Every question is asked as it is, and the first of them again with the picture taken away (``blind``: the drawn world
without objects, the same for all), drawn anew as noise, or exchanged for another question's.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random

import numpy as np
import torch

from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, against, bounds, resampled, share, steps
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, rearranged
from blindspot.diagnostics.core.stimuli import NUMBERS, TASKS, Speech, Stimulus, answers, direction
from blindspot.scenes.render import render
from blindspot.scenes.world import CANVAS, CELLS, Scene

PER_CELL = 4
"""Questions about objects are asked this many times as often as the budget says: every cell is looked at by itself."""
BACKGROUND = 36
PERMUTATIONS = 999
RELATIONAL = ("direction", "statement")
CONDITIONS = ("blind", "noise", "mismatched")
_WILSON = "Intervals: Wilson."
_BEYOND = (
    "Beyond: accuracy minus that on the same right answers anywhere, so that preferring an answer does not count; its "
    "interval is a bootstrap over stimuli."
)
Cells = tuple[str, str, np.ndarray, list[Row]]
"""Task, role of an object, the index of its cell in every stimulus (-1: not there), and accuracy by cell."""


class Answered:
    """Stimuli of one task, and the logits of their choices, shape (stimuli, choices).

    ``beyond_b``: right or wrong beyond how often the model is right where the answer is the same, 0 if it says but one.
    """

    def __init__(self, stimuli: list[Stimulus], logits_bk: np.ndarray) -> None:
        self.stimuli, self.logits_bk = stimuli, logits_bk
        self.chosen_b, self.truth_b = logits_bk.argmax(axis=1), answers(stimuli)
        self.right_b = self.chosen_b == self.truth_b
        self.beyond_b = self.right_b.astype(float)
        for truth in np.unique(self.truth_b):
            self.beyond_b[self.truth_b == truth] -= self.right_b[self.truth_b == truth].mean()


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    step = steps(report, len(TASKS) + 1)

    def ask(stimuli: list[Stimulus], pictures: Sequence[np.ndarray] | None = None) -> Answered:
        runs = [vlm.run(prepared) for prepared in vlm.batches(stimuli, budget.batch, pictures)]
        return Answered(stimuli, torch.cat([trace.logits_bk for trace in runs]).cpu().numpy())

    asked: dict[str, Answered] = {}
    first: dict[str, Answered] = {}
    conditions: list[Row] = []
    for task, draw in TASKS.items():
        times = 1 if task == "count" else PER_CELL
        asked[task] = ask(draw(times * budget.stimuli, budget.seed, vlm.speech))
        stimuli = asked[task].stimuli[: budget.stimuli]
        first[task] = Answered(stimuli, asked[task].logits_bk[: budget.stimuli])
        under = {name: ask(stimuli, shown(name, stimuli, vlm.side, budget.seed)) for name in CONDITIONS}
        for name, found in {"as it is": first[task], **under}.items():
            conditions.append({"task": task, "condition": name, **share(found.right_b),
                               "chance": 1 / found.logits_bk.shape[1],
                               **against(found.right_b, first[task].right_b)})  # fmt: skip
        step()
    turned = ask([transposed(stimulus, vlm.speech) for stimulus in first["direction"].stimuli])
    step()
    return Findings(
        [
            Table("conditions", "Accuracy as it is, blind, with noise, and with another question's picture", conditions,
                  ("Blind: the drawn world without objects, the same for all questions. Noise: every pixel at random.",
                   "Answers are balanced, so a model that does not see is right by chance.",
                   f"{_WILSON} Differences to the model as it is are paired, with McNemar's exact p.")),
            *_cell_tables(asked, _by_cell(asked)),
            Table("factors", "Accuracy by distance, margin, size, and number of objects", _factors(asked),
                  ("Distance: cells along the axis that decides. Margin: that minus cells along the other axis.",
                   "Size: pixels of the smaller object, of a cell's 8. Distance and margin go together.",
                   _BEYOND, _WILSON)),
            Table("axes", "Accuracy on left and right against above and below", _axes(first["direction"], turned),
                  ("Every picture is asked about twice, the second time with rows and columns exchanged.",
                   "Of two: the better of the two answers on the right axis, so that preferring an axis does not "
                   "count.",
                   "Intervals: Wilson; of the paired difference, from its bootstrap error, with McNemar's exact p.")),
            Table("counts", "Share of each answer, by the number of objects", _counts(asked["count"]), (_WILSON,)),
            Table("answers", "How often each answer is given, and given where it is right", _given(asked),
                  ("Every answer is the right one equally often.", _WILSON)),
        ],
    )  # fmt: skip


def shown(condition: str, stimuli: Sequence[Stimulus], side: int, seed: int) -> list[np.ndarray]:
    """What is shown under one of `CONDITIONS`: nothing, pixels drawn one by one, or another question's picture.

    Noise has the resolution of the drawn world. Mismatched shows every picture once, whatever its answer.
    """
    if condition == "blind":
        return [render(Scene((), BACKGROUND), side // CANVAS)] * len(stimuli)
    if condition == "noise":
        drawn = np.random.default_rng([seed, 1]).integers(0, 256, (len(stimuli), CANVAS, CANVAS, 3), dtype=np.uint8)
        return [picture.repeat(side // CANVAS, axis=0).repeat(side // CANVAS, axis=1) for picture in drawn]
    order = list(range(len(stimuli)))
    Random(f"diagnostics/mismatched/{seed}").shuffle(order)
    other = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return [stimuli[other[number]].image(side) for number in range(len(stimuli))]


def transposed(stimulus: Stimulus, speech: Speech) -> Stimulus:
    """The same objects with rows and columns exchanged: what was left or right is above or below."""
    return direction(rearranged(stimulus.scene, SYMMETRIES["transposed"]), speech)


def _by_cell(asked: Mapping[str, Answered]) -> list[Cells]:
    found: list[Cells] = []
    for task, role in (*((task, role) for task in RELATIONAL for role in ("subject", "reference")),
                       ("existence", "subject")):  # fmt: skip
        there = ((getattr(s, role).cell, s.answer != "no" or task != "existence") for s in asked[task].stimuli)
        cell_b = np.array([CELLS.index(cell) if is_there else -1 for cell, is_there in there])
        found.append((task, role, cell_b, _by_level(asked[task], cell_b, range(len(CELLS)))))
    return found


def _cell_tables(asked: Mapping[str, Answered], cells: list[Cells]) -> tuple[Table, Table]:
    rows: list[Row] = []
    spread: list[Row] = []
    for task, role, cell_b, found in cells:
        of = {"task": task, "object": role}
        rows += [{**of, "row": cell[0], "column": cell[1], **row} for cell, row in zip(CELLS, found, strict=True)]
        shares = [row["value"] for row in found if row["value"] is not None]
        spread.append({
            **of, "value": max(shares) - min(shares), "low": None, "high": None, "n": int((cell_b >= 0).sum()),
            "cells": len(shares), "deviation": float(np.std(shares)), "p": _same_everywhere(asked[task], cell_b),
        })  # fmt: skip
    placed = Table("cells", "Accuracy by the place of each object", rows, (
        "Row 0 is at the top, column 0 at the left. Existence: of objects that are there. n 0: never asked.",
        _BEYOND, _WILSON))  # fmt: skip
    differ = Table("spread", "Highest minus lowest accuracy of all cells", spread, (
        "Some spread is chance, and some a preferred answer, since the answer depends on the place.",
        "p: of cells being alike for each answer; places permuted among stimuli of the same answer."))  # fmt: skip
    return placed, differ


def _factors(asked: Mapping[str, Answered]) -> list[Row]:

    def apart(stimulus: Stimulus) -> list[int]:
        pairs = zip(stimulus.subject.cell, stimulus.reference.cell, strict=True)
        return sorted(abs(one - other) for one, other in pairs)

    relational: dict[str, Callable[[Stimulus], int]] = {
        "distance": lambda stimulus: apart(stimulus)[1],
        "margin": lambda stimulus: apart(stimulus)[1] - apart(stimulus)[0],
        "size": lambda stimulus: min(stimulus.subject.size, stimulus.reference.size),
        "objects": lambda stimulus: len(stimulus.scene.things),
    }
    alone = {"size": lambda stimulus: stimulus.subject.size, "objects": relational["objects"]}
    rows: list[Row] = []
    for task, factors in {**dict.fromkeys(RELATIONAL, relational), "existence": alone}.items():
        for factor, level in factors.items():
            level_b = np.array([level(stimulus) for stimulus in asked[task].stimuli])
            levels = np.unique(level_b).tolist()
            found = zip(levels, _by_level(asked[task], level_b, levels), strict=True)
            rows += [{"task": task, "factor": factor, "level": number, **row} for number, row in found]
    return rows


def _axes(given: Answered, turned: Answered) -> list[Row]:

    def right_of_two(asked: Answered) -> np.ndarray:
        """Whether the right one of left and right, or of above and below, has the higher logit."""
        pair_b2 = asked.truth_b[:, None] // 2 * 2 + np.arange(2)
        return np.take_along_axis(asked.logits_bk, pair_b2, axis=1).argmax(axis=1) == asked.truth_b % 2

    flat_b = given.truth_b < 2
    rows: list[Row] = []
    for measure, first_b, second_b in (
        ("of four", given.right_b, turned.right_b),
        ("of two", right_of_two(given), right_of_two(turned)),
    ):
        across_b, down_b = np.where(flat_b, first_b, second_b), np.where(flat_b, second_b, first_b)
        gap = against(across_b, down_b)
        rows += [
            {"measure": measure, "axis": "left, right", **share(across_b)},
            {"measure": measure, "axis": "above, below", **share(down_b)},
            {"measure": measure, "axis": "difference", "value": gap["difference"], "low": gap["difference_low"],
             "high": gap["difference_high"], "n": len(flat_b), "p": gap["p"]},
        ]  # fmt: skip
    return rows


def _counts(asked: Answered) -> list[Row]:
    return [
        {"truth": int(truth), "answer": int(answer), **share((asked.chosen_b == a)[asked.truth_b == t])}
        for t, truth in enumerate(NUMBERS)
        for a, answer in enumerate(NUMBERS)
    ]


def _given(asked: Mapping[str, Answered]) -> list[Row]:
    rows: list[Row] = []
    for task, found in asked.items():
        for number, choice in enumerate(found.stimuli[0].choices):
            of, right_b = {"task": task, "answer": choice}, found.right_b[found.truth_b == number]
            rows.append({**of, "measure": "given", **share(found.chosen_b == number)})
            rows.append({**of, "measure": "right", **share(right_b)})
    return rows


def _by_level(asked: Answered, level_b: np.ndarray, levels: Sequence[int]) -> list[Row]:
    """Share right at every level, and how far it is beyond that of the same answers."""
    inside_bl = level_b[:, None] == np.array(levels)
    low_l, high_l = bounds(_beyond_drawn(asked, inside_bl))
    rows: list[Row] = []
    for inside_b, low, high in zip(inside_bl.T, low_l.tolist(), high_l.tolist(), strict=True):
        found = (float(asked.beyond_b[inside_b].mean()), low, high) if inside_b.any() else (None, None, None)
        beyond = dict(zip(("beyond", "beyond_low", "beyond_high"), found, strict=True))
        rows.append({**share(asked.right_b[inside_b]), **beyond})
    return rows


def _beyond_drawn(asked: Answered, inside_bl: np.ndarray) -> np.ndarray:
    """What is beyond the same answers at every level, with stimuli drawn anew; shape (replicates, levels)."""
    answer_bk = asked.truth_b[:, None] == np.arange(asked.logits_bk.shape[1])
    inside_blk = inside_bl[:, :, None] & answer_bk[:, None]
    count, levels, choices = inside_blk.shape
    series = (inside_bl * asked.right_b[:, None], answer_bk * asked.right_b[:, None], answer_bk, inside_blk)
    drawn_rs = resampled(np.hstack([part.reshape(count, -1) for part in series]).astype(float))
    right_rl, right_rk, answer_rk, inside_rs = np.split(drawn_rs, np.cumsum([levels, choices, choices]), axis=1)
    inside_rlk = inside_rs.reshape(-1, levels, choices)
    expected_rl = (inside_rlk @ (right_rk / np.maximum(answer_rk, 1 / count))[..., None])[..., 0]
    return (right_rl - expected_rl) / np.maximum(inside_rlk.sum(axis=2), 1 / count)


def _same_everywhere(asked: Answered, level_b: np.ndarray) -> float:
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
