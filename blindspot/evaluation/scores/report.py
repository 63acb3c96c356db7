"""``scores.json``: every number of one run."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from blindspot.benchmarks.base import Metric
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import NO_BENCHMARK
from blindspot.benchmarks.scoring import DEFAULT, HARNESS, PROFILES, STRIP, borrows
from blindspot.errors import did_you_mean
from blindspot.evaluation.items import ABSENT
from blindspot.evaluation.run.folder import PLACE
from blindspot.evaluation.scores.answers import MEAN, UNPARSED, ScoredAnswers, ScoredRun, load_run
from blindspot.evaluation.statistics import (
    ALPHA,
    CONFIDENCE,
    CORRELATION,
    PERMUTATIONS,
    POWER,
    RESAMPLES,
    chance_corrected,
    resolves,
)
from blindspot.files import write_json
from blindspot.text import clean_json, rounded

METHOD = {
    "confidence": CONFIDENCE,
    "resamples": RESAMPLES,
    "permutations": PERMUTATIONS,
    "alpha": ALPHA,
    "power": POWER,
    "correlation": CORRELATION,
}


def score_run(folder: Path, profile: str = DEFAULT, thinking: str = HARNESS) -> dict[str, Any]:
    """Write what `score` returns into the run folder, as ``scores.json``. Equal answers give equal bytes."""
    scores = score(folder, profile, thinking)
    write_json(folder / "scores.json", scores)
    return scores


def score(path: Path, profile: str = DEFAULT, thinking: str = HARNESS) -> dict[str, Any]:
    """Score the answers of a run folder, or of a bare file.

    Returns:
        ``profile``, ``thinking``, ``run``, ``method``, ``notes``, and by benchmark ``metrics``, ``habits``,
        ``thinking`` (shares of answers that hold a thought, and that never close it), ``profiles`` (the values under
        every profile) and ``notes``. Where answers hold thoughts that were left to the harness, ``stripped`` are the
        values without them.
    """
    names = [profile, *(name for name in PROFILES if name != profile)]
    run = load_run(path, names, thinking)
    thoughtful = [name for name, answers in run.answers.items() if answers.facts_q["thought"].any()]
    stripped = load_run(path, names, STRIP).answers if thinking == HARNESS and thoughtful else {}
    found = {
        "version": 1,
        "profile": profile,
        "thinking": thinking,
        "run": {"name": run.name, **run.info},
        "method": METHOD,
        "benchmarks": {
            name: _benchmark(run, answers, profile, stripped.get(name) if name in thoughtful else None)
            for name, answers in run.answers.items()
        },
        "notes": list(run.notes),
    }
    return clean_json(rounded(found))


def _benchmark(run: ScoredRun, answers: ScoredAnswers, first: str, stripped: ScoredAnswers | None) -> dict[str, Any]:
    benchmark, kept = answers.benchmark, answers.metrics()
    metrics = {metric.name: metric_row(answers, first, metric) for metric in kept}
    for name, row in metrics.items():
        row |= {"shortcuts": found} if (found := run.shortcuts(benchmark.name, name)) else {}

    def values(of: ScoredAnswers, profile: str) -> dict[str, float | None]:
        return {metric.name: of.sample(profile, metric).value for metric in kept}

    for name, value in (values(stripped, first) if stripped else {}).items():
        metrics[name]["stripped"] = value
    published = [source.counts["questions"] for source in benchmark.sources if "questions" in source.counts]
    notes = list(run.of(benchmark.name).get("notes") or [])
    if not notes and published and len(answers) not in published:  # as the run's notes would say
        counts = " or ".join(map(str, dict.fromkeys(published)))
        notes.append(f"{len(answers)} questions instead of {counts}: not the published benchmark")
    return {
        "title": benchmark.title,
        "questions": len(answers),
        "metrics": metrics,
        "habits": habits(answers, first),
        "thinking": {
            name: float(answers.facts_q[fact].mean()) for name, fact in (("answers", "thought"), ("cut_off", "unended"))
        },
        "profiles": {
            profile: {
                "metrics": values(answers, profile),
                **({"stripped": values(stripped, profile)} if stripped else {}),
                "unparsed": float(np.mean(1 - scores_q["parsed"])),
                "headline": benchmark.headline(profile) if kept[0] is not MEAN else None,
            }
            for profile, scores_q in answers.scores_q.items()
            if not borrows(profile, benchmark.name)
        },
        "notes": notes + _notes(answers, first, metrics, run.of(benchmark.name)),
    }


def metric_row(answers: ScoredAnswers, profile: str, metric: Metric) -> dict[str, Any]:
    """Everything there is to say of a metric, as in ``scores.json``.

    ``resolves`` is the smallest true difference to another model that a paired test finds, by a normal approximation.
    It assumes that the other model scores about the same and that the two models' values of a cluster correlate by
    ``CORRELATION``, so that the error of a difference is sqrt(2 (1 - CORRELATION)) times the error of one score. Where
    the sample shows no spread, a quarter of the interval's width stands for the error.
    """
    sample = answers.sample(profile, metric)
    found = sample.estimate()
    low, high, error = found.interval.low, found.interval.high, found.error
    if error is not None and low is not None and high is not None:
        error = error or (high - low) / (2 * stats.norm.ppf((1 + CONFIDENCE) / 2))
        error = float(np.sqrt(2 * (1 - CORRELATION)) * error)
    asked_q = answers.questions.asked(metric.terms)
    n = int(asked_q.sum())
    chance, constant, constant_answer = without_looking(answers, metric)
    return {
        "value": found.value,
        "low": low,
        "high": high,
        "interval": found.interval.method,
        "error": found.error,
        "resolves": resolves(error, metric.most),
        "n": n,
        "units": sample.items,
        "clusters": sample.clusters,
        "missing_terms": sample.missing,
        "chance": chance,
        "chance_corrected": chance_corrected(found.value, chance, metric.most),
        "constant": constant,
        "constant_answer": constant_answer,
        "unparsed": float(np.mean(1 - answers.scores_q[profile]["parsed"][asked_q])) if n else None,
        "cut_off": float(np.mean(answers.facts_q["cut"][asked_q])) if n else None,
        "most": metric.most,
        "scale": metric.scale,
        **({"samples": _of_samples(answers, profile, metric)} if answers.samples > 1 else {}),
    }


def _of_samples(answers: ScoredAnswers, profile: str, metric: Metric) -> dict[str, Any]:
    """What a metric is if the best of a question's answers counts, and if what most of them say does."""
    found: dict[str, Any] = {"count": answers.samples}
    for name in ("pass", "majority"):
        one = answers.sample(profile, metric, "best" if name == "pass" else "majority").estimate()
        found[name] = {"value": one.value, "low": one.interval.low, "high": one.interval.high}
    return found


