"""How many seeds a study needs to find an effect, from the noise of a run that there is already."""

from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from statistics import fmean
from typing import Any

import scipy
from rich import box
from rich.console import Console
from rich.text import Text

from blindspot.errors import UserError
from blindspot.evaluation.paper import load, report
from blindspot.evaluation.statistics import ALPHA, CONFIDENCE, Part, detectable
from blindspot.reporting.claims import verdicts
from blindspot.reporting.results import collect, failed_runs
from blindspot.reporting.run import RunClaim, load_answers, load_plan, load_probes
from blindspot.terminal import listing
from blindspot.text import signed

MOST = 999
"""Seeds that are thought of."""
_ASKED = (2, 3, 5, 8, 12, 30)
Row = dict[str, Any]


def seeds_needed(
    run: Path, claims: Sequence[RunClaim], means: dict[str, list[str]], points: float, factor: float
) -> dict[str, list[Row]]:
    """The fewest seeds that find an effect in 80 of 100 studies, at Holm's first step, as noisy as a pilot was.

    The variance between runs and that from questions are the pilot's; more seeds narrow the first alone. So ``seeds``
    is None, and ``why`` says it, where the questions are too few, or where the pilot does not know.

    Args:
        claims: to be tested together, on columns or ``means`` of them.
        points: the effect on scores; ``factor``: that on steps to learn.

    Returns:
        Rows of ``claims``, and of ``pairs`` by column.
    """
    results = collect(run)
    plan = load_plan(run).model_copy(update={"hypotheses": list(claims), "means": means})
    failed, names = failed_runs(results["scores"]), {column.id for column in plan.columns}
    arms = {arm.id for arm in plan.arms}
    wanted = {
        claim.id: ({*claim.contrast} - arms) | ({*means.get(claim.column, [claim.column])} - names) for claim in claims
    }
    lacking = {own: sorted(absent) for own, absent in wanted.items() if absent}
    plan.hypotheses = [claim for claim in claims if claim.id not in lacking]
    found = {row["id"]: row for row in verdicts(plan, load_answers(run, plan), failed, load_probes(run, plan))}
    of_claims = []
    for claim in claims:
        row, effect = found.get(claim.id), points / 100 if claim.outcome == "score" else log(factor)
        said = {"id": claim.id, "claim": claim.claim, "outcome": claim.outcome, "column": claim.column}
        if claim.id in lacking:
            answer = {"seeds": None, "why": f"the pilot has no {', '.join(lacking[claim.id])}"}
        else:
            answer = _of_claim(row, effect, len(claims))
        of_claims.append(said | answer)
    last = [row for row in results["differences"] if (row["stage"], row["split"]) == (results["stages"][-1], "iid")]
    of_pairs = [
        {key: row[key] for key in ("a", "b", "label", "kind", "column")}
        | _of_pair(row, points / 100, sum(row["kind"] == other["kind"] for other in last), results)
        for row in last
        if row["kind"] != "replicate"
    ]
    return {"claims": of_claims, "pairs": of_pairs}


def _of_claim(row: Row | None, effect: float, tests: int) -> Row:
    if row is None or row["p"] is None:
        told = "no probes" if row is not None and row["outcome"] == "time" else "fewer than two seeds that count"
        return {"seeds": None, "why": f"the pilot has {told}"}
    if row["outcome"] == "time":
        if row["deviation"] is None:
            return {"seeds": None, "why": "one side was never learned in the pilot"}
        least = next(seeds for seeds in range(2, MOST) if 2.0 ** (1 - seeds) <= ALPHA / tests)
        return _search(lambda seeds: [(row["deviation"] ** 2 / seeds, seeds - 1.0)], effect, tests, least)
    return _search(_parts(row, row["error_alone"], row["seeds"], 1.0), effect, tests)


def _of_pair(row: Row, effect: float, tests: int, results: Row) -> Row:
    if not row["noise_included"]:
        return {"seeds": None, "why": "the pilot ran nothing twice"}
    counts = [score["counted"] for score in results["scores"] if score["seed"] is None
              and score["arm"] in (row["a"], row["b"])
              and all(score[key] == row[key] for key in ("column", "stage", "split"))]  # fmt: skip
    runs = 2 / sum(1 / count for count in counts)
    t = -float(scipy.special.stdtrit(row["clusters"] - 1, (1 - CONFIDENCE) / 2))
    alone = fmean(((seed["high"] - seed["low"]) / 2 / t) ** 2 for seed in row["seeds"]) ** 0.5
    return _search(_parts(row, alone, runs, row["df"] / max(runs - 1, 1)), effect, tests)


def _parts(row: Row, alone: float, runs: float, df: float) -> Callable[[int], list[Part]]:
    """Of the error of an effect the parts that it would have with more seeds.

    The error from questions is partly of the questions themselves and partly of how single runs answer them, which
    averages out: ``alone`` is that of one seed, the row's that of ``runs``.
    """
    between = (row["error"] ** 2 - row["error_questions"] ** 2) * runs
    many, one = row["error_questions"] ** 2, alone**2
    lasting = min(max((runs * many - one) / (runs - 1), 0.0), many) if runs > 1 else many
    passing = max(many - lasting, 0.0) * runs
    clusters = row["clusters"] - 1.0
    return lambda seeds: [(between / seeds, df * (seeds - 1)), (lasting + passing / seeds, clusters)]


def _search(parts: Callable[[int], list[Part]], effect: float, tests: int, least: int = 2) -> Row:
    """The fewest seeds at which an effect can be found; more seeds can always find less."""

    def enough(seeds: int) -> bool:
        known = [part for part in parts(seeds) if part[0] > 0]
        return not known or (detectable(known, tests) or 0.0) <= effect

    low, high = least, MOST
    if not enough(MOST):
        return {"seeds": None, "why": f"{MOST} would not do: more questions"}
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return {"seeds": low, "why": None}


