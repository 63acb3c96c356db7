"""Everything that ``blindspot paper`` says."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import proportions_ztest

from blindspot.evaluation.paper.basis import basis, fits, interval
from blindspot.evaluation.paper.numbers import BASELINE, Column, Paper, load
from blindspot.evaluation.statistics import CONFIDENCE, chance_corrected, correct
from blindspot.text import rounded

PAIRS = (
    ("LLaVA-2D-RoPE", BASELINE, "2D-RoPE"),
    ("LLaVA-SigLIP-2D-RoPE", "LLaVA-SigLIP", "2D-RoPE"),
    ("LLaVA-SigLIP2-2D-RoPE", "LLaVA-SigLIP2", "2D-RoPE"),
    ("LLaVA-AIMv2-2D-RoPE", "LLaVA-AIMv2", "2D-RoPE"),
    ("LLaVA-SigLIP", BASELINE, "encoder"),
    ("LLaVA-SigLIP2", BASELINE, "encoder"),
    ("LLaVA-AIMv2", BASELINE, "encoder"),
)
"""A variant, its baseline, and what moves by the paper's account."""
FINDINGS = (
    "MMVP is the share of single questions (LLaVA-1.5: 173 of 300), not of pairs, so chance is .5. Of the "
    "eight variants two are above it beyond the noise, two are below it, four are not told from it.",
    "What reached LLaVA was not its own prompt: other words, the picture inside the line, a blank after ASSISTANT:. "
    "With a strict comparison of strings GQA then gives 33 %; elsewhere the same model has 62 %. "
    "Compare blindspot evaluate --prompts paper with --prompts llava.",
    "The CLIP baseline is the released LLaVA-1.5-7B, not a training of the study's own, and encoders also differ in "
    "size and in the number of visual tokens (576 or 256). A difference between rows is not of the encoder alone.",
)
NOTES = (
    "Intervals are Wilson's, as if every question were independent. Questions that share a picture are not (GQA has "
    "31.6 a picture), so true intervals are wider.",
    "Differences are tested as if the two models had seen different questions, since answers are not public; a paired "
    "test would find more.",
    "Every row is one training. How much a second training would differ is not known and is in none of these numbers.",
    "CV-Bench has no published counts per source; 805 COCO and 633 ADE20K is the only split that the scores per source "
    "and the variants' means of them allow. MME is as noisy as about 520 independent questions, because its small "
    "categories weigh as much as its large.",
)


def report() -> dict[str, Any]:
    """The paper's numbers with intervals, chance, and tests of its differences.

    Returns:
        ``source``; ``columns``; ``scores`` (a row per model and column, fractions of 1); ``differences`` (per pair of
        `PAIRS` and benchmark, with Holm over all of them); ``unfitting`` (cells that are no k/n); ``findings``;
        ``notes``.
    """
    paper = load()
    scores = rounded([_score(paper, model, column) for model in paper.roles for column in paper.columns])
    differences = rounded(
        [
            {"variant": variant, "baseline": baseline, "moves": moves, **_difference(paper, variant, baseline, column)}
            for variant, baseline, moves in PAIRS
            for column in paper.main_columns()
        ]
    )
    correct(differences, lambda row: "all")
    return {
        "source": paper.source,
        "columns": [_column(paper, column) for column in paper.columns],
        "scores": scores,
        "differences": differences,
        "checked": sum(row["fits"] is not None for row in scores),
        "unfitting": [row for row in scores if row["fits"] in ("no", "nearly")],
        "findings": [*FINDINGS, *_counted(differences)],
        "notes": list(NOTES),
    }


def _column(paper: Paper, column: Column) -> dict[str, Any]:
    rests = basis(paper, BASELINE, column)
    return {
        "table": column.table,
        "benchmark": column.benchmark,
        "metric": column.metric,
        "scale": column.scale,
        "n": rests.n,
        "effective": round(rests.effective, 1),
        "chance": rests.chance,
    }


def _score(paper: Paper, model: str, column: Column) -> dict[str, Any]:
    value, found = paper.value(model, column), interval(paper, model, column)
    return {
        "model": model,
        "role": paper.roles[model],
        "table": column.table,
        "benchmark": column.benchmark,
        "metric": column.metric,
        "printed": paper.printed[(model, *column.key)],
        "value": value,
        "low": found.low,
        "high": found.high,
        "chance_corrected": chance_corrected(value, basis(paper, model, column).chance),
        "fits": fits(paper, model, column),
    }


def _difference(paper: Paper, variant: str, baseline: str, column: Column) -> dict[str, Any]:
    """Two-proportion z test (pooled), and the unpooled interval of the difference."""
    p_two = np.array([paper.value(model, column) for model in (variant, baseline)])
    n_two = np.array([basis(paper, model, column).effective for model in (variant, baseline)])
    z, p = proportions_ztest(p_two * n_two, n_two)
    change = float(p_two[0] - p_two[1])
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2) * np.sqrt((p_two * (1 - p_two) / n_two).sum()))
    return {
        "benchmark": column.benchmark,
        "scale": column.scale,
        "difference": change,
        "low": change - half,
        "high": change + half,
        "z": float(z),
        "p": float(p),
    }


def _counted(differences: list[dict[str, Any]]) -> Iterator[str]:
    for moves in ("2D-RoPE", "encoder"):
        rows = [row for row in differences if row["moves"] == moves]
        up = sum(row["significant"] and row["difference"] > 0 for row in rows)
        down = sum(row["significant"] and row["difference"] < 0 for row in rows)
        against = "the same encoder without it" if moves == "2D-RoPE" else "CLIP"
        yield (
            f"{moves} against {against}: of {len(rows)} differences {up} are gains and {down} losses beyond the noise "
            f"of the questions (Holm over {len(differences)} tests); {len(rows) - up - down} are not told from it."
        )
