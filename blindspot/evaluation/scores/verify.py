"""A run beside the published scores of its model: inside its interval, outside, or not to be compared, and why."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from blindspot.benchmarks.rules import LATER, LMMS_EVAL, OFFICIAL
from blindspot.errors import UserError
from blindspot.evaluation.scores.answers import ScoredRun, load_run
from blindspot.evaluation.scores.report import metric_row
from blindspot.text import clean_json, letters, rounded

INSIDE, OUTSIDE, NOT_COMPARABLE = "inside", "outside", "not comparable"
_RULES = {"EASI (backend=VLMEvalKit)": LATER, "EASI (backend=lmms-eval)": LMMS_EVAL}
"""Whose rules and words a source's scores are by; where it is not here, the benchmark's own."""
_OTHER_WORDS = ("llava", "paper", "plain")
"""Prompts that are no harness's for these benchmarks; a family's are VLMEvalKit's."""


@dataclass(frozen=True)
class Dataset:
    """What a published data set is here: a benchmark and its metric, by rules where these differ, and why it is not."""

    benchmark: str
    metric: str = "overall"
    of_rules: tuple[tuple[str, str], ...] = ()
    differs: str = ""


DATASETS = {
    "MindCubeBench_tiny_raw_qa": Dataset("mindcube"),
    "MindCubeBench_raw_qa": Dataset("mindcube", differs="other subset: all 21,154 questions, not the tiny ones"),
    "MMSIBench_wo_circular": Dataset("mmsi"),
    "EmbSpatialBench": Dataset("embspatial"),
    "ViewSpatialBench": Dataset("viewspatial"),
    "BLINK": Dataset("blink", of_rules=((OFFICIAL, "by_task"),)),
    "3DSRBench": Dataset("dsrbench_3d", "circular"),
    "VSI-Bench_32frame": Dataset("vsi"),
    "VSI-Bench_128frame": Dataset("vsi", differs="other pictures: 128 frames of a video, here 32"),
    "VSI-Bench-Debiased_32frame": Dataset("vsi_debiased"),
    "VSI-Bench-Debiased_128frame": Dataset("vsi_debiased", differs="other pictures: 128 frames of a video, here 32"),
    "SiteBenchImage + SiteBenchVideo_32frame": Dataset("site_image", differs="other subset: with the videos"),
    "RefSpatial_wo_unseen": Dataset("refspatial", differs="other subset: without the part unseen"),
    "RoboSpatialHome": Dataset("robospatial", of_rules=((OFFICIAL, "by_category"),)),
}
"""By the name in ``published_2026.csv``; what is not here is of no benchmark that is known."""


@lru_cache(maxsize=1)
def published() -> tuple[dict[str, str], ...]:
    """Rows of ``published_2026.csv``: EASI's table of verification, with the source of each score."""
    with (Path(__file__).parents[1] / "published_2026.csv").open(encoding="utf-8", newline="") as file:
        return tuple(row for row in csv.DictReader(file) if row["dataset"] in DATASETS)


def verify(path: Path) -> dict[str, Any]:
    """Put a run of ``blindspot evaluate`` beside every published score of its model.

    Returns:
        ``run``, ``model``, ``rows``: of each published score ``benchmark``, ``metric``, ``dataset``, ``source``,
        ``published``, ``rules``, our ``value``, ``low``, ``high``, ``n``, all in per cent, ``verdict`` and ``why``.
    """
    if not path.is_dir():
        raise UserError(f"--verify {path}: not a run folder of blindspot evaluate")
    run = load_run(path, [LATER])
    found = {LATER: run}
    own, rows = _name(run.model), []
    named = [row for row in published() if _name(row["model"]) == own]
    if not named:
        models = ", ".join(dict.fromkeys(row["model"] for row in published()))
        raise UserError(f"--verify {path}: no published score of {run.model or 'a model without a name'}; of: {models}")
    for row in named:
        dataset, rules = DATASETS[row["dataset"]], _RULES.get(row["source"], OFFICIAL)
        if dataset.benchmark in run.answers:
            if rules not in found:
                found[rules] = load_run(path, [rules])
            rows.append(_row(found[rules], dataset, rules, row))
    if not rows:
        names = ", ".join(dict.fromkeys(DATASETS[row["dataset"]].benchmark for row in named))
        raise UserError(
            f"--verify {path}: it has none of the benchmarks that {run.model} has published scores of: {names}"
        )
    return clean_json(rounded({"version": 1, "run": run.name, "model": run.model, "rows": rows}))


def _row(run: ScoredRun, dataset: Dataset, rules: str, row: dict[str, str]) -> dict[str, Any]:
    name = dict(dataset.of_rules).get(rules, dataset.metric)
    answers = run.answers.get(dataset.benchmark)
    metric = next((one for one in answers.metrics() if one.name == name), None) if answers else None
    ours = metric_row(answers, rules, metric) if answers and metric else {}
    value, low, high = (ours.get(key) if ours.get(key) is None else 100 * ours[key] / ours["most"]
                        for key in ("value", "low", "high"))  # fmt: skip
    why = [*_differences(run, dataset, rules)]
    if value is None:
        why.append(f"other metric: {name} is not to be had of this run under {rules}")
    half = 0.5 * 10.0 ** -len(row["score"].partition(".")[2])  # the most by which rounding can have moved it
    verdict = NOT_COMPARABLE
    if not why and low is not None and high is not None:
        verdict = INSIDE if low - half <= float(row["score"]) <= high + half else OUTSIDE
    return {
        "benchmark": dataset.benchmark,
        "metric": name,
        "dataset": row["dataset"],
        "source": row["source"],
        "published": row["score"],
        "rules": rules,
        **{"value": value, "low": low, "high": high, "n": ours.get("n")},
        "verdict": verdict,
        "why": "; ".join(why),
    }


def _differences(run: ScoredRun, dataset: Dataset, rules: str) -> Iterator[str]:
    """In what the run is not what was published, besides the metric."""
    if dataset.differs:
        yield dataset.differs
    prompts, condition = str(run.info.get("prompts")), run.info.get("condition") or {}
    words = prompts if prompts in (*_OTHER_WORDS, OFFICIAL, LMMS_EVAL) else LATER
    if words != rules:
        yield f"other prompt: asked in the words of {words}, published in those of {rules}"
    if changed := [f"{key} {value}" for key, value in condition.items() if value]:
        yield f"other question: {', '.join(changed)}"
    if run.info.get("limit") is not None:
        yield f"other subset: {run.info['limit']} questions"
    elif notes := [note for note in run.of(dataset.benchmark).get("notes") or [] if ", published " in note]:
        yield f"other subset: {notes[0]}"


def _name(model: str) -> str:
    """A model's name without its organisation or folder, in letters and digits."""
    return letters(model.rstrip("/").rsplit("/", 1)[-1])