def signs_told(run: Path) -> dict[str, Any]:
    """How many seeds a study of the paper's design would need to tell each of its differences from noise.

    The noise of questions is that of the printed numbers. That of training, which one run a row leaves unknown, is
    taken from a miniature: the deviation between its runs of one arm, of the mean over the columns that are relatives
    of a benchmark, all runs counted.

    Returns:
        ``noise`` by benchmark; ``signs``, a row a difference, with the ``seeds`` that find it in 80 of 100 studies at
        Holm's first step over all, or None, and whether two single runs of one arm differ as much (``within``: 95 % of
        them differ by more than it); ``told``: how many are found with so many seeds.
    """
    plan, results = load_plan(run), collect(run)
    last, scores = results["stages"][-1], {}
    twins = {arm.id: arm.replicate_of or arm.id for arm in plan.arms}
    for row in results["scores"]:
        if row["seed"] is not None and (row["stage"], row["split"]) == (last, "iid") and row["score"] is not None:
            scores[row["arm"], row["seed"], row["column"]] = row["score"]
    runs = sorted({(arm, seed) for arm, seed, _ in scores})
    noise: dict[str, Row] = {}
    for title in dict.fromkeys(column.paper for column in plan.columns if column.relative):
        own = [column.id for column in plan.columns if column.paper == title]
        found: dict[str, list[float]] = {}
        for arm, seed in runs:
            if all((arm, seed, column) in scores for column in own):
                found.setdefault(twins[arm], []).append(fmean(scores[arm, seed, column] for column in own))
        df = sum(len(values) - 1 for values in found.values())
        if df:
            squares = sum((value - fmean(values)) ** 2 for values in found.values() for value in values)
            noise[title] = {"benchmark": title, "deviation": (squares / df) ** 0.5, "df": df}
    if not noise:
        raise UserError(f"{run}: no arm of a miniature on drawn scenes ran twice, so that its noise is not known")
    z, signs = float(scipy.special.ndtri((1 + CONFIDENCE) / 2)), []
    relatives = {own.benchmark: one for own in load().columns for one in noise if own.title.startswith(one)}
    rows = [row for row in report()["differences"] if row["benchmark"] in relatives]
    for row in rows:
        deviation = noise[relatives[row["benchmark"]]]["deviation"]
        of_questions, effect = ((row["high"] - row["low"]) / 2 / z) ** 2, abs(row["difference"])
        need = _search(_paper_parts(deviation, of_questions), effect, len(rows))
        kept = {key: row[key] for key in ("variant", "baseline", "moves", "benchmark", "difference")}
        within = effect < z * 2**0.5 * deviation
        signs.append(kept | {"deviation": deviation, "seeds": need["seeds"], "within": within})
    told = {seeds: sum(row["seeds"] is not None and row["seeds"] <= seeds for row in signs) for seeds in _ASKED}
    return {"study": plan.study, "noise": list(noise.values()), "signs": signs, "told": told}


def _paper_parts(deviation: float, of_questions: float) -> Callable[[int], list[Part]]:
    """Of the error of a difference of two arms, each trained so many times."""
    return lambda seeds: [(2 * deviation**2 / seeds, 2.0 * (seeds - 1)), (of_questions, 1e6)]


def print_signs(found: dict[str, Any], console: Console) -> None:
    """A table of the paper's differences by benchmark: the seeds that each needs."""
    tests = len(found["signs"])
    title = f"Seeds to tell the paper's differences from noise, in 80 of 100 studies (Holm over {tests})"
    console.print(Text(title, style="bold"), soft_wrap=True)
    pairs = list(dict.fromkeys((row["variant"], row["baseline"]) for row in found["signs"]))
    at = {(row["variant"], row["baseline"], row["benchmark"]): row for row in found["signs"]}
    table = listing("", *(name for name, _ in pairs), box=box.SIMPLE_HEAD)
    for benchmark in dict.fromkeys(row["benchmark"] for row in found["signs"]):
        own = [at[*pair, benchmark] for pair in pairs]
        cells = [f"{signed(row['difference'])}: {row['seeds'] or 'never'}" for row in own]
        table.add_row(*map(Text, (benchmark, *cells)))
    console.print(table)
    told = ", ".join(f"{count} with {seeds}" for seeds, count in found["told"].items())
    within = sum(row["within"] for row in found["signs"])
    said = (
        f"Of {tests} differences are told: {told} seeds an arm. {within} are no larger than what two single runs of "
        f"one arm of {found['study']} differ by in 95 of 100 cases. Never: the questions are too few. The noise of "
        "training is a miniature's, in points; a large model's may be another."
    )
    console.print(Text(said))


def print_seeds(found: dict[str, list[Row]], points: float, factor: float, console: Console) -> None:
    """Claims, then pairs: the seeds that each column needs."""
    for kind, effect, heads, keys in (
        ("claim", f"{points:g} points, or a factor of {factor:g},", ("of", "column"), ("claim", "outcome", "column")),
        ("pair", f"{points:g} points", ("column",), ("label", "column")),
    ):
        if rows := found[f"{kind}s"]:
            console.print(Text(f"Seeds for each {kind} to find {effect} in 80 of 100 studies", "bold"), soft_wrap=True)
            table = listing(kind, *heads, "seeds", box=box.SIMPLE_HEAD)
            for row in rows:
                table.add_row(*(Text(str(row[key])) for key in keys), Text(str(row["seeds"] or row["why"])))
            console.print(table)
