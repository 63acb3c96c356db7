"""What the study found, in sentences made from the numbers."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from blindspot.reporting.plan import Column, Plan
from blindspot.reporting.text import points, signed

STAGES = {"connector": "stage 1", "instruct": "stage 2"}


def stage_name(stage: str) -> str:
    """What a stage is called in headings: ``stage 1 (connector)``."""
    return f"{STAGES[stage]} ({stage})" if stage in STAGES else stage


def asked_on(columns: Sequence[Column]) -> str:
    """What headings say of scores on columns that only resemble the benchmarks they are named after."""
    return " on drawn relatives of the benchmarks" if any(column.relative for column in columns) else ""


def findings(plan: Plan, differences: list[dict[str, Any]], noise: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts of surviving differences per stage and kind, and a paragraph about them, last stage first.

    Returns:
        ``{"text", "paragraphs", "counts": [{"stage", "kind", "first", "second", "tests", "significant", "gains",
        "losses", "uncorrected", "title"}]}``; ``gains`` and ``losses`` are surviving differences above and below zero.
    """
    counts, paragraphs = [], []
    for stage in reversed(plan.stages()):
        for kind in dict.fromkeys(pair.kind for pair in plan.pairs if pair.kind != "replicate"):
            rows = [row for row in differences if _main(row, stage, kind) and row["p"] is not None]
            if rows:
                counts.append(_count(plan, rows, stage, kind))
                paragraphs.append(_sentence(plan, counts[-1], rows))
        if stage == plan.stages()[-1]:
            paragraphs.extend(_noise_sentence(plan, [row for row in noise if row["stage"] == stage]))
    return {"text": " ".join(paragraphs), "paragraphs": paragraphs, "counts": counts}


def _main(row: dict[str, Any], stage: str, kind: str) -> bool:
    return (row["stage"], row["kind"], row["split"]) == (stage, kind, "iid")


def _count(plan: Plan, rows: list[dict[str, Any]], stage: str, kind: str) -> dict[str, Any]:
    first, second = next((pair.first, pair.second) for pair in plan.pairs if pair.kind == kind)
    after = STAGES.get(stage, stage)
    gains = sum(row["significant"] and row["difference"] > 0 for row in rows)
    losses = sum(row["significant"] and row["difference"] < 0 for row in rows)
    if gains + losses == 0:
        title = f"After {after}, none of {len(rows)} differences between {first} and {second} exceeds noise"
    else:
        title = (
            f"After {after}, {gains + losses} of {len(rows)} differences between {first} and {second} exceed noise: "
            f"{_plural(gains, 'gain')}, {_plural(losses, 'loss')}"
        )
    return {
        "stage": stage,
        "kind": kind,
        "first": first,
        "second": second,
        "tests": len(rows),
        "significant": gains + losses,
        "gains": gains,
        "losses": losses,
        "uncorrected": sum(row["p_questions"] is not None and row["p_questions"] < 0.05 for row in rows),
        "title": title,
    }


def _sentence(plan: Plan, count: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    names = {column.id: column.name for column in plan.columns}
    first, second = count["first"], count["second"]
    start = f"After {stage_name(count['stage'])}, "
    explained = "question sampling and training noise together" if rows[0]["noise_included"] else "question sampling"
    if count["significant"] == 0:
        return (
            f"{start}none of the {count['tests']} differences between {first} and {second} is larger than {explained} "
            f"would explain (Holm-corrected, 5 %); a test on questions alone, uncorrected, would have claimed "
            f"{count['uncorrected']}."
        )
    largest = max((row for row in rows if row["significant"]), key=lambda row: abs(row["difference"]))
    return (
        f"{start}{count['significant']} of the {count['tests']} differences between {first} and {second} "
        f"{'is' if count['significant'] == 1 else 'are'} larger than {explained} would explain (Holm-corrected, 5 %): "
        f"{first} is better in {count['gains']} and worse in {count['losses']}. The largest is "
        f"{largest['label']} on {names[largest['column']]}: {signed(largest['difference'])} points "
        f"({signed(largest['low'])} to {signed(largest['high'])}). A test on questions alone, uncorrected, would have "
        f"claimed {count['uncorrected']}."
    )


def _noise_sentence(plan: Plan, noise: list[dict[str, Any]]) -> list[str]:
    known = [row for row in noise if row["deviation"] is not None]
    if not known:
        return []
    names = {column.id: column.name for column in plan.columns}
    worst = max(known, key=lambda row: row["deviation"])
    typical = median(row["deviation"] for row in known)
    return [
        f"Training the same arm again with another seed moves a column by {points(typical)} "
        f"points (standard deviation, median over columns; {points(worst['deviation'])} on {names[worst['column']]})."
    ]


def _plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}{'es' if word.endswith('s') else 's'}"
