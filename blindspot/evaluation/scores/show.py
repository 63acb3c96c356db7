"""The scores of a run on the terminal, beside the paper's."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.scoring import HARNESS, KEEP, STRIP
from blindspot.evaluation.paper import BASELINE, load
from blindspot.evaluation.scores.answers import MEAN
from blindspot.terminal import Line, pieces
from blindspot.text import DASH, clean, number, points, span

Scores = Mapping[str, Any]
Lines = tuple[Sequence[str], Sequence[Line]]
"""Headers of a table and its rows."""
_MOST_OTHERS = 8
"""Metrics of a benchmark outside the paper's tables that are printed; ``scores.json`` holds all."""


def as_table(scores: Scores, console: Console, profiles_only: bool = False) -> None:
    """Print what `score` returned: scores beside the paper's baseline, then habits, then all profiles side by side."""
    paper = load().row(BASELINE)
    if not profiles_only:
        name, profile = clean(str(scores["run"]["name"])), clean(str(scores["profile"]))
        _heading(console, f"{name}, scored as {profile}, beside the paper's {BASELINE}")
        _print(*_score_table(scores, paper), console)
        if missing := _missing(scores):
            console.print(_text(missing, "dim"))
        _heading(console, "What the numbers rest on")
        _print(*_basis_table(scores), console)
        console.print(_text(_resolves(scores["method"]), "dim"))
        _heading(console, "How the answers look")
        _print(*_habit_table(scores), console)
    _heading(console, "The same answers under every scoring profile")
    _print(*profile_table(scores, paper), console)
    console.print(_text(PROFILES_DIFFER, "dim"))
    for line in _notes(scores):
        console.print(_text(f"Note: {line}", "dim"))


PROFILES_DIFFER = (
    "One set of answers, different rules of reading them; * marks what that harness prints as the score. The paper's "
    "GQA of 33 % for LLaVA-1.5, against 62 % elsewhere, is what a prompt and a comparison of strings can do."
)


def shown_metrics(scores: Scores, others: int = 0) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Benchmark, metric and row of every line.

    All of the paper's columns, what a harness prints as the score, the mean where there is none, and the first
    ``others`` of the rest.
    """
    columns = {column.key for column in load().columns}
    for benchmark, entry in scores["benchmarks"].items():
        metrics = entry["metrics"]
        headlines = {MEAN.name, *(side["headline"] for side in entry["profiles"].values())}
        main = [name for name in metrics if (benchmark, name) in columns or name in headlines]
        first = [name for name in main if metrics[name]["n"]]
        rest = [name for name, found in metrics.items() if name not in main and found["value"] is not None]
        for name in first + rest[:others]:
            yield benchmark, name, metrics[name]


def profile_table(scores: Scores, paper: Mapping[tuple[str, str], str]) -> Lines:
    """Metrics by profiles, the paper's row last."""
    profiles = _profiles(scores)
    headers = ("", *(name.replace("-20", "\n20").replace("-0.", "\n0.") for name in profiles), "paper")
    lines: list[Line] = []
    previous = ""
    for benchmark, metric, found in shown_metrics(scores):
        sides = scores["benchmarks"][benchmark]["profiles"]
        cells = []
        for name in profiles:
            side = sides.get(name)
            mark = "*" if side and side["headline"] == metric else ""
            cells.append(f"{number(side['metrics'][metric], found['scale'], found['most'])}{mark}" if side else DASH)
        label = _label(scores, benchmark, metric, previous)
        lines.append([label, *cells, paper.get((benchmark, metric), "")])
        if "stripped" in found:
            without = (sides[name]["stripped"][metric] if name in sides else None for name in profiles)
            shown = (number(value, found["scale"], found["most"]) for value in without)
            lines.append([_text("  stripped", "dim"), *(_text(value, "dim") for value in shown), ""])
        if metric in ("overall", MEAN.name):
            shares = (points(sides[name]["unparsed"]) if name in sides else DASH for name in profiles)
            lines.append([_text("  unreadable, %", "dim"), *(_text(share, "dim") for share in shares), ""])
        previous = benchmark
    return headers, lines


def _score_table(scores: Scores, paper: Mapping[tuple[str, str], str]) -> Lines:
    rows = list(shown_metrics(scores, _MOST_OTHERS))
    stripped = any("stripped" in found for _, _, found in rows)
    headers = ("", "score", *(["stripped"] if stripped else ()), "95 %", "paper", "chance", "corrected", "n")
    lines: list[Line] = []
    previous = ""
    for benchmark, metric, found in rows:
        on = found["scale"], found["most"]
        lines.append(
            [
                _label(scores, benchmark, metric, previous),
                _text(number(found["value"], *on) + ("~" if found["missing_terms"] and found["n"] else ""), "bold"),
                *([number(found["stripped"], *on) if "stripped" in found else ""] if stripped else ()),
                span(found["low"], found["high"], *on),
                paper.get((benchmark, metric), ""),
                number(found["chance"], *on),
                number(found["chance_corrected"]),
                str(found["n"]),
            ]
        )
        previous = benchmark
    return headers, lines


