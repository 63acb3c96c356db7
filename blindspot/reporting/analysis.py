"""Scores, differences and noise of a run, as the rows of ``results.json`` (``docs/results.md``)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blindspot.evaluation.statistics import (
    ALPHA,
    Difference,
    Noise,
    Sample,
    chance_corrected,
    difference,
    holm,
    is_binary,
    mcnemar_exact,
    noise_band,
    run_noise,
)
from blindspot.reporting.answers import Answers, RunKey
from blindspot.reporting.plan import Column, Pair, Plan
from blindspot.reporting.units import units_of

Row = dict[str, Any]


@dataclass
class Analysis:
    """Rows for ``results.json``, in the order of the plan's columns."""

    scores: list[Row] = field(default_factory=list)
    differences: list[Row] = field(default_factory=list)
    noise: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class _Cell:
    """One column in one split: ``u`` are units, questions or (for pair accuracy) whole pairs."""

    column: Column
    split: str
    places_q: np.ndarray
    sample: Sample
    scores: dict[RunKey, np.ndarray]
    replicates: dict[RunKey | tuple[str, str], np.ndarray]
    pooled: dict[tuple[str, str], np.ndarray]


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
    _correct(analysis.differences)
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
    units = units_of(answers, column, places_q)
    sample = units.sample
    scores = {key: units.values(scores_q, answers.partial[key]) for key, scores_q in answers.scores.items()}
    members: dict[tuple[str, str], list[RunKey]] = defaultdict(list)
    for key in scores:
        members[key.arm, key.stage].append(key)
    pooled = {arm_stage: np.mean([scores[key] for key in keys], axis=0) for arm_stage, keys in members.items()}
    series: dict[RunKey | tuple[str, str], np.ndarray] = {**scores, **pooled}
    replicates_rs = sample.replicates(np.stack(list(series.values()), axis=1))
    return _Cell(column, split, places_q, sample, scores, dict(zip(series, replicates_rs.T, strict=True)), pooled)


def _score_rows(plan: Plan, answers: Answers, cell: _Cell) -> Iterator[Row]:
    for stage in plan.stages():
        for arm in plan.arms:
            runs = answers.runs(arm.id, stage)
            if not runs:
                continue
            yield _score_row(answers, cell, runs, cell.pooled[arm.id, stage], cell.replicates[arm.id, stage], None)
            for key in runs:
                yield _score_row(answers, cell, [key], cell.scores[key], cell.replicates[key], key.seed)


def _score_row(
    answers: Answers, cell: _Cell, runs: list[RunKey], scores_u: np.ndarray, replicates_r: np.ndarray, seed: int | None
) -> Row:
    score = cell.sample.mean(scores_u)
    interval = cell.sample.interval(scores_u, replicates_r)
    return {
        "arm": runs[0].arm,
        "column": cell.column.id,
        "stage": runs[0].stage,
        "split": cell.split,
        "seed": seed,
        "n": cell.sample.n,
        "clusters": cell.sample.num_clusters,
        "score": score,
        "low": interval.low,
        "high": interval.high,
        "interval": interval.method,
        "parse_failures": float(np.mean([~answers.parsed[key][cell.places_q] for key in runs])),
        "chance": cell.column.chance,
        "chance_corrected": chance_corrected(score, cell.column.chance),
    }


def _noise(plan: Plan, answers: Answers, cell: _Cell, stage: str) -> Noise:
    configurations: dict[str, list[float]] = defaultdict(list)
    for arm in plan.arms:
        scores = [cell.sample.mean(cell.scores[key]) for key in answers.runs(arm.id, stage)]
        configurations[arm.replicate_of or arm.id].extend(scores)
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
    compared = [
        (pair, stage, answers.runs(pair.a, stage), answers.runs(pair.b, stage))
        for stage in noise
        for pair in plan.pairs
    ]
    compared = [entry for entry in compared if entry[2] and entry[3]]
    if not compared:
        return
    series: list[np.ndarray] = []
    for pair, stage, runs_a, runs_b in compared:
        series.append(cell.pooled[pair.a, stage] - cell.pooled[pair.b, stage])
        series += [cell.scores[a] - cell.scores[b] for a, b in zip(runs_a, runs_b, strict=False)]
    flips = iter(cell.sample.sign_flip_p(np.stack(series, axis=1)))
    for pair, stage, runs_a, runs_b in compared:
        p_pooled = next(flips)
        seeds = [_seed_row(cell, a, b, next(flips)) for a, b in zip(runs_a, runs_b, strict=False)]
        if len(runs_a) == len(runs_b) == 1:
            p_pooled = seeds[0]["p_questions"]
        pooled_u = cell.pooled[pair.a, stage] - cell.pooled[pair.b, stage]
        test = difference(
            cell.sample.mean(pooled_u),
            cell.sample.error(pooled_u, cell.replicates[pair.a, stage] - cell.replicates[pair.b, stage]),
            cell.sample.num_clusters,
            p_pooled,
            noise[stage],
            (len(runs_a), len(runs_b)),
        )
        yield _difference_row(cell, pair, stage, test, seeds)


def _seed_row(cell: _Cell, a: RunKey, b: RunKey, p_flips: float | None) -> Row:
    scores_a, scores_b = cell.scores[a], cell.scores[b]
    exact = cell.sample.single and is_binary(scores_a) and is_binary(scores_b)
    p_questions = mcnemar_exact(scores_a, scores_b) if exact else p_flips
    value = cell.sample.mean(scores_a - scores_b)
    error = cell.sample.error(scores_a - scores_b, cell.replicates[a] - cell.replicates[b])
    test = difference(value, error, cell.sample.num_clusters, p_questions)
    row = {"seed_a": a.seed, "seed_b": b.seed, "difference": value, "low": test.low, "high": test.high}
    return row | {"p_questions": p_questions}


def _difference_row(cell: _Cell, pair: Pair, stage: str, test: Difference, seeds: list[Row]) -> Row:
    return {
        "a": pair.a,
        "b": pair.b,
        "label": pair.label,
        "kind": pair.kind,
        "column": cell.column.id,
        "stage": stage,
        "split": cell.split,
        "n": cell.sample.n,
        "clusters": cell.sample.num_clusters,
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


def _correct(rows: list[Row]) -> None:
    families: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        row["p_holm"], row["significant"] = None, False
        if row["kind"] != "replicate":
            families[row["stage"], row["kind"], row["split"]].append(row)
    for family in families.values():
        for row, p_holm in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p_holm"], row["significant"] = p_holm, p_holm is not None and p_holm < ALPHA
