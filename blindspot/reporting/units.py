"""What is scored in a column: its questions, or sets of questions that count as one."""

from dataclasses import dataclass

import numpy as np

from blindspot.evaluation.statistics import Sample
from blindspot.reporting.answers import Answers
from blindspot.reporting.plan import Column


@dataclass(frozen=True)
class Units:
    """The units of a column, term by term.

    Attributes:
        clusters_u: units that share an image or a pair.
        term_u: the terms that they count in.
        weights: of the terms.
        place_m: the questions, at their places among the answers; one for each unit that it is a member of.
        unit_m: the units that they are members of.
        whole_u: whether a unit is a set, right only if all of its questions are.
        partial_m: whether what counts is the partial score.
    """

    clusters_u: np.ndarray
    term_u: np.ndarray
    weights: list[float]
    place_m: np.ndarray
    unit_m: np.ndarray
    whole_u: np.ndarray
    partial_m: np.ndarray

    def sample(self, scores_q: np.ndarray, partial_q: np.ndarray) -> Sample:
        """The scores of the units: each its lowest question's, of a set 1 or 0."""
        values_u = np.ones(len(self.whole_u))
        values_m = np.where(self.partial_m, partial_q[self.place_m], scores_q[self.place_m])
        np.minimum.at(values_u, self.unit_m, values_m)
        values_u = np.where(self.whole_u, np.floor(values_u), values_u)
        return Sample.of(values_u, self.clusters_u, self.term_u, self.weights)


def units_of(answers: Answers, column: Column, places_q: np.ndarray) -> Units:
    """The units of a column's questions, which are at ``places_q`` among the answers."""
    units: dict[tuple[int, str], int] = {}
    clusters: list[str] = []
    terms: list[int] = []
    members: list[tuple[int, int, bool]] = []
    for place in places_q.tolist():
        groups, own = answers.groups(place), str(answers.questions[place]["id"])
        cluster = str(groups.get("cluster", own))
        for number, term in enumerate(column.terms):
            if any(str(groups.get(group)) != label for group, label in term.where.items()):
                continue
            unit = str(groups.get("set", cluster)) if term.unit == "set" else own
            if (number, unit) not in units:
                units[number, unit] = len(units)
                clusters.append(cluster)
                terms.append(number)
            members.append((place, units[number, unit], term.value == "partial"))
    place_m, unit_m, partial_m = (np.array(values) for values in zip(*members, strict=True))
    sets = np.array([term.unit == "set" for term in column.terms])
    term_u = np.array(terms)
    weights = [term.weight for term in column.terms]
    return Units(np.array(clusters), term_u, weights, place_m, unit_m, sets[term_u], partial_m)
