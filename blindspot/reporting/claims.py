"""What is concluded of arms after the last stage: runs that learned, steps to learn, and the verdicts on claims."""

from collections.abc import Iterable, Sequence
from math import exp, isfinite, log
from statistics import fmean
from typing import Any

from blindspot.evaluation.statistics import (
    ALPHA,
    Part,
    Sample,
    clopper_pearson,
    contrast,
    correct,
    detectable,
    fisher_exact,
    wilson,
)
from blindspot.evaluation.times import LEVEL, Bounds, TimeEffect, reached, time_contrast
from blindspot.reporting.run import Pair, ProbeRow, RunAnswers, RunClaim, RunKey, RunPlan

UNLEARNED = 0.25
"""Of the way from chance to the best run, what a run that failed stays within."""
MOST = log(1e6)
"""A ratio of times beyond which none is told."""
Row = dict[str, Any]
Probes = dict[tuple[str, int], list[ProbeRow]]


def unlearned(rows: dict[RunKey, Row], level: float | None = None) -> set[RunKey]:
    """The runs that failed to learn a column, of all that are scored on it: those below ``level`` where one is stated.

    Without one, Wilson's interval of such a run's score, each cluster of questions taken for one, lies in the lowest
    quarter of the way from chance to the best run after the same stage. So few questions call no run a failure, and nor
    does a column without a chance level, or one that no run has learned.
    """
    best: dict[str, float] = {}
    for key, row in rows.items():
        best[key.stage] = max(best.get(key.stage, 0.0), row["score"] or 0.0)
    failed: set[RunKey] = set()
    for key, row in rows.items():
        if level is not None and row["score"] is not None:
            failed |= {key} if row["score"] < level else set()
        elif row["chance"] is not None and row["score"] is not None:
            high, least = wilson(row["score"] * row["clusters"], row["clusters"]).high, row["chance"]
            if high is not None and high < least + UNLEARNED * (best[key.stage] - least):
                failed.add(key)
    return failed


def counted(keys: list[RunKey], failed: set[RunKey]) -> list[RunKey]:
    """Those of an arm's runs that its score is taken from: the ones that learned, or all where fewer than two did.

    A single run that learned would have to borrow its noise from arms that may never fail.
    """
    fit = [key for key in keys if key not in failed]
    return fit if len(fit) > 1 else keys


def outcome(keys: Sequence[RunKey], failed: set[RunKey]) -> Row:
    """How many of an arm's runs learned, and the exact interval of the share that did not."""
    none = sum(key in failed for key in keys)
    low, high = clopper_pearson(none, len(keys))
    return {"runs": len(keys), "learned": len(keys) - none, "counted": len(counted(list(keys), failed)),
            "failed_low": low, "failed_high": high}  # fmt: skip


def failure_p(sides: tuple[list[RunKey], list[RunKey]], failed: set[RunKey]) -> tuple[float, bool]:
    """Fisher's exact p of two arms' shares of runs that learned, and whether their scores differ by these shares.

    They do where some run learned and an arm is counted whole with runs that failed.
    """
    shares = tuple((sum(key not in failed for key in keys), len(keys)) for keys in sides)
    by_failing = any(some for some, _ in shares) and any(some < min(2, total) for some, total in shares)
    return fisher_exact(*shares), by_failing


def times(plan: RunPlan, probes: Probes) -> Row:
    """Steps to `LEVEL`: of every arm and column with probes, and of the pairs as ratios."""
    arms: list[Row] = []
    pairs: list[Row] = []
    for column in plan.columns:
        own = {key: bounds for key, rows in probes.items() if (bounds := _bounds(rows, column.id, LEVEL))}
        for arm in plan.arms:
            found = [{arm.id: bounds} for (name, _), bounds in own.items() if name == arm.id]
            if found:
                typical = time_contrast({arm.id: 1.0}, found)
                done = sum(isfinite(one[arm.id][1]) for one in found)
                arms.append({"arm": arm.id, "column": column.id, "level": LEVEL, "runs": len(found), "reached": done}
                            | _ratios(typical, "steps"))  # fmt: skip
        for pair in plan.pairs:
            effect = _between(pair, own)
            if effect.seeds:
                own_pair = pair.model_dump(include={"a", "b", "label", "kind"})
                pairs.append({**own_pair, "column": column.id, "level": LEVEL, "seeds": effect.seeds, "p": effect.p}
                             | _ratios(effect, "ratio"))  # fmt: skip
    correct(pairs, lambda row: None if row["kind"] == "replicate" else row["kind"])
    return {"arms": arms, "pairs": pairs}


def _between(pair: Pair, own: dict[tuple[str, int], Bounds]) -> TimeEffect:
    seeds = [seed for arm, seed in own if arm == pair.a and (pair.b, seed) in own]
    sides = [{arm: own[arm, seed] for arm in (pair.a, pair.b)} for seed in seeds]
    return time_contrast({pair.a: 1.0, pair.b: -1.0}, sides)


def _bounds(rows: Iterable[ProbeRow], column: str, level: float) -> Bounds | None:
    seen = [(row.step, row.right[column]) for row in rows if column in row.right]
    return reached(seen, level) if seen else None


def _ratios(effect: TimeEffect, name: str) -> Row:
    """Value and ends of a contrast of logarithms as ratios; None where they are open, or beyond a million."""
    ends = {name: effect.value, "low": effect.low, "high": effect.high}
    return {key: None if end is None or abs(end) > MOST else exp(end) for key, end in ends.items()}


