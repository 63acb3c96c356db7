"""What is scored in a column: its questions, or for pair accuracy its pairs."""

from dataclasses import dataclass

import numpy as np

from blindspot.reporting.answers import Answers
from blindspot.reporting.plan import Column


@dataclass(frozen=True)
class Units:
    """The units of a column.

    Attributes:
        clusters: per unit, the questions that it shares an image or a pair with.
        unit_q: per question, its unit.
    """

    clusters: list[str]
    unit_q: np.ndarray

    def lowest(self, scores_q: np.ndarray) -> np.ndarray:
        """The score of every unit: its lowest question's."""
        scores_u = np.ones(len(self.clusters))
        np.minimum.at(scores_u, self.unit_q, scores_q)
        return scores_u


def units_of(answers: Answers, column: Column, places_q: np.ndarray) -> Units:
    """The units of a column's questions, which are at ``places_q`` among the answers."""
    units: dict[str, int] = {}
    clusters: list[str] = []
    unit_q = np.empty(len(places_q), dtype=np.int64)
    for number, place in enumerate(places_q):
        groups, own = answers.groups(place), str(answers.questions[place]["id"])
        unit = str(groups.get("cluster", own)) if column.metric == "pair_accuracy" else own
        if unit not in units:
            units[unit] = len(units)
            clusters.append(str(groups.get("cluster", own)))
        unit_q[number] = units[unit]
    return Units(clusters, unit_q)