def without_looking(answers: ScoredAnswers, metric: Metric) -> tuple[float | None, float | None, str | None]:
    """What can be had of a metric without looking at a picture.

    Returns:
        What guessing gives: the benchmark's own figure, or else one over the number of options of each question, None
        where questions are open. The best value that one and the same gold answer to every question reaches, and that
        answer, compared as they stand. None where partial matches count, or there are no questions.
    """
    if any(term.value != "score" for term in metric.terms):
        return metric.chance, None, None
    names = answers.gold.names
    chance, constant_a, weight, is_open = 0.0, np.zeros(len(names)), 0.0, False
    for term in metric.terms:
        chosen_q = answers.questions.asked([term])
        if not chosen_q.any():
            continue
        options_q, code_u = answers.facts_q["options"][chosen_q], answers.gold.code_q[chosen_q]
        is_open |= not options_q.all()
        guess_u, count = 1 / np.maximum(options_q, 1), len(code_u)
        if term.unit != "question":
            set_q = answers.questions.set_rows(chosen_q, term.unit)
            guess_u = np.exp(np.bincount(set_q, weights=np.log(guess_u)))
            count = len(guess_u)
            lowest_u, highest_u = np.full(count, len(names)), np.full(count, ABSENT)
            np.minimum.at(lowest_u, set_q, code_u)
            np.maximum.at(highest_u, set_q, code_u)
            code_u = lowest_u[lowest_u == highest_u]
        chance += term.weight * float(guess_u.mean())
        constant_a += term.weight * (np.bincount(code_u, minlength=len(names)) / count)
        weight += term.weight
    if not weight:
        return metric.chance, None, None
    constant_a *= metric.most / weight
    most = constant_a.max()
    answer = min(names[place] for place in np.flatnonzero(constant_a >= most - 1e-12))
    own = None if is_open else chance * metric.most / weight
    return own if metric.chance is None else metric.chance, float(most), answer


