"""A metric of one run with its interval, its chance level and what it can resolve."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from blindspot.benchmarks.base import Metric
from blindspot.evaluation.scores.answers import Answers
from blindspot.evaluation.scores.baselines import chance_level, constant_answer
from blindspot.evaluation.scores.resampling import resampled_sums
from blindspot.evaluation.scores.units import Totals, asked, most_of, totals
from blindspot.evaluation.statistics import ALPHA, CONFIDENCE, Interval, chance_corrected, wilson

POWER = 0.8
CORRELATION = 0.5
"""Assumed, where only one run is known, between two models' values of one cluster."""
SPREADS = float(stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER))
"""Standard errors that a true difference must have to be found with ``POWER`` at ``ALPHA``."""


@dataclass(frozen=True)
class Estimate:
    """A metric's value, interval and standard error; None where they cannot be computed."""

    value: float | None
    interval: Interval
    error: float | None


def metric_row(answers: Answers, profile: str, metric: Metric, cluster_q: np.ndarray) -> dict[str, Any]:
    """Everything there is to say of a metric, as in ``scores.json``."""
    sums = totals(answers, profile, metric, cluster_q)
    found = estimate(sums)
    asked_q = asked(answers, metric)
    n = int(asked_q.sum())
    constant = constant_answer(answers, metric)
    chance = chance_level(answers, metric)
    return {
        "value": found.value,
        "low": found.interval.low,
        "high": found.interval.high,
        "interval": found.interval.method,
        "error": found.error,
        "resolves": resolves(found, most_of(metric)),
        "n": n,
        "units": sums.units,
        "clusters": sums.clusters,
        "missing_terms": sums.missing,
        "chance": chance,
        "chance_corrected": chance_corrected(found.value, chance, most_of(metric)),
        "constant": None if constant is None else constant[0],
        "constant_answer": None if constant is None else constant[1],
        "unparsed": float(np.mean(~answers.scorings[profile].parsed_q[asked_q])) if n else None,
        "cut_off": float(np.mean(answers.cut_q[asked_q])) if n else None,
        "most": most_of(metric),
        "scale": metric.scale,
    }


def value_of(answers: Answers, profile: str, metric: Metric, cluster_q: np.ndarray) -> float | None:
    """Only the value of a metric."""
    sums = totals(answers, profile, metric, cluster_q)
    return float(sums.value(sums.sums_ct.sum(axis=0), sums.counts_ct.sum(axis=0))) if sums.clusters else None


def estimate(sums: Totals) -> Estimate:
    """Value, interval and standard error.

    Wilson's interval for a proportion of independent units; otherwise percentiles of a bootstrap over clusters, all
    terms from the same draws. Where all clusters are alike, resampling shows no spread, and Wilson on the number of
    clusters is given instead.
    """
    if sums.clusters == 0:
        return Estimate(None, Interval(None, None, "none"), None)
    value = float(sums.value(sums.sums_ct.sum(axis=0), sums.counts_ct.sum(axis=0)))
    if sums.proportion:
        share = value / sums.most
        error = sums.most * float(np.sqrt(share * (1 - share) / sums.clusters))
        return Estimate(value, _wilson(value, sums), error)
    replicates_r = replicates(sums.sums_ct, sums)
    if len(replicates_r) < 2 or np.ptp(replicates_r) < 1e-12 * sums.most:
        return Estimate(value, _wilson(value, sums), 0.0)
    low, high = (float(np.quantile(replicates_r, (1 + side * CONFIDENCE) / 2)) for side in (-1, 1))
    interval = Interval(min(low, value), max(high, value), "bootstrap")
    return Estimate(value, interval, float(replicates_r.std(ddof=1)))


def replicates(sums_ct: np.ndarray, sums: Totals) -> np.ndarray:
    """The metric of ``sums_ct`` under cluster bootstrap, those replicates left out that miss a term."""
    drawn_rj = resampled_sums(np.concatenate([sums_ct, sums.counts_ct], axis=1))
    terms = len(sums.weights_t)
    values_r = sums.value(drawn_rj[:, :terms], drawn_rj[:, terms:])
    return values_r[np.isfinite(values_r)]


def resolves(found: Estimate, most: float) -> float | None:
    """The smallest true difference to another model that a paired test finds with ``POWER`` at ``ALPHA``.

    Normal approximation. Assumes that the other model scores about the same and that the two models' values of a
    cluster correlate by ``CORRELATION``, so that the error of a difference is sqrt(2 (1 - CORRELATION)) times the error
    of one score. Where the sample shows no spread, a quarter of the interval's width stands for the error.
    """
    if found.error is None or found.interval.low is None or found.interval.high is None:
        return None
    error = found.error or (found.interval.high - found.interval.low) / (2 * stats.norm.ppf((1 + CONFIDENCE) / 2))
    return min(SPREADS * float(np.sqrt(2 * (1 - CORRELATION)) * error), most)


def _wilson(value: float, sums: Totals) -> Interval:
    found = wilson(value / sums.most * sums.clusters, sums.clusters)
    assert found.low is not None and found.high is not None
    return Interval(found.low * sums.most, found.high * sums.most, found.method)
