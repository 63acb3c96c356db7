"""What the training logs say: accuracy against training step, and language models that did not learn."""

from pathlib import Path
from typing import Any

from blindspot.files import read_jsonl
from blindspot.reporting.plan import Plan, as_made

UNLEARNED = 5.0
"""A language model whose loss on text is this many times another seed's is called unlearned."""


def load_curves(run: Path, plan: Plan) -> list[dict[str, Any]]:
    """One entry per finished training step whose ``log.jsonl`` has rows with ``accuracy``.

    Each entry: arm, stage, seed, ``steps`` (list of step numbers) and ``accuracy`` (per column a list as long as
    ``steps``, None where a column was not measured).
    """
    columns = [column.id for column in plan.columns]
    curves = []
    for step in plan.steps:
        log, stage = run / step.folder / "log.jsonl", step.stage or step.kind
        if step.arm is None or not _made(log):
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


def unlearned_text(run: Path, plan: Plan) -> list[str]:
    """A sentence for every seed whose language model learned its text far worse than another seed's did.

    All arms of a seed share it, so their scores then say little about the arms.
    """
    ends: dict[int, float] = {}
    for step in plan.steps:
        log = run / step.folder / "log.jsonl"
        if step.kind == "text" and _made(log):
            losses = [row["loss"] for row in read_jsonl(log) if row.get("loss") is not None]
            if losses:
                ends[step.seed or 0] = losses[-1]
    best = min(ends.values(), default=0.0)
    return [
        f"The language model of seed {seed} ended its text at loss {loss:.3g}, another at {best:.3g}: it has not "
        "learned what text can teach, and all arms of this seed rest on it. Raise text.steps."
        for seed, loss in sorted(ends.items())
        if loss > UNLEARNED * best
    ]


def _made(log: Path) -> bool:
    return (log.parent / "done.json").exists() and log.exists() and as_made(log) == log
