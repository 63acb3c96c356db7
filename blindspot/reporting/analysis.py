"""Scores, differences and noise of a run, as the rows of ``results.json`` (``docs/results.md``)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blindspot.evaluation.statistics import (
    Difference,
    Noise,
    Sample,
    chance_corrected,
    correct,
    noise_band,
    paired,
    run_noise,
)
from blindspot.reporting.answers import Answers, RunKey
from blindspot.reporting.plan import Column, Pair, Plan

Row = dict[str, Any]


@dataclass
class Analysis:
    """Rows for ``results.json``, in the order of the plan's columns."""

    scores: list[Row] = field(default_factory=list)
    differences: list[Row] = field(default_factory=list)
    noise: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class _Cell:
    """One column in one split: what every run scored, and what the runs of an arm after a stage did on average."""

    column: Column
    split: str
    places_q: np.ndarray
    runs: dict[RunKey, Sample]
    pooled: dict[tuple[str, str], Sample]


def analyse(plan: Plan, answers: Answers) -> Analysis:
    """Compute every row.

    Holm's correction runs over all pairs of one kind and all columns of one stage, and apart from that over the parts
    of one name.
    """
    analysis = Analysis()
    for column in plan.columns:
        for split, places_q in [*_splits(answers, column), *_parts(answers, column)]:
            cell = _cell(answers, column, split, places_q)
            analysis.scores.extend(_score_rows(plan, answers, cell))
            if split == "iid" or split in column.parts:
                noise = {stage: _noise(plan, answers, cell, stage) for stage in plan.stages()}
                if split == "iid":
                    analysis.noise.extend(_noise_row(plan, column, stage, noise[stage]) for stage in noise)
                analysis.differences.extend(_difference_rows(plan, answers, cell, noise))
    correct(analysis.differences, _family)
    return analysis


def _splits(answers: Answers, column: Column) -> Iterator[tuple[str, np.ndarray]]:
    places = answers.of_column(column)
    by_split: dict[str, list[int]] = defaultdict(list)
    for place in places:
        by_split[answers.groups(place).get("split", "iid")].append(place)
    for split in sorted(by_split, key=lambda split: (split != "iid", split)):
        yield split, np.array(by_split[split])
    if len(by_split) > 1:
        yield "all", np.array(places)


def _parts(answers: Answers, column: Column) -> Iterator[tuple[str, np.ndarray]]:
    """The parts of a column that have questions, as splits of their own."""
    for name, wanted in column.parts.items():
        part = [
            place
            for place in answers.iid(column)
            if all(answers.groups(place).get(group) in values for group, values in wanted.items())
        ]
        if part:
            yield name, np.array(part)


def _cell(answers: Answers, column: Column, split: str, places_q: np.ndarray) -> _Cell:
    runs = answers.samples(column, places_q)
    members: dict[tuple[str, str], list[Sample]] = defaultdict(list)
    for key, sample in runs.items():
        members[key.arm, key.stage].append(sample)
    pooled = {own: Sample.combined(each, [1 / len(each)] * len(each)) for own, each in members.items()}
    return _Cell(column, split, places_q, runs, pooled)


def _score_rows(plan: Plan, answers: Answers, cell: _Cell) -> Iterator[Row]:
    for stage in plan.stages():
        for arm in plan.arms:
            runs = answers.runs(arm.id, stage)
            if not runs:
                continue
            yield _score_row(answers, cell, runs, cell.pooled[arm.id, stage], None)
            for key in runs:
                yield _score_row(answers, cell, [key], cell.runs[key], key.seed)


def _score_row(answers: Answers, cell: _Cell, runs: list[RunKey], sample: Sample, seed: int | None) -> Row:
    found = sample.estimate()
    return {
        "arm": runs[0].arm,
        "column": cell.column.id,
        "stage": runs[0].stage,
        "split": cell.split,
        "seed": seed,
        "n": sample.items,
        "clusters": sample.clusters,
        "score": found.value,
        "low": found.interval.low,
        "high": found.interval.high,
        "interval": found.interval.method,
        "parse_failures": float(np.mean([~answers.parsed[key][cell.places_q] for key in runs])),
        "chance": cell.column.chance,
        "chance_corrected": chance_corrected(found.value, cell.column.chance),
    }


def _noise(plan: Plan, answers: Answers, cell: _Cell, stage: str) -> Noise:
    configurations: dict[str, list[float]] = defaultdict(list)
    for arm in plan.arms:
        scores = (cell.runs[key].value for key in answers.runs(arm.id, stage))
        configurations[arm.replicate_of or arm.id].extend(score for score in scores if score is not None)
    return run_noise(list(configurations.values()))


def _noise_row(plan: Plan, column: Column, stage: str, noise: Noise) -> Row:
    runs = len(plan.seeds())
    return {
        "column": column.id,
        "stage": stage,
        "split": "iid",
        "deviation": noise.deviation,
        "df": noise.df,
        "runs": noise.runs,
        "band": noise_band(noise, (runs, runs)),
    }


def _difference_rows(plan: Plan, answers: Answers, cell: _Cell, noise: dict[str, Noise]) -> Iterator[Row]:
    for stage in noise:
        for pair in plan.pairs:
            runs_a, runs_b = answers.runs(pair.a, stage), answers.runs(pair.b, stage)
            if runs_a and runs_b:
                sides = cell.pooled[pair.a, stage], cell.pooled[pair.b, stage]
                test = paired(*sides, noise[stage], (len(runs_a), len(runs_b)))
                seeds = [_seed_row(cell, a, b) for a, b in zip(runs_a, runs_b, strict=False)]
                yield _difference_row(cell, pair, stage, sides[0], test, seeds)


def _seed_row(cell: _Cell, a: RunKey, b: RunKey) -> Row:
    test = paired(cell.runs[a], cell.runs[b])
    row = {"seed_a": a.seed, "seed_b": b.seed, "difference": test.value, "low": test.low, "high": test.high}
    return row | {"p_questions": test.p_questions}


def _difference_row(cell: _Cell, pair: Pair, stage: str, sample: Sample, test: Difference, seeds: list[Row]) -> Row:
    return {
        "a": pair.a,
        "b": pair.b,
        "label": pair.label,
        "kind": pair.kind,
        "column": cell.column.id,
        "stage": stage,
        "split": cell.split,
        "n": sample.items,
        "clusters": sample.clusters,
        "difference": test.value,
        "low": test.low,
        "high": test.high,
        "error": test.error,
        "error_questions": test.error_questions,
        "df": test.df,
        "p": test.p,
        "p_questions": test.p_questions,
        "noise_included": test.noise_included,
        "seeds": seeds,
    }


def _family(row: Row) -> tuple[str, str, str] | None:
    return None if row["kind"] == "replicate" else (row["stage"], row["kind"], row["split"])
