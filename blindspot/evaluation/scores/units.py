"""What a metric averages: units, their clusters, and sums over both.

Suffixes: ``q`` questions, ``u`` units, ``c`` clusters, ``t`` terms of the metric.
"""

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from blindspot.benchmarks.base import Metric, Term
from blindspot.evaluation.scores.answers import MEAN, Answers
from blindspot.evaluation.scores.labels import ABSENT, Labels
from blindspot.evaluation.statistics import Sample


def clusters_of(answers: Answers) -> np.ndarray:
    """The cluster of each question: its label, or else the question alone; sets never stretch over two clusters."""
    cluster_q = _labelled(answers.groups.get("cluster"), len(answers))
    sets = answers.groups.get("set")
    if sets is None:
        return cluster_q
    has_q = sets.code_q != ABSENT
    clusters = int(cluster_q.max(initial=-1)) + 1
    size = clusters + len(sets.names)
    edges = coo_array((np.ones(has_q.sum()), (cluster_q[has_q], clusters + sets.code_q[has_q])), shape=(size, size))
    return connected_components(edges, directed=False)[1][cluster_q]


def chosen(answers: Answers, term: Term) -> np.ndarray:
    """Which questions a term is about."""
    chosen_q = np.ones(len(answers), dtype=bool)
    for group, label in term.where.items():
        labels = answers.groups.get(group)
        chosen_q &= labels.equal(str(label)) if labels is not None else False
    return chosen_q


def metrics_of(answers: Answers) -> tuple[Metric, ...]:
    """The benchmark's metrics that its rows make up, the score first; `MEAN` where that is not ``overall``.

    A metric does not stand where one of its sets is not whole, and ``overall`` not where it passes over a row.
    """
    kept = tuple(metric for metric in answers.benchmark.metrics if _stands(answers, metric))
    return kept if kept and kept[0] is answers.benchmark.metrics[0] else (MEAN, *kept)


def asked(answers: Answers, metric: Metric) -> np.ndarray:
    """Which questions a metric is about."""
    return np.any([chosen(answers, term) for term in metric.terms], axis=0)


def most_of(metric: Metric) -> float:
    """A metric's value when everything is right."""
    return sum(term.weight for term in metric.terms)


def sample(answers: Answers, profile: str, metric: Metric, cluster_q: np.ndarray) -> Sample:
    """The scored items of a metric under a profile."""
    parts = [_units(answers, profile, term, cluster_q) for term in metric.terms]
    values, clusters = (np.concatenate(each) for each in zip(*parts, strict=True))
    term_u = np.repeat(np.arange(len(parts)), [len(value_u) for value_u, _ in parts])
    return Sample.of(values, clusters, term_u, [term.weight for term in metric.terms])


def set_rows(answers: Answers, chosen_q: np.ndarray) -> np.ndarray:
    """For each chosen question the number of its set, counted from 0; a question without a set is one by itself."""
    sets = answers.groups.get("set")
    code_q = _labelled(sets, len(answers))[chosen_q]
    return np.unique(code_q, return_inverse=True)[1]


def _stands(answers: Answers, metric: Metric) -> bool:
    if metric is answers.benchmark.metrics[0] and not asked(answers, metric).all():
        return False
    size = answers.benchmark.set_size
    counts = (np.bincount(set_rows(answers, chosen(answers, term))) for term in metric.terms if term.unit == "set")
    return size is None or all((count == size).all() for count in counts)


def _units(answers: Answers, profile: str, term: Term, cluster_q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Value and cluster of each unit of a term."""
    scoring = answers.scorings[profile]
    chosen_q = chosen(answers, term)
    if term.value == "partial":
        chosen_q &= ~np.isnan(scoring.partial_q)
    value_q = (scoring.score_q if term.value == "score" else scoring.partial_q)[chosen_q]
    if term.unit == "question":
        return value_q, cluster_q[chosen_q]
    set_q = set_rows(answers, chosen_q)
    value_u = np.ones(int(set_q.max(initial=-1)) + 1)
    cluster_u = np.empty(len(value_u), dtype=np.int64)
    np.minimum.at(value_u, set_q, (value_q >= 1).astype(float))
    cluster_u[set_q] = cluster_q[chosen_q]
    return value_u, cluster_u


def _labelled(labels: Labels | None, questions: int) -> np.ndarray:
    """A number for each question: of its label, or of its own where it has none."""
    own_q = np.arange(questions)
    if labels is None:
        return own_q
    return np.where(labels.code_q == ABSENT, len(labels.names) + own_q, labels.code_q)
