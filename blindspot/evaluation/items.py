"""What scores are averaged over: questions, or sets of questions that count as one, by the groups that they carry.

Suffixes: ``q`` questions, ``i`` scored items.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from blindspot.benchmarks.base import Term
from blindspot.evaluation.statistics import Sample

ABSENT = -1


@dataclass(frozen=True)
class Labels:
    """One label a question: texts that repeat, held as numbers."""

    names: tuple[str, ...]  # the distinct labels
    code_q: np.ndarray  # place of each question's label in ``names``; `ABSENT` where it has none

    @classmethod
    def of(cls, labels_q: Iterable[str | None]) -> "Labels":
        """The labels of questions one by one."""
        places: dict[str, int] = {}
        codes = [ABSENT if label is None else places.setdefault(label, len(places)) for label in labels_q]
        return cls(tuple(places), np.array(codes, dtype=np.int32))

    def take(self, rows: np.ndarray) -> "Labels":
        """The labels of some questions."""
        return Labels(self.names, self.code_q[rows])

    def equal(self, name: str) -> np.ndarray:
        """Which questions carry this label."""
        return self.code_q == (self.names.index(name) if name in self.names else ABSENT - 1)

    def counts(self, chosen_q: np.ndarray | None = None) -> dict[str, int]:
        """How many questions carry each label, by name in alphabetical order; labels without any are left out."""
        code_q = self.code_q if chosen_q is None else self.code_q[chosen_q]
        counts = np.bincount(code_q[code_q != ABSENT], minlength=len(self.names))
        return {name: int(count) for name, count in sorted(zip(self.names, counts, strict=True)) if count}


@dataclass(frozen=True)
class Questions:
    """The questions of a benchmark."""

    count: int  # how many
    groups: Mapping[str, Labels]
    """Labels to report by, and of two kinds that say what belongs together: ``cluster`` and ``set``."""

    @classmethod
    def of(cls, groups_q: Sequence[Mapping[str, Any]]) -> "Questions":
        """From the groups of each."""
        names = dict.fromkeys(name for groups in groups_q for name in groups)
        return cls(
            len(groups_q),
            {name: Labels.of(str(own[name]) if name in own else None for own in groups_q) for name in names},
        )

    def take(self, rows: np.ndarray) -> "Questions":
        """Some of them in a given order."""
        return Questions(len(rows), {name: labels.take(rows) for name, labels in self.groups.items()})

    def asked(self, terms: Iterable[Term]) -> np.ndarray:
        """Which questions any of the terms is about."""
        asked_q = np.zeros(self.count, dtype=bool)
        for term in terms:
            about_q = np.ones(self.count, dtype=bool)
            for name, label in term.where.items():
                about_q &= self.groups[name].equal(str(label)) if name in self.groups else False
            asked_q |= about_q
        return asked_q

    @cached_property
    def cluster_q(self) -> np.ndarray:
        """The cluster of each question: its label, or else the question alone; sets never stretch over two clusters."""
        cluster_q = self._numbers("cluster")
        if "set" not in self.groups:
            return cluster_q
        sets = self.groups["set"]
        has_q, clusters = sets.code_q != ABSENT, int(cluster_q.max(initial=-1)) + 1
        size = clusters + len(sets.names)
        edges = coo_array((np.ones(has_q.sum()), (cluster_q[has_q], clusters + sets.code_q[has_q])), shape=(size, size))
        return connected_components(edges, directed=False)[1][cluster_q]

    def set_rows(self, chosen_q: np.ndarray, group: str = "set") -> np.ndarray:
        """For each chosen question the number of its set, counted from 0; one without a set is one by itself."""
        return np.unique(self._numbers(group)[chosen_q], return_inverse=True)[1]

    def _above_chance(self, score_q: np.ndarray, chosen_q: np.ndarray) -> np.ndarray:
        """(score - 1/n) over the mean of 1 - 1/n of the chosen, n the number of a question's options; NaN without."""
        labels = self.groups.get("options", Labels((), np.full(self.count, ABSENT)))
        chance_q = np.array([*(1 / float(name) for name in labels.names), np.nan])[labels.code_q]
        known_q = chosen_q & ~np.isnan(score_q - chance_q)
        return (score_q - chance_q) / np.mean(1 - chance_q[known_q]) if known_q.any() else score_q * np.nan

    def sample(self, terms: Sequence[Term], score_q: np.ndarray, partial_q: np.ndarray) -> Sample:
        """The scored items of a weighted sum of means: questions, or sets that are right only if all of them are.

        Args:
            score_q: between 0 and 1.
            partial_q: partial matches; NaN where there is none.
        """
        values: list[np.ndarray] = []
        clusters: list[np.ndarray] = []
        for term in terms:
            asked_q = self.asked([term])
            value_q = score_q if term.value == "score" else partial_q
            value_q = self._above_chance(score_q, asked_q) if term.value == "above_chance" else value_q
            chosen_q = asked_q & ~np.isnan(value_q)
            value_i, cluster_i = value_q[chosen_q], self.cluster_q[chosen_q]
            if term.unit != "question":
                set_q = self.set_rows(chosen_q, term.unit)
                value_i, right_q = np.ones(int(set_q.max(initial=-1)) + 1), (value_i >= 1).astype(float)
                np.minimum.at(value_i, set_q, right_q)
                cluster_q, cluster_i = cluster_i, np.empty(len(value_i), dtype=np.int64)
                cluster_i[set_q] = cluster_q
            values.append(value_i)
            clusters.append(cluster_i)
        term_i = np.repeat(np.arange(len(values)), [len(value_i) for value_i in values])
        weights = [term.weight for term in terms]
        return Sample.of(np.concatenate(values), np.concatenate(clusters), term_i, weights)

    def _numbers(self, group: str) -> np.ndarray:
        """A number for each question: of its label, or of its own where it has none."""
        own_q, labels = np.arange(self.count), self.groups.get(group)
        if labels is None:
            return own_q
        return np.where(labels.code_q == ABSENT, len(labels.names) + own_q, labels.code_q)
