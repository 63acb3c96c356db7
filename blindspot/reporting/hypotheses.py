"""Verdicts on the claims of a study."""

from typing import Any

import numpy as np

from blindspot.evaluation.contrasts import Contrast, blocked_noise, contrast
from blindspot.evaluation.statistics import Sample, holm
from blindspot.reporting.answers import Answers, RunKey
from blindspot.reporting.plan import Hypothesis, Plan
from blindspot.reporting.units import units_of

ALPHA = 0.05
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
    runs = {arm.id: answers.runs(arm.id, stage) for arm in plan.arms}
    seeds = min((len(runs[arm]) for arm in claim.contrast), default=0)
    if not seeds:
        return None
    places_q = np.array([n for n, q in enumerate(answers.questions) if _counts(q, claim.column)])
    if not len(places_q):
        return None
    units = units_of(answers, plan.column(claim.column), places_q)
    sample = Sample(units.clusters)

    def pooled(keys: list[RunKey]) -> np.ndarray:
        return np.mean([units.lowest(answers.scores[key][places_q]) for key in keys], axis=0)

    effect_u = np.sum([weight * pooled(runs[arm][:seeds]) for arm, weight in claim.contrast.items()], axis=0)
    error = sample.error(effect_u, sample.replicates(effect_u[:, None])[:, 0])
    complete = [keys[:seeds] for keys in runs.values() if len(keys) >= seeds]
    scores_as = [[float(pooled([key]).mean()) for key in keys] for keys in complete]
    weights = list(claim.contrast.values())
    return contrast(float(effect_u.mean()), error, sample.num_clusters, blocked_noise(scores_as), weights, seeds)


def _counts(question: dict[str, Any], column: str) -> bool:
    return question["benchmark"] == column and (question.get("groups") or {}).get("split", "iid") == "iid"


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