def habits(answers: ScoredAnswers, profile: str) -> dict[str, Any]:
    """How the model answers as a whole: unreadable and cut-off shares, yes-rate, histogram of letters.

    Of several answers to a question, letters and yes are of what most of them say.
    ``guess`` is what the harness would add to the mean score by drawing an option wherever it reads none.
    ``yes_rate`` is the share of yes among all answers to yes/no questions, unreadable ones included; ``yes_gold`` the
    share that is right. ``precision``, ``recall`` and ``f1`` of yes count an unreadable answer as no.
    """
    scores_q, replies = answers.scores_q[profile], answers.replies(profile)
    row: dict[str, Any] = {
        "unparsed": float(np.mean(1 - scores_q["parsed"])),
        "cut_off": float(np.mean(answers.facts_q["cut"])),
        "cut_off_in_thought": float(np.mean(np.minimum(answers.facts_q["cut"], answers.facts_q["unended"]))),
        "guess": float(np.mean(scores_q["guess"])),
    }
    yes_no_q, mcq_q = answers.kind.equal("yes_no"), answers.kind.equal("mcq")
    if yes_no_q.any():
        said_q, true_q = replies.equal("Yes")[yes_no_q], answers.gold.equal("Yes")[yes_no_q]
        hits, said, true = int((said_q & true_q).sum()), int(said_q.sum()), int(true_q.sum())
        row |= {
            "yes_rate": float(said_q.mean()),
            "yes_gold": float(true_q.mean()),
            "precision": hits / said if said else None,
            "recall": hits / true if true else None,
            "f1": 2 * hits / (said + true) if said + true else None,
        }
    if mcq_q.any():
        row |= {"letters": replies.counts(mcq_q), "letters_gold": answers.gold.counts(mcq_q)}
    return row


def incomplete(answers: ScoredAnswers, names: Container[str]) -> list[str]:
    """A line on the metrics of a benchmark that are not among the ``names`` of those that stand, if there are any."""
    lacking = [metric.name for metric in answers.benchmark.metrics if metric.name not in names]
    size = answers.benchmark.set_size
    why = f"not every row has its labels or every set its {size} rows" if size else "not every row has its labels"
    return [f"incomplete: no {', '.join(lacking)}, as {why}"] if lacking else []


def _notes(
    answers: ScoredAnswers, profile: str, metrics: Mapping[str, Mapping[str, Any]], own: Mapping[str, Any]
) -> list[str]:
    benchmark = answers.benchmark
    notes = incomplete(answers, metrics)
    if benchmark.name not in BENCHMARKS and PLACE not in own:
        meant = f"not known here; {did_you_mean(benchmark.name, BENCHMARKS)}; "
        notes.append(f"{meant if benchmark.name != NO_BENCHMARK else ''}each row is scored by its kind")
    for name, row in metrics.items():
        if row["missing_terms"] and row["n"]:
            terms = len(next(metric for metric in benchmark.metrics if metric.name == name).terms)
            notes.append(f"{name} lacks questions for {row['missing_terms']} of its {terms} parts: mean of the others")
    if lender := borrows(profile, benchmark.name):
        notes.append(f"{profile} does not have it; scored as {lender} does")
    if benchmark.headline(profile) != "overall":
        notes.append(f"{profile} prints {benchmark.headline(profile)} as the score, not overall")
    if guess := float(answers.scores_q[profile]["guess"].mean()):
        notes.append(f"{profile} draws where it reads nothing, which would add {guess:.3f} to the mean on average")
    counts = answers.replies(profile).counts()
    counts.pop(UNPARSED, None)
    if len(counts) == 1 and sum(counts.values()) > 1:
        notes.append(f"every readable answer is {next(iter(counts))}")
    return notes