def verdicts(plan: RunPlan, answers: RunAnswers, failed: dict[str, set[RunKey]], probes: Probes) -> list[Row]:
    """One row a claim: effect after the last stage, its interval, Holm's p over all of them, power, and the verdict.

    A claim is ``supported`` if the effect differs from zero, after Holm's correction, with the sign that it predicts;
    ``refuted`` if it differs with the other sign, or at all where none was predicted; ``equivalent`` if its interval
    lies within the margin that it states, where no sign was predicted or none was found; else ``undecided``.
    ``detectable`` is the effect that its error would have found in 80 of 100 such studies at Holm's first step.

    Args:
        failed: per column the runs that have not learned it.
        probes: of every arm and seed.
    """
    rows: list[Row] = []
    found: list[tuple[float, Sequence[Part]]] = []
    for claim in plan.hypotheses:
        tested = (_score if claim.outcome == "score" else _time)(plan, claim, answers, failed, probes)
        if tested is not None:
            row, sign, parts = tested
            rows.append({**claim.model_dump(), **row})
            found.append((sign, parts))
    correct(rows, lambda row: "claims")
    tests = sum(row["p"] is not None for row in rows)
    for row, (sign, parts) in zip(rows, found, strict=True):
        significant, timed = row.pop("significant"), row["outcome"] == "time"
        row["detectable"] = smallest = detectable(parts, tests) if row["p"] is not None else None
        if timed and smallest is not None:
            swaps = 2.0 ** (1 - row["seeds"])  # the least p that there can be
            row["detectable"] = exp(smallest) if swaps <= ALPHA / tests and smallest < MOST else None
        signs = {"positive": sign > 0, "negative": sign <= 0, "zero": False}
        held = "supported" if signs[row["predicts"]] else "refuted"
        equivalent = _within(row["low"], row["high"], row["margin"], timed)
        if row["p_holm"] is None:
            row["verdict"] = "not tested"
        elif equivalent and (row["predicts"] == "zero" or not significant):
            row["verdict"] = "equivalent"
        else:
            row["verdict"] = held if significant else "undecided"
    return rows


def _within(low: float | None, high: float | None, margin: float | None, timed: bool) -> bool:
    """Whether an interval lies within a margin: a factor either way, or points."""
    if margin is None or low is None or high is None:
        return False
    return 1 / margin < low and high < margin if timed else max(-low, high) < margin / 100


def _score(plan: RunPlan, claim: RunClaim, answers: RunAnswers, failed: dict[str, set[RunKey]],
           probes: Probes) -> tuple[Row, float, Sequence[Part]] | None:  # fmt: skip
    """The contrast of scores, over the seeds at which all of its arms have runs that count."""
    columns, weights = plan.meant(claim.column), list(claim.contrast.values())
    seen = [(column.id, answers.samples(column, places)) for column in columns if (places := answers.iid(column))]
    runs: dict[str, dict[int, RunKey]] = {}
    for arm in claim.contrast:
        keys = [key for key in answers.runs(arm, plan.stages()[-1]) if all(key in samples for _, samples in seen)]
        fit = [set(counted(keys, failed.get(name, set()))) for name, _ in seen]
        runs[arm] = {key.seed: key for key in keys if all(key in own for own in fit)}
    seeds = sorted(set.intersection(*map(set, runs.values())))
    if not seeds or len(seen) < len(columns):
        return None

    def sample(key: RunKey) -> Sample:
        return Sample.joined([samples[key] for _, samples in seen]) if len(seen) > 1 else seen[0][1][key]

    effects_s = [Sample.combined([sample(runs[arm][seed]) for arm in claim.contrast], weights) for seed in seeds]
    mean = Sample.combined(effects_s, [1 / len(seeds)] * len(seeds))
    values_s = [effect.value or 0.0 for effect in effects_s]
    test = contrast(values_s, mean.difference_error(), mean.clusters, sum(max(one, 0) for one in weights))
    found = {name: getattr(test, name) for name in ("low", "high", "df", "p", "error", "error_questions")}
    alone = [effect.difference_error() or 0.0 for effect in effects_s]
    found |= {"clusters": mean.clusters, "error_alone": fmean(one**2 for one in alone) ** 0.5}
    return {"effect": test.value, "seeds": len(seeds)} | found, test.value or 0.0, test.parts


def _time(plan: RunPlan, claim: RunClaim, answers: RunAnswers, failed: dict[str, set[RunKey]],
          probes: Probes) -> tuple[Row, float, Sequence[Part]]:  # fmt: skip
    """The contrast of log times, over the seeds at which all of its arms have probes; without any, not tested."""
    columns = plan.meant(claim.column)
    weights = {(arm, own.id): one / len(columns) for arm, one in claim.contrast.items() for own in columns}
    bounds_s = []
    for seed in sorted({seed for _, seed in probes}):
        bounds = {(arm, own): _bounds(probes.get((arm, seed), ()), own, claim.level) for arm, own in weights}
        known = {key: ends for key, ends in bounds.items() if ends is not None}
        if len(known) == len(weights):
            bounds_s.append(known)
    effect = time_contrast(weights, bounds_s)
    spread = [] if effect.deviation is None else [(effect.deviation**2 / effect.seeds, effect.seeds - 1.0)]
    row = _ratios(effect, "effect") | {"seeds": effect.seeds, "p": effect.p, "deviation": effect.deviation}
    return row, effect.value or 0.0, spread
