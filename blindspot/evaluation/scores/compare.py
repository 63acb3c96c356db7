"""Runs against each other on the questions that they share; nobody should take a change of prompt for one of model."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from blindspot.benchmarks.base import Metric
from blindspot.benchmarks.scoring import DEFAULT
from blindspot.errors import UserError
from blindspot.evaluation.run.folder import leaves_differing, short
from blindspot.evaluation.scores.answers import MEAN, ScoredAnswers, ScoredRun, load_run
from blindspot.evaluation.scores.report import METHOD, incomplete
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
    """
    if len(paths) < 2:
        raise UserError("compare needs at least two runs")
    runs = [load_run(path, [profile]) for path in paths]
    names = names_of(runs)
    notes = [f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes]
    rows: list[dict[str, Any]] = []
    for name, run in zip(names[1:], runs[1:], strict=True):
        shared, said = together(runs[0], run)
        for benchmark, (a, b) in shared.items():
            found = [difference(a, b, profile, metric) for metric in a.metrics()]
            rows += [{"a": names[0], "b": name} | row for row in found]
            said += [f"{benchmark}: {line}" for line in incomplete(a, [row["metric"] for row in found])]
        notes += [f"{name} against {names[0]}: {note}" for note in said]
    if not rows:
        raise UserError(f"no shared questions: {'; '.join(notes) or 'the runs are of other benchmarks'}")
    correct(rows, lambda row: MAIN if row["metric"] in MAIN else None)
    main = [row for row in rows if row["metric"] in MAIN]
    found = {
        "version": 1,
        "profile": profile,
        "runs": [{"name": name, "path": str(path)} for name, path in zip(names, paths, strict=True)],
        "method": METHOD,
        "comparisons": rows,
        "family": {
            "tests": sum(row["p"] is not None for row in main),
            "metric": MAIN[0],
            "benchmarks": list(dict.fromkeys(row["benchmark"] for row in main)),
        },
        "notes": notes,
    }
    return clean_json(rounded(found))


def names_of(runs: Sequence[ScoredRun]) -> list[str]:
    """Short names that tell runs apart."""
    plain = [  # a file in a benchmark's folder is named by its parents
        run.name if run.path.is_dir() or run.name != "answers" else "/".join(run.path.resolve().parts[-3:-1])
        for run in runs
    ]
    return [one if plain.count(one) == 1 else f"{one} ({place})" for place, one in enumerate(plain, start=1)]


def together(first: ScoredRun, second: ScoredRun) -> tuple[dict[str, tuple[ScoredAnswers, ScoredAnswers]], list[str]]:
    """The answers of two runs to the questions that they share, by benchmark, and notes on all that differs."""
    shared: dict[str, tuple[ScoredAnswers, ScoredAnswers]] = {}
    notes: list[str] = []
    if first.info and second.info:
        ours, theirs = (
            {key: value for key, value in run.info.items() if key not in ("answerer", "benchmarks")}
            for run in (first, second)
        )
        notes += [f"{name} differs: {short(b)} against {short(a)}" for name, a, b in leaves_differing(ours, theirs)]
    else:
        notes.append("what was asked of which model is not known: no run.json beside the answers")
    for name, answers in first.answers.items():
        other = second.answers.get(name)
        if other is None:
            notes.append(f"{name}: only the first run has it")
            continue
        digests = [run.of(name).get("digest") for run in (first, second)]
        if None not in digests and digests[0] != digests[1]:
            shown = ", ".join(str(digest)[:8] for digest in digests)
            notes.append(f"{name}: made from other data ({shown}); not compared")
            continue
        both = _shared(answers, other)
        if both is None:
            notes.append(f"{name}: no question in common ({len(answers)} and {len(other)})")
            continue
        a, b = shared[name] = both
        n = len(a)
        if n < max(len(answers), len(other)):
            there = f"{len(answers)} in the first run and {len(other)} in the later"
            notes.append(f"{name}: {n} questions shared, of {there}")
        gold_a, gold_b = (np.array(one.gold.names, dtype=object)[one.gold.code_q] for one in both)
        differing = {
            "were asked with another prompt": a.facts_q["prompt"] != b.facts_q["prompt"],
            "showed another number of pictures": a.facts_q["images"] != b.facts_q["images"],
            "have another right answer (options in another order, or other data)": gold_a != gold_b,
        }
        notes += [f"{name}: {int(q.sum())} of {n} questions {what}" for what, q in differing.items() if q.any()]
    notes += [f"{name}: only the later run has it" for name in second.answers if name not in first.answers]
    return shared, notes


def _shared(a: ScoredAnswers, b: ScoredAnswers) -> tuple[ScoredAnswers, ScoredAnswers] | None:
    """The answers of both to the questions that they share by id, in one order and with the first's groups, if any.

    They have partial matches only where both runs have one: a point has no overlap with a box.
    """
    ids = [own for own in sorted(a.row_of) if own in b.row_of]
    if not ids:
        return None
    first, second = a.take(ids), b.take(ids)
    for name, ours_q in first.scores_q.items():
        theirs_q = second.scores_q[name]
        lacking_q = np.isnan(ours_q["partial"]) | np.isnan(theirs_q["partial"])
        ours_q["partial"][lacking_q] = theirs_q["partial"][lacking_q] = np.nan
    return first, replace(second, questions=first.questions)


def difference(first: ScoredAnswers, later: ScoredAnswers, profile: str, metric: Metric) -> dict[str, Any]:
    """The later run's value minus the first's, with its interval and test.

    Exact McNemar for a share of independent units; otherwise a permutation of the runs within whole clusters.
    """
    a, b = first.sample(profile, metric), later.sample(profile, metric)
    row: dict[str, Any] = {"benchmark": first.benchmark.name, "metric": metric.name}
    row |= {"n": int(first.questions.asked(metric.terms).sum()), "units": a.items, "clusters": a.clusters}
    row |= {"scale": metric.scale, "most": metric.most, "a_value": a.value, "b_value": b.value}
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
