"""Runs against each other on the questions that they share."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blindspot.benchmarks.base import Metric
from blindspot.benchmarks.scoring import DEFAULT
from blindspot.errors import UserError
from blindspot.evaluation.scores.answers import MEAN, Answers
from blindspot.evaluation.scores.differing import differing, rows_differing
from blindspot.evaluation.scores.report import METHOD, incomplete
from blindspot.evaluation.scores.runs import Run, load_run
from blindspot.evaluation.statistics import correct, paired, resolves
from blindspot.text import clean_json, rounded

MAIN = ("overall", MEAN.name)
"""Names of a benchmark's score."""


def compare(paths: Sequence[Path], profile: str = DEFAULT) -> dict[str, Any]:
    """Compare every later run with the first.

    Returns:
        ``profile``, ``method``, ``runs`` (their names), ``comparisons`` (one row per pair, benchmark and metric;
        ``difference`` is the later run minus the first), ``family`` of Holm's correction, and ``notes``: everything in
        which the runs differ besides the model, and what was left out.

    Raises:
        UserError: if a run cannot be read, or no two runs share a question.
    """
    if len(paths) < 2:
        raise UserError("compare needs at least two runs")
    runs = [load_run(path, [profile]) for path in paths]
    names = _names(runs)
    notes = [f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes]
    rows: list[dict[str, Any]] = []
    for name, run in zip(names[1:], runs[1:], strict=True):
        labels = {"a": names[0], "b": name}
        found, said = _pair(runs[0], run, profile)
        rows += [labels | row for row in found]
        notes += [f"{name} against {names[0]}: {note}" for note in said]
    if not rows:
        raise UserError(f"no shared questions: {'; '.join(notes) or 'the runs are of other benchmarks'}")
    correct(rows, lambda row: MAIN if row["metric"] in MAIN else None)
    main = [row for row in rows if row["metric"] in MAIN]
    tests = sum(row["p"] is not None for row in main)
    family = {"tests": tests, "metric": MAIN[0], "benchmarks": list(dict.fromkeys(row["benchmark"] for row in main))}
    return clean_json(
        rounded(
            {
                "version": 1,
                "profile": profile,
                "runs": [{"name": name, "path": str(path)} for name, path in zip(names, paths, strict=True)],
                "method": METHOD,
                "comparisons": rows,
                "family": family,
                "notes": notes,
            }
        )
    )


def shared(a: Answers, b: Answers) -> tuple[Answers, Answers] | None:
    """The answers of both to the questions that they share by id, in one order and with the first's groups, if any."""
    ids = [own for own in sorted(a.row_of) if own in b.row_of]
    if not ids:
        return None
    first = a.take(ids)
    second = replace(b.take(ids), questions=first.questions)
    return _partial_in_both(first, second), _partial_in_both(second, first)


def metric_difference(both: tuple[Answers, Answers], profile: str, metric: Metric) -> dict[str, Any]:
    """The later run's value minus the first's, with its interval and test.

    Exact McNemar for a share of independent units; otherwise a permutation of the runs within whole clusters.
    """
    a, b = (answers.sample(profile, metric) for answers in both)
    n = int(both[0].questions.asked(metric.terms).sum())
    row: dict[str, Any] = {"benchmark": both[0].benchmark.name, "metric": metric.name}
    row |= {"n": n, "units": a.items, "clusters": a.clusters, "scale": metric.scale, "most": metric.most}
    row |= {"a_value": a.value, "b_value": b.value}
    if a.clusters == 0:
        return row | dict.fromkeys(("difference", "low", "high", "error", "p", "resolves", "test"))
    found = paired(b, a)
    return row | {
        "difference": found.value,
        "low": found.low,
        "high": found.high,
        "error": found.error,
        "p": found.p,
        "resolves": resolves(found.error, metric.most),
        "test": "mcnemar" if a.proportion and b.proportion else "permutation",
    }


def _partial_in_both(mine: Answers, other: Answers) -> Answers:
    """Partial matches only where both runs have one: a point has no overlap with a box."""
    scorings = {
        name: replace(one, partial_q=np.where(np.isnan(other.scorings[name].partial_q), np.nan, one.partial_q))
        for name, one in mine.scorings.items()
    }
    return replace(mine, scorings=scorings)


def _pair(first: Run, second: Run, profile: str) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and notes of two runs."""
    rows: list[dict[str, Any]] = []
    notes = differing(first.info, second.info)
    for name, answers in first.answers.items():
        if name not in second.answers:
            notes.append(f"{name}: only the first run has it")
            continue
        digests = first.of(name).get("digest"), second.of(name).get("digest")
        if None not in digests and digests[0] != digests[1]:
            notes.append(f"{name}: made from other data ({_short(digests[0])}, {_short(digests[1])}); not compared")
            continue
        both = shared(answers, second.answers[name])
        if both is None:
            notes.append(f"{name}: no question in common ({len(answers)} and {len(second.answers[name])})")
            continue
        notes += rows_differing(name, answers, second.answers[name], *both)
        found = [metric_difference(both, profile, metric) for metric in both[0].metrics()]
        notes += [f"{name}: {line}" for line in incomplete(both[0], [row["metric"] for row in found])]
        rows += found
    notes += [f"{name}: only the later run has it" for name in second.answers if name not in first.answers]
    return rows, notes


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each run, numbered where two are alike; a file in a benchmark's folder is named by its parents."""

    def name(run: Run) -> str:
        path = run.path.resolve()
        return run.name if path.is_dir() or run.name != "answers" else f"{path.parent.parent.name}/{path.parent.name}"

    plain = [name(run) for run in runs]
    return [one if plain.count(one) == 1 else f"{one} ({place})" for place, one in enumerate(plain, start=1)]


def _short(digest: Any) -> str:
    return str(digest)[:8]
