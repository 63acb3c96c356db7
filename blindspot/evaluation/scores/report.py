"""``scores.json``: every number of one run."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import NO_BENCHMARK
from blindspot.benchmarks.scoring import DEFAULT, HARNESS, PROFILES, STRIP
from blindspot.errors import did_you_mean
from blindspot.evaluation.scores import baselines
from blindspot.evaluation.scores.answers import MEAN, Answers
from blindspot.evaluation.scores.metrics import metric_row
from blindspot.evaluation.scores.runs import Run, load_run
from blindspot.evaluation.statistics import ALPHA, CONFIDENCE, CORRELATION, PERMUTATIONS, POWER, RESAMPLES
from blindspot.files import write_json
from blindspot.text import clean_json, rounded

SCORES = "scores.json"
VERSION = 1
METHOD = {
    "confidence": CONFIDENCE,
    "resamples": RESAMPLES,
    "permutations": PERMUTATIONS,
    "alpha": ALPHA,
    "power": POWER,
    "correlation": CORRELATION,
}


def score_run(folder: Path, profile: str = DEFAULT, thinking: str = HARNESS) -> dict[str, Any]:
    """Score the answers of a run folder and write ``scores.json`` there.

    Returns:
        What was written: ``profile``, ``thinking``, ``run``, ``method``, ``notes``, and by benchmark ``metrics``,
        ``habits``, ``thinking`` (shares of answers that hold a thought, and that never close it), ``profiles`` (the
        values under every profile) and ``notes``. Where answers hold thoughts that were left to the harness,
        ``stripped`` are the values without them. Equal answers give equal bytes.

    Raises:
        UserError: if there are no answers, a file is damaged, or the profile or ``thinking`` is unknown.
    """
    scores = score(folder, profile, thinking)
    write_json(folder / SCORES, scores)
    return scores


def score(path: Path, profile: str = DEFAULT, thinking: str = HARNESS) -> dict[str, Any]:
    """As `score_run`, of a run folder or a bare file of answers; writes nothing."""
    names = [profile, *(name for name in PROFILES if name != profile)]
    run = load_run(path, names, thinking)
    beside: Mapping[str, Answers] = {}
    if thinking == HARNESS and any(answers.facts_q["thought"].any() for answers in run.answers.values()):
        stripped = load_run(path, names, STRIP).answers
        beside = {name: stripped[name] for name, answers in run.answers.items() if answers.facts_q["thought"].any()}
    return clean_json(
        rounded(
            {
                "version": VERSION,
                "profile": profile,
                "thinking": thinking,
                "run": {"name": run.name, **run.info},
                "method": METHOD,
                "benchmarks": {
                    name: _benchmark(run, answers, profile, beside.get(name)) for name, answers in run.answers.items()
                },
                "notes": list(run.notes),
            }
        )
    )


def _benchmark(run: Run, answers: Answers, first: str, stripped: Answers | None) -> dict[str, Any]:
    benchmark = answers.benchmark
    kept = answers.metrics()
    metrics = {metric.name: metric_row(answers, first, metric) for metric in kept}

    def values(of: Answers, profile: str) -> dict[str, float | None]:
        return {metric.name: of.sample(profile, metric).value for metric in kept}

    for name, value in (values(stripped, first) if stripped else {}).items():
        metrics[name]["stripped"] = value
    return {
        "title": benchmark.title,
        "questions": len(answers),
        "metrics": metrics,
        "habits": baselines.habits(answers, first),
        "thinking": {
            name: float(answers.facts_q[fact].mean()) for name, fact in (("answers", "thought"), ("cut_off", "unended"))
        },
        "profiles": {
            profile: {
                "metrics": values(answers, profile),
                **({"stripped": values(stripped, profile)} if stripped else {}),
                "unparsed": baselines.habits(answers, profile)["unparsed"],
                "headline": benchmark.headline(profile) if kept[0] is not MEAN else None,
            }
            for profile in answers.scorings
        },
        "notes": [*(run.of(benchmark.name).get("notes") or _unpublished(answers)), *_notes(answers, first, metrics)],
    }


def _unpublished(answers: Answers) -> list[str]:
    """What a run folder says of its data, of answers that come without one."""
    sources = answers.benchmark.sources
    published = [source.counts["questions"] for source in sources if "questions" in source.counts]
    if not published or len(answers) in published:
        return []
    counts = " or ".join(str(count) for count in dict.fromkeys(published))
    return [f"{len(answers)} questions instead of {counts}: not the published benchmark"]


def incomplete(answers: Answers, names: Container[str]) -> list[str]:
    """A line on the metrics of a benchmark that are not among the ``names`` of those that stand, if there are any."""
    lacking = [metric.name for metric in answers.benchmark.metrics if metric.name not in names]
    size = answers.benchmark.set_size
    why = f"not every row has its labels or every set its {size} rows" if size else "not every row has its labels"
    return [f"incomplete: no {', '.join(lacking)}, as {why}"] if lacking else []


def _notes(answers: Answers, profile: str, metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    benchmark = answers.benchmark
    notes = incomplete(answers, metrics)
    if benchmark.name not in BENCHMARKS:
        meant = f"not known here; {did_you_mean(benchmark.name, BENCHMARKS)}; "
        notes.append(f"{meant if benchmark.name != NO_BENCHMARK else ''}each row is scored by its kind")
    for name, row in metrics.items():
        if row["missing_terms"] and row["n"]:
            terms = len(next(metric for metric in benchmark.metrics if metric.name == name).terms)
            notes.append(f"{name} lacks questions for {row['missing_terms']} of its {terms} parts: mean of the others")
    if benchmark.headline(profile) != "overall":
        notes.append(f"{profile} prints {benchmark.headline(profile)} as the score; the paper prints overall")
    if guess := float(answers.scorings[profile].guess_q.mean()):
        notes.append(f"{profile} draws where it reads nothing, which would add {guess:.3f} to the mean on average")
    only = baselines.always(answers, profile)
    if only is not None:
        notes.append(f"every readable answer is {only}")
    return notes
