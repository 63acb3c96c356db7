"""From answers to numbers with intervals, and comparisons of models."""

from blindspot.evaluation.scores.report import SCORES, score, score_run
from blindspot.evaluation.scores.show import as_table

__all__ = ["SCORES", "as_table", "score", "score_run"]
