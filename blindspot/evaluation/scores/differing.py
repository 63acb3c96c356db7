"""In what two runs differ besides their answers: nobody should take a change of prompt for a change of model."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from blindspot.evaluation.run.folder import leaves_differing, short
from blindspot.evaluation.scores.answers import Answers

_IGNORED = ("answerer", "benchmarks")


def differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Settings that differ between two ``run.json``, a line each; the answerer and the data are left to others."""
    if not first or not second:
        return ["what was asked of which model is not known: no run.json beside the answers"]
    one, other = ({key: value for key, value in run.items() if key not in _IGNORED} for run in (first, second))
    return [f"{name} differs: {short(b)} against {short(a)}" for name, a, b in leaves_differing(one, other)]


def rows_differing(name: str, first: Answers, second: Answers, a: Answers, b: Answers) -> list[str]:
    """What differs in the rows of a benchmark: ``a`` and ``b`` are the shared ones, in the same order."""
    n = len(a)
    counts = {
        "were asked with another prompt": a.facts_q["prompt"] != b.facts_q["prompt"],
        "showed another number of pictures": a.facts_q["images"] != b.facts_q["images"],
        "have another right answer (options in another order, or other data)": _names(a) != _names(b),
    }
    lines = [f"{name}: {int(which.sum())} of {n} questions {what}" for what, which in counts.items() if which.any()]
    if len(first) != n or len(second) != n:
        lines.insert(
            0, f"{name}: {n} questions shared, of {len(first)} in the first run and {len(second)} in the later"
        )
    return lines


def _names(answers: Answers) -> np.ndarray:
    return np.array(answers.gold.names, dtype=object)[answers.gold.code_q]
