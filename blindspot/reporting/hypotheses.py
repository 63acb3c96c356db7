"""Verdicts on the claims of a study."""

from typing import Any

import numpy as np

from blindspot.evaluation.statistics import Difference, Sample, contrast, correct
from blindspot.reporting.answers import Answers
from blindspot.reporting.plan import Hypothesis, Plan

Row = dict[str, Any]


def verdicts(plan: Plan, answers: Answers) -> list[Row]:
    """One row a hypothesis: effect after the last stage, its interval, Holm's p over all of them, and the verdict.

    A claim is ``supported`` if the effect differs from zero, after Holm's correction, with the sign that it predicts;
    ``refuted`` if it differs with the other sign, or at all where none was predicted; else ``undecided``. Where a claim
    predicts no effect, ``supported`` is never said: the interval says how large an effect there can still be.
    """
    stage = plan.stages()[-1] if plan.stages() else ""
    tested = [(claim, _test(plan, answers, claim, stage)) for claim in plan.hypotheses]
    rows = [_row(claim, test) for claim, test in tested if test is not None]
    correct(rows, lambda row: "claims")
    for row in rows:
        row["verdict"] = _verdict(row, row.pop("significant"))
    return rows


def _test(plan: Plan, answers: Answers, claim: Hypothesis, stage: str) -> Difference | None:
    runs = {arm: {key.seed: key for key in answers.runs(arm, stage)} for arm in claim.contrast}
    seeds = sorted(set.intersection(*map(set, runs.values())))
    column = plan.column(claim.column)
    places_q = np.array(answers.iid(column))
    if not seeds or not len(places_q):
        return None
    samples, weights = answers.samples(column, places_q), list(claim.contrast.values())
    effects_s = [Sample.combined([samples[runs[arm][seed]] for arm in claim.contrast], weights) for seed in seeds]
    error = Sample.combined(effects_s, [1 / len(seeds)] * len(seeds)).difference_error()
    values_s = [effect.value or 0.0 for effect in effects_s]
    return contrast(values_s, error, sum(max(weight, 0) for weight in claim.contrast.values()))


def _row(claim: Hypothesis, test: Difference) -> Row:
    return {
        **claim.model_dump(),
        "effect": test.value,
        "low": test.low,
        "high": test.high,
        "df": test.df,
        "p": test.p,
    }


def _verdict(row: Row, significant: bool) -> str:
    if row["p_holm"] is None:
        return "not tested"
    if not significant:
        return "undecided"
    if row["predicts"] == "zero":
        return "refuted"
    return "supported" if (row["effect"] > 0) == (row["predicts"] == "positive") else "refuted"