def _basis_table(scores: Scores) -> Lines:
    headers = ("", "clusters", "interval", "SE", "resolves", "constant")
    lines: list[Line] = []
    previous = ""
    for benchmark, metric, found in shown_metrics(scores):
        on = found["scale"], found["most"]
        constant = DASH if found["constant"] is None else f"{number(found['constant'], *on)}"
        answer = "" if found["constant_answer"] is None else f" ({clean(found['constant_answer'], 12)})"
        lines.append(
            [
                _label(scores, benchmark, metric, previous),
                str(found["clusters"]),
                found["interval"],
                number(found["error"], *on),
                number(found["resolves"], *on),
                constant + answer,
            ]
        )
        previous = benchmark
    return headers, lines


def _habit_table(scores: Scores) -> Lines:
    headers = ("", "unreadable\n%", "cut off\n%", "yes, %\n(right)", "letters, %\n(right)", "precision\nrecall\nF1")
    lines: list[Line] = []
    for benchmark, entry in scores["benchmarks"].items():
        habits = entry["habits"]
        yes = f"{points(habits['yes_rate'])} ({points(habits['yes_gold'])})" if "yes_rate" in habits else ""
        detection = "\n".join(number(habits[name]) for name in ("precision", "recall", "f1")) if yes else ""
        lines.append(
            [
                clean(benchmark),
                points(habits["unparsed"]),
                points(habits["cut_off"]),
                yes,
                _letters(habits.get("letters", {}), habits.get("letters_gold", {})),
                detection,
            ]
        )
    return headers, lines


def _letters(letters: Mapping[str, int], gold: Mapping[str, int]) -> str:
    total, right = sum(letters.values()), sum(gold.values())
    names = sorted({*letters, *gold}, key=lambda name: (len(name) > 1, name))
    return "\n".join(
        f"{clean(name, 10)} {100 * letters.get(name, 0) / total:.0f}"
        + (f" ({100 * gold[name] / right:.0f})" if name in gold else "")
        for name in names
    )


def _profiles(scores: Scores) -> list[str]:
    return list(dict.fromkeys(name for entry in scores["benchmarks"].values() for name in entry["profiles"]))


def _label(scores: Scores, benchmark: str, metric: str, previous: str) -> str:
    name = "" if metric == "overall" else metric
    if metric == MEAN.name:
        known = "incomplete: " if benchmark in BENCHMARKS else ""
        name = f"{known}mean of {scores['benchmarks'][benchmark]['questions']} rows"
    return f"  {clean(metric)}" if benchmark == previous else clean(f"{benchmark} {name}")


def _missing(scores: Scores) -> str:
    absent = [column.benchmark for column in load().main_columns() if column.benchmark not in scores["benchmarks"]]
    return f"Not in this run: {', '.join(absent)}." if absent else ""


def _resolves(method: Mapping[str, Any]) -> str:
    return (
        f"resolves: smallest true difference to another model that a paired test finds with {method['power']:.0%} "
        f"power at {method['alpha']}, if the two models' scores of a cluster correlate by {method['correlation']}; "
        "constant: what the best answer that is always the same would score."
    )


def _thinking(scores: Scores) -> str:
    """One line on thoughts in answers; empty where there are none."""
    shares = {name: entry["thinking"] for name, entry in scores["benchmarks"].items() if entry["thinking"]["answers"]}
    if not shares:
        return ""
    held = (f"{clean(n)} {points(s['answers'])} % ({points(s['cut_off'])} % never end)" for n, s in shares.items())
    treated = {
        HARNESS: "scored as each harness does it; stripped: without them",
        STRIP: "taken off before scoring, as --thinking strip says",
        KEEP: "left in the answers, as --thinking keep says",
    }
    return f"Answers that hold a thought: {', '.join(held)}; {treated[scores['thinking']]}."


def _notes(scores: Scores) -> Iterator[str]:
    if line := _thinking(scores):
        yield line
    yield from (clean(note) for note in scores["notes"])
    for benchmark, entry in scores["benchmarks"].items():
        yield from (clean(f"{benchmark}: {note}") for note in entry["notes"])
    if any(found["missing_terms"] and found["n"] for _, _, found in shown_metrics(scores)):
        yield "~ marks a mean over the parts that have questions."


def _print(headers: Sequence[str], lines: Sequence[Line], console: Console) -> None:
    for table in pieces(headers, lines, console.width):
        console.print(table)


def _heading(console: Console, text: str) -> None:
    console.print(_text(text, "bold"))


def _text(text: str, style: str = "") -> Text:
    return Text(text, style=style)
