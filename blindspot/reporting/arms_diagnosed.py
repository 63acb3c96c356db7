"""What a study's diagnoses say of its arms."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from blindspot.reporting.diagnosis.data import Tables, load_diagnosis
from blindspot.reporting.plan import Plan, as_made

Row = dict[str, Any]
Found = list[tuple[str, dict[str, Tables]]]
HEADLINE = "mirrored or flipped"
"""The move of ``counterfactuals`` that the table of arms shows."""


def load_arms(run: Path, plan: Plan) -> Found:
    """Label of the arm and tables by diagnostic, of every diagnosis of the study that is done.

    Raises:
        UserError: if a file is damaged or not as its step made it.
    """
    labels = {arm.id: arm.label for arm in plan.arms}
    steps = [step for step in plan.steps if step.kind == "diagnose" and (run / step.folder / "done.json").exists()]
    for step in steps:
        for path in sorted((run / step.folder).glob("*.json")):
            if path.name != "done.json":
                as_made(path)
    return [(labels.get(step.arm or "", step.id), load_diagnosis(run / step.folder)) for step in steps]


def follows(found: Sequence[tuple[str, dict[str, Tables]]]) -> list[Row]:
    """One row an arm: shares of answers that follow each factor when it alone is moved, mean over seeds, and seeds.

    Only questions answered right as drawn count, so an arm that answers few of them has wide intervals of its own.
    """
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for label, tables in found:
        moved = tables.get("counterfactuals", {})
        for row in moved["shares"].rows if "shares" in moved else []:
            if row.get("move") == HEADLINE and row["value"] is not None:
                shares[label][str(row["factor"])].append(row["value"])
    return [
        {"arm": label, "seeds": max(map(len, factors.values())), "shares": {f: fmean(v) for f, v in factors.items()}}
        for label, factors in shares.items()
    ]
