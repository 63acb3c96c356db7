"""The paper's numbers, and what follows from them alone: intervals, chance, and which differences exceed the noise."""

from blindspot.evaluation.paper.numbers import BASELINE, Column, Paper, load

__all__ = ["BASELINE", "Column", "Paper", "load"]
