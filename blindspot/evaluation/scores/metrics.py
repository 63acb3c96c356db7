"""A metric of one run with its interval, its chance level and what it can resolve."""

from typing import Any

import numpy as np
from scipy import stats

from blindspot.benchmarks.base import Metric
from blindspot.evaluation.scores.answers import Answers
from blindspot.evaluation.scores.baselines import chance_level, constant_answer
from blindspot.evaluation.statistics import CONFIDENCE, CORRELATION, Estimate, chance_corrected, resolves


def metric_row(answers: Answers, profile: str, metric: Metric) -> dict[str, Any]:
    """Everything there is to say of a metric, as in ``scores.json``."""
    items = answers.sample(profile, metric)
    found = items.estimate()
    asked_q = answers.questions.asked(metric.terms)
    n = int(asked_q.sum())
    constant = constant_answer(answers, metric)
    chance = chance_level(answers, metric)
    return {
        "value": found.value,
        "low": found.interval.low,
        "high": found.interval.high,
        "interval": found.interval.method,
        "error": found.error,
        "resolves": _resolves(found, metric.most),
        "n": n,
        "units": items.items,
        "clusters": items.clusters,
        "missing_terms": items.missing,
        "chance": chance,
        "chance_corrected": chance_corrected(found.value, chance, metric.most),
        "constant": None if constant is None else constant[0],
        "constant_answer": None if constant is None else constant[1],
        "unparsed": float(np.mean(~answers.scorings[profile].parsed_q[asked_q])) if n else None,
        "cut_off": float(np.mean(answers.facts_q["cut"][asked_q])) if n else None,
        "most": metric.most,
        "scale": metric.scale,
    }


def _resolves(found: Estimate, most: float) -> float | None:
    """The smallest true difference to another model that a paired test finds.

    Normal approximation. Assumes that the other model scores about the same and that the two models' values of a
    cluster correlate by ``CORRELATION``, so that the error of a difference is sqrt(2 (1 - CORRELATION)) times the error
    of one score. Where the sample shows no spread, a quarter of the interval's width stands for the error.
    """
    if found.error is None or found.interval.low is None or found.interval.high is None:
        return None
    error = found.error or (found.interval.high - found.interval.low) / (2 * stats.norm.ppf((1 + CONFIDENCE) / 2))
    return resolves(float(np.sqrt(2 * (1 - CORRELATION)) * error), most)
