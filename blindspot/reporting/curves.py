"""Accuracy against training step, from the training logs."""

from pathlib import Path
from typing import Any

from blindspot.files import read_jsonl
from blindspot.reporting.plan import Plan


def load_curves(run: Path, plan: Plan) -> list[dict[str, Any]]:
    """One entry per finished training step whose ``log.jsonl`` has rows with ``accuracy``.

    Each entry: arm, stage, seed, ``steps`` (list of step numbers) and ``accuracy`` (per column a list as long as
    ``steps``, None where a column was not measured).
    """
    columns = [column.id for column in plan.columns]
    curves = []
    for step in plan.steps:
        log, stage = run / step.folder / "log.jsonl", step.stage or step.kind
        if step.arm is None or not log.exists():
            continue
        rows = [row for row in read_jsonl(log) if row.get("accuracy")]
        if rows:
            measured = [column for column in columns if any(column in row["accuracy"] for row in rows)]
            curves.append(
                {
                    "arm": step.arm,
                    "stage": stage,
                    "seed": step.seed,
                    "steps": [row["step"] for row in rows],
                    "accuracy": {column: [row["accuracy"].get(column) for row in rows] for column in measured},
                }
            )
    return curves
