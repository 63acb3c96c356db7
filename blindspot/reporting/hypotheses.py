"""Verdicts on the claims of a study."""

from typing import Any

import numpy as np

from blindspot.evaluation.contrasts import Contrast, contrast
from blindspot.evaluation.statistics import ALPHA, holm
from blindspot.reporting.answers import Answers
from blindspot.reporting.plan import Hypothesis, Plan
from blindspot.reporting.units import units_of

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
    for row, p_holm in zip(rows, holm([row["p"] for row in rows]), strict=True):
        row["p_holm"] = p_holm
        row["verdict"] = _verdict(row)
    return rows


def _test(plan: Plan, answers: Answers, claim: Hypothesis, stage: str) -> Contrast | None:
    runs = {arm: {key.seed: key for key in answers.runs(arm, stage)} for arm in claim.contrast}
    seeds = sorted(set.intersection(*map(set, runs.values())))
    column = plan.column(claim.column)
    places_q = np.array(answers.iid(column))
    if not seeds or not len(places_q):
        return None
    units = units_of(answers, column, places_q)

    def at(seed: int) -> np.ndarray:
        keys = {arm: runs[arm][seed] for arm in claim.contrast}
        scores = {arm: units.values(answers.scores[key], answers.partial[key]) for arm, key in keys.items()}
        return np.sum([weight * scores[arm] for arm, weight in claim.contrast.items()], axis=0)

    effects_us = np.stack([at(seed) for seed in seeds], axis=1)
    effect_u, sample = effects_us.mean(axis=1), units.sample
    error = sample.error(effect_u, sample.replicates(effect_u[:, None])[:, 0])
    effects_s = [sample.mean(one_u) for one_u in effects_us.T]
    return contrast(effects_s, error, sum(max(weight, 0) for weight in claim.contrast.values()))


def _row(claim: Hypothesis, test: Contrast) -> Row:
    return {
        **claim.model_dump(),
        "effect": test.value,
        "low": test.low,
        "high": test.high,
        "df": test.df,
        "p": test.p,
    }


def _verdict(row: Row) -> str:
    if row["p_holm"] is None:
        return "not tested"
    if row["p_holm"] >= ALPHA:
        return "undecided"
    if row["predicts"] == "zero":
        return "refuted"
    return "supported" if (row["effect"] > 0) == (row["predicts"] == "positive") else "refuted"
