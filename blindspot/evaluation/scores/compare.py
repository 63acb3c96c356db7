"""Runs against each other on the questions that they share.

Suffixes: ``q`` shared questions, ``c`` clusters, ``t`` terms, ``u`` units.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from blindspot.benchmarks.base import Metric
from blindspot.benchmarks.scoring import DEFAULT
from blindspot.errors import UserError
from blindspot.evaluation.scores.answers import MEAN, Answers
from blindspot.evaluation.scores.differing import differing, rows_differing
from blindspot.evaluation.scores.metrics import SPREADS, replicates
from blindspot.evaluation.scores.report import METHOD, incomplete
from blindspot.evaluation.scores.resampling import sign_flip_p
from blindspot.evaluation.scores.runs import Run, load_run
from blindspot.evaluation.scores.text import clean_json
from blindspot.evaluation.scores.units import Totals, asked, clusters_of, metrics_of, most_of, totals
from blindspot.evaluation.statistics import ALPHA, Difference, difference, holm, mcnemar_exact
from blindspot.text import rounded

MAIN = ("overall", MEAN.name)
"""Names of a benchmark's score."""


@dataclass(frozen=True)
class Shared:
    """The answers of two runs to the same questions of a benchmark, in one order and with the first run's groups."""

    a: Answers
    b: Answers
    cluster_q: np.ndarray


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
    family = _correct(rows)
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


def shared(a: Answers, b: Answers) -> Shared | None:
    """The questions that both runs answered, by id; None without any."""
    ids = [own for own in sorted(a.row_of) if own in b.row_of]
    if not ids:
        return None
    first = a.take(np.array([a.row_of[own] for own in ids]))
    second = replace(b.take(np.array([b.row_of[own] for own in ids])), groups=first.groups)
    return Shared(_partial_in_both(first, second), _partial_in_both(second, first), clusters_of(first))


def metric_difference(both: Shared, profile: str, metric: Metric) -> dict[str, Any]:
    """The later run's value minus the first's, with its interval and test.

    Exact McNemar for a share of independent units; otherwise a permutation of the runs within whole clusters, and the
    standard error of a paired cluster bootstrap.
    """
    a, b = (totals(answers, profile, metric, both.cluster_q) for answers in (both.a, both.b))
    row: dict[str, Any] = {"benchmark": both.a.benchmark.name, "metric": metric.name}
    row |= {
        "n": int(asked(both.a, metric).sum()),
        "units": a.units,
        "clusters": a.clusters,
        "scale": metric.scale,
        "most": most_of(metric),
    }
    if a.clusters == 0:
        return row | dict.fromkeys(
            ("a_value", "b_value", "difference", "low", "high", "error", "p", "resolves", "test")
        )
    change_ct = b.sums_ct - a.sums_ct
    share_c = (change_ct / a.counts_ct.sum(axis=0)) @ a.weights_t / a.most
    exact = a.proportion and b.proportion
    p = mcnemar_exact(b.sums_ct[:, 0], a.sums_ct[:, 0]) if exact else sign_flip_p(share_c)
    found = difference(float(share_c.sum()), _error(change_ct, share_c, a), a.clusters, p)
    counts_t = a.counts_ct.sum(axis=0)
    return row | {
        "a_value": float(a.value(a.sums_ct.sum(axis=0), counts_t)),
        "b_value": float(b.value(b.sums_ct.sum(axis=0), counts_t)),
        **_scaled(found, a.most),
        "test": "mcnemar" if exact else "permutation",
    }


def _partial_in_both(mine: Answers, other: Answers) -> Answers:
    """Partial matches only where both runs have one: a point has no overlap with a box."""
    scorings = {
        name: replace(one, partial_q=np.where(np.isnan(other.scorings[name].partial_q), np.nan, one.partial_q))
        for name, one in mine.scorings.items()
    }
    return replace(mine, scorings=scorings)


def _scaled(found: Difference, most: float) -> dict[str, Any]:
    sizes = {"difference": found.value, "low": found.low, "high": found.high, "error": found.error}
    scaled = {name: None if size is None else size * most for name, size in sizes.items()}
    error = scaled["error"]
    return scaled | {"p": found.p, "resolves": None if error is None else min(SPREADS * error, most)}


def _error(change_ct: np.ndarray, share_c: np.ndarray, sums: Totals) -> float | None:
    """Standard error of the difference, as a share of the most that there is.

    Where resampling shows no spread, one cluster of +1 and one of -1 are added, the adjustment of Bonett and Price
    (2012) for paired proportions.
    """
    if sums.clusters < 2:
        return None
    replicates_r = replicates(_direction(share_c) * change_ct, sums) / sums.most
    deviation = float(replicates_r.std(ddof=1)) if len(replicates_r) > 1 else 0.0
    if deviation > 1e-12:
        return deviation
    each_c = share_c * sums.clusters
    n = sums.clusters + 2
    mean, square = float(each_c.sum()) / n, (float((each_c**2).sum()) + 2) / n
    return float(np.sqrt((square - mean**2) / n))


def _direction(share_c: np.ndarray) -> float:
    """1 or -1, the opposite for the opposite differences, so that turning a pair round draws the same resamples."""
    skew_c = np.sort(share_c) - np.sort(-share_c)
    return float(np.sign(skew_c[np.flatnonzero(skew_c)[:1]]).sum()) or 1.0


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
        notes += rows_differing(name, answers, second.answers[name], both.a, both.b)
        found = [metric_difference(both, profile, metric) for metric in metrics_of(both.a)]
        notes += [f"{name}: {line}" for line in incomplete(both.a, [row["metric"] for row in found])]
        rows += found
    notes += [f"{name}: only the later run has it" for name in second.answers if name not in first.answers]
    return rows, notes


def _correct(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add ``p_holm`` and ``significant``; the family is every ``overall`` of every pair that could be tested."""
    main = [row for row in rows if row["metric"] in MAIN]
    adjusted = dict(zip(map(id, main), holm([row["p"] for row in main]), strict=True))
    for row in rows:
        row["p_holm"] = adjusted.get(id(row))
        row["significant"] = row["p_holm"] is not None and row["p_holm"] < ALPHA
    tests = sum(row["p"] is not None for row in main)
    return {"tests": tests, "metric": MAIN[0], "benchmarks": list(dict.fromkeys(row["benchmark"] for row in main))}


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each run, numbered where two are alike; a file in a benchmark's folder is named by its parents."""

    def name(run: Run) -> str:
        path = run.path.resolve()
        return run.name if path.is_dir() or run.name != "answers" else f"{path.parent.parent.name}/{path.parent.name}"

    plain = [name(run) for run in runs]
    return [one if plain.count(one) == 1 else f"{one} ({place})" for place, one in enumerate(plain, start=1)]


def _short(digest: Any) -> str:
    return str(digest)[:8]
