"""Scores, comparisons and the paper's numbers on the terminal, in tables that fit it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.scoring import HARNESS, KEEP, STRIP
from blindspot.evaluation.paper import BASELINE, load
from blindspot.evaluation.scores.answers import MEAN
from blindspot.evaluation.scores.compare import MAIN
from blindspot.terminal import Line, pieces
from blindspot.text import DASH, MINUS, clean, number, p_value, points, signed, span

Found = Mapping[str, Any]
"""What `score`, `compare` or the paper's `report` returned."""
_MOST_OTHERS = 8
"""Metrics of a benchmark outside the paper's tables that are printed; ``scores.json`` holds all."""


def print_table(console: Console, headers: Sequence[str], rows: Sequence[Line], repeated: int = 1) -> None:
    """Print a table in as few pieces as its columns need; see `pieces`."""
    for table in pieces(headers, rows, console.width, repeated):
        console.print(table)


def print_scores(scores: Found, console: Console, profiles_only: bool = False) -> None:
    """Print what `score` returned: scores beside the paper's baseline, then habits, then all profiles side by side."""
    if not profiles_only:
        name, profile = clean(str(scores["run"]["name"])), clean(str(scores["profile"]))
        _heading(console, f"{name}, scored as {profile}, beside the paper's {BASELINE}")
        _print_metrics(scores, console)
        main = (column.benchmark for column in load().columns if column.metric == "overall")
        if absent := [name for name in main if name not in scores["benchmarks"]]:
            _dim(console, f"Not in this run: {', '.join(absent)}.")
        _print_shortcuts(scores, console)
        _heading(console, "What the numbers rest on")
        _print_basis(scores, console)
        _heading(console, "How the answers look")
        _print_habits(scores, console)
    _heading(console, "The same answers under every scoring profile")
    _print_profiles(scores, console)
    for line in _notes(scores):
        _dim(console, f"Note: {line}")


def _shown(scores: Found, others: int = 0) -> Iterator[tuple[str, str, str, Found]]:
    """Label, benchmark, metric and row of every line.

    All of the paper's columns, what a harness prints as the score, the mean where there is none, and the first
    ``others`` of the rest.
    """
    columns = {column.key for column in load().columns}
    for benchmark, entry in scores["benchmarks"].items():
        metrics = entry["metrics"]
        headlines = {MEAN.name, *(side["headline"] for side in entry["profiles"].values())}
        main = [name for name in metrics if (benchmark, name) in columns or name in headlines]
        rest = [name for name, found in metrics.items() if name not in main and found["value"] is not None]
        for place, name in enumerate([*(name for name in main if metrics[name]["n"]), *rest[:others]]):
            label = "" if name == "overall" else name
            if name == MEAN.name:
                known = "incomplete: " if benchmark in BENCHMARKS else ""
                label = f"{known}mean of {entry['questions']} rows"
            yield f"  {clean(name)}" if place else clean(f"{benchmark} {label}"), benchmark, name, metrics[name]


def _print_metrics(scores: Found, console: Console) -> None:
    paper = load().row(BASELINE)
    shown = list(_shown(scores, _MOST_OTHERS))
    stripped = any("stripped" in found for *_, found in shown)
    drawn = max((found["samples"]["count"] for *_, found in shown if "samples" in found), default=0)
    lines: list[list[str | Text]] = []
    for label, benchmark, metric, found in shown:
        on = found["scale"], found["most"]
        of = found.get("samples", {})
        sides = [number(of[name]["value"], *on) if of else "" for name in ("pass", "majority")]
        lines.append(
            [
                label,
                Text(number(found["value"], *on) + ("~" if found["missing_terms"] and found["n"] else ""), "bold"),
                *([number(found["stripped"], *on) if "stripped" in found else ""] if stripped else ()),
                *(sides if drawn else ()),
                span(found["low"], found["high"], *on),
                paper.get((benchmark, metric), ""),
                number(found["chance"], *on),
                number(found["chance_corrected"]),
                str(found["n"]),
            ]
        )
    more = [*(["stripped"] if stripped else ()), *([f"pass\n@{drawn}", "majority"] if drawn else ())]
    headers = ("", "score", *more, "95 %", "paper", "chance", "corrected", "n")
    print_table(console, headers, lines)


def _print_shortcuts(scores: Found, console: Console) -> None:
    """Of benchmarks that are drawn: every task beside what shortcuts score on the same questions."""
    lines: list[list[str | Text]] = []
    for benchmark, entry in scores["benchmarks"].items():
        for name, found in entry["metrics"].items():
            if rules := found.get("shortcuts"):
                best, pairs = (
                    max(rules, key=rules.__getitem__),
                    entry["metrics"].get(name.replace("task/", "pairs/"), {}),
                )
                values = (found["value"], pairs.get("value"), found["chance"], rules[best])
                score, *rest = (number(value, found["scale"], found["most"]) for value in values)
                label = f"{clean(benchmark)} {clean(name.removeprefix('task/'))}"
                lines.append([label, Text(score, "bold"), *rest, clean(best)])
    if lines:
        _heading(console, "Beside shortcuts: rules that do not read what is asked for, on the same questions")
        print_table(console, ("", "score", "all twins", "chance", "best shortcut", "which"), lines)


def _print_basis(scores: Found, console: Console) -> None:
    lines = []
    for label, _, _, found in _shown(scores):
        on = found["scale"], found["most"]
        answer = "" if found["constant_answer"] is None else f" ({clean(found['constant_answer'], 12)})"
        numbers = [number(found[name], *on) for name in ("error", "resolves", "constant")]
        lines.append([label, str(found["clusters"]), found["interval"], *numbers[:2], numbers[2] + answer])
    print_table(console, ("", "clusters", "interval", "SE", "resolves", "constant"), lines)
    method = scores["method"]
    _dim(
        console,
        f"resolves: smallest true difference to another model that a paired test finds with {method['power']:.0%} "
        f"power at {method['alpha']}, if the two models' scores of a cluster correlate by {method['correlation']}; "
        "constant: what the best answer that is always the same would score.",
    )


def _print_habits(scores: Found, console: Console) -> None:
    lines = []
    for benchmark, entry in scores["benchmarks"].items():
        habits = entry["habits"]
        yes = f"{points(habits['yes_rate'])} ({points(habits['yes_gold'])})" if "yes_rate" in habits else ""
        detection = "\n".join(number(habits[name]) for name in ("precision", "recall", "f1")) if yes else ""
        letters, gold = habits.get("letters", {}), habits.get("letters_gold", {})
        said, right = sum(letters.values()), sum(gold.values())
        shares = "\n".join(
            f"{clean(name, 10)} {100 * letters.get(name, 0) / said:.0f}"
            + (f" ({100 * gold[name] / right:.0f})" if name in gold else "")
            for name in sorted({*letters, *gold}, key=lambda name: (len(name) > 1, name))
        )
        in_thought = habits["cut_off_in_thought"]
        cut = points(habits["cut_off"]) + (f"\n({points(in_thought)})" if in_thought else "")
        lines.append([clean(benchmark), points(habits["unparsed"]), cut, yes, shares, detection])
    thought = "\n(in a thought)" if any("(" in line[2] for line in lines) else ""
    headers = ("", "unreadable\n%", f"cut off\n%{thought}", "yes, %\n(right)", "letters, %\n(right)",
               "precision\nrecall\nF1")  # fmt: skip
    print_table(console, headers, lines)


def _print_profiles(scores: Found, console: Console) -> None:
    """Metrics by profiles, the paper's row last."""
    paper = load().row(BASELINE)
    profiles = list(dict.fromkeys(name for entry in scores["benchmarks"].values() for name in entry["profiles"]))
    lines: list[list[str | Text]] = []
    for label, benchmark, metric, found in _shown(scores):
        sides, on = scores["benchmarks"][benchmark]["profiles"], (found["scale"], found["most"])
        there = [sides.get(name) for name in profiles]
        marks = ["*" if side and side["headline"] == metric else "" for side in there]
        values = [number(side["metrics"][metric], *on) if side else DASH for side in there]
        cells = [value + mark for value, mark in zip(values, marks, strict=True)]
        lines.append([label, *cells, paper.get((benchmark, metric), "")])
        if "stripped" in found:
            without = [number(side["stripped"][metric] if side else None, *on) for side in there]
            lines.append([Text(cell, "dim") for cell in ("  stripped", *without, "")])
        if metric in MAIN:
            shares = [points(side["unparsed"]) if side else DASH for side in there]
            lines.append([Text(cell, "dim") for cell in ("  unreadable, %", *shares, "")])
    headers = ("", *(name.replace("-20", "\n20").replace("-0.", "\n0.") for name in profiles), "paper")
    print_table(console, headers, lines)
    _dim(
        console,
        "One set of answers, different rules of reading them; * marks what that harness prints as the score. The "
        "paper's GQA of 33 % for LLaVA-1.5, against 62 % elsewhere, is what a prompt and a comparison of strings can "
        "do.",
    )


def _notes(scores: Found) -> Iterator[str]:
    shares = {name: entry["thinking"] for name, entry in scores["benchmarks"].items() if entry["thinking"]["answers"]}
    if shares:
        held = (f"{clean(n)} {points(s['answers'])} % ({points(s['cut_off'])} % never end)" for n, s in shares.items())
        treated = {
            HARNESS: "scored as each harness does it; stripped: without them",
            STRIP: "taken off before scoring, as --thinking strip says",
            KEEP: "left in the answers, as --thinking keep says",
        }
        yield f"Answers that hold a thought: {', '.join(held)}; {treated[scores['thinking']]}."
    costs = [entry["tokens"] for entry in scores["run"].get("benchmarks", {}).values() if "tokens" in entry]
    if costs:
        answers, read, said = (sum(cost[name] for cost in costs) for name in ("answers", "read", "said"))
        yield f"{answers:,} answers cost {read:,} tokens read and {said:,} said."
    yield from map(clean, scores["notes"])
    noted: dict[str, list[str]] = {}
    for benchmark, entry in scores["benchmarks"].items():
        for note in entry["notes"]:
            noted.setdefault(note, []).append(benchmark)
    yield from (clean(f"{', '.join(names)}: {note}") for note, names in noted.items())
    if any(found["missing_terms"] and found["n"] for *_, found in _shown(scores)):
        yield "~ marks a mean over the parts that have questions."


def print_comparison(found: Found, console: Console, details: bool = False) -> None:
    """Print what `compare` returned; ``details``: every metric, not only ``overall``."""
    headers = ("", "first", "later", "difference", "95 %", "Holm", "p", "resolves", "n", "test")
    for name in dict.fromkeys(row["b"] for row in found["comparisons"]):
        rows = [
            row
            for row in found["comparisons"]
            if row["b"] == name and (row["metric"] in MAIN or (details and row["n"] > 0))
        ]
        title = f"{clean(name)} minus {clean(rows[0]['a'] if rows else found['runs'][0]['name'])}"
        _heading(console, f"{title}, scored as {clean(found['profile'])}")
        lines, previous = [], ""
        for row in rows:
            on, main = (row["scale"], row["most"]), row["metric"] in MAIN
            label = row["benchmark"] if main else f"{row['benchmark']} {row['metric']}"
            significant = row["significant"]
            lines.append(
                [
                    clean(f"  {row['metric']}" if row["benchmark"] == previous else label),
                    number(row["a_value"], *on),
                    number(row["b_value"], *on),
                    Text(signed(row["difference"], *on) + "*" * significant, "bold" if significant else ""),
                    span(row["low"], row["high"], *on),
                    p_value(row["p_holm"]) if main else "",
                    p_value(row["p"]),
                    number(row["resolves"], *on),
                    str(row["n"]),
                    DASH if row["p"] is None else row["test"],
                ]
            )
            previous = row["benchmark"]
        print_table(console, headers, lines)
    family, method = found["family"], found["method"]
    _dim(
        console,
        f"* survives Holm's correction at {method['alpha']} over {family['tests']} tests: {MAIN[0]} of "
        f"{', '.join(map(clean, family['benchmarks']))}, of every pair of runs shown."
        + (" Other metrics are not corrected." if details else ""),
    )
    _dim(
        console,
        f"resolves: smallest true difference found with {method['power']:.0%} power. Intervals and p hold the sample "
        "of questions, not training: two trainings of one model differ too.",
    )
    for note in found["notes"]:
        console.print(Text(f"Note: {clean(note)}", "yellow"))


def print_paper(found: Found, console: Console) -> None:
    """Print what the paper's `report` returned."""
    rows = {(row["model"], row["benchmark"], row["metric"]): row for row in found["scores"]}
    models = {
        role: list(dict.fromkeys(row["model"] for row in found["scores"] if row["role"] == role))
        for role in ("variant", "frontier")
    }
    order = list(dict.fromkeys(column["benchmark"] for column in found["columns"]))
    _dim(console, f"{found['source']}.")
    for role, title in (("variant", "LLaVA variants"), ("frontier", "Frontier models")):
        lines = []
        for column in sorted(found["columns"], key=lambda column: order.index(column["benchmark"])):
            own = [rows[model, column["benchmark"], column["metric"]] for model in models[role]]
            half = max((row["high"] - row["low"]) / 2 for row in own)
            cells = (str(column["n"]), number(column["chance"], column["scale"]), number(half, column["scale"]))
            lines.append([_column_label(column), *cells, *(row["printed"] for row in own)])
        _heading(console, f"{title}: as printed; ± is the widest half of a row's 95 % intervals")
        print_table(console, ("", "n", "chance", "±", *map(_short, models[role])), lines, repeated=4)
    _heading(console, "LLaVA variants: share of the way from chance to everything right")
    corrected = [
        [
            _column_label(column),
            *(number(rows[m, column["benchmark"], column["metric"]]["chance_corrected"]) for m in models["variant"]),
        ]
        for column in found["columns"]
        if column["chance"] is not None
    ]
    print_table(console, ("", *map(_short, models["variant"])), corrected)
    _heading(console, f"Differences; * beyond the noise of the questions, Holm over {len(found['differences'])} tests")
    differences: dict[str, dict[str, str | Text]] = {}
    for row in found["differences"]:
        pair = f"{_short(row['variant'])}\n{MINUS} {_short(row['baseline'])}"
        text = signed(row["difference"], row["scale"]) + ("*" if row["significant"] else " ")
        cell = Text(text, "bold" if row["significant"] else "")
        differences.setdefault(row["benchmark"], {"": row["benchmark"]})[pair] = cell
    print_table(console, [*next(iter(differences.values()))], [[*line.values()] for line in differences.values()])
    _heading(console, "What follows")
    odd = [
        f"{row['model']} {row['benchmark']} {row['metric']} {row['printed']}"
        + (" (last digit)" if row["fits"] == "nearly" else "")
        for row in found["unfitting"]
    ]
    whole = (
        f"Of {found['checked']} cells with digits enough to tell, {found['checked'] - len(odd)} are k of n questions"
    )
    for line in (*found["findings"], f"{whole}; these are not: {', '.join(odd)}."):
        console.print(Text(f"- {line}"))
    for line in found["notes"]:
        _dim(console, f"Note: {line}")


def print_audit(found: Found, console: Console) -> None:
    """Print what the `audit` of a benchmark returned: the best rule of each part, and what each rule scores there."""
    left = ", ".join(f"{count} ask for {kind}" for kind, count in found["left_out"].items())
    asked = f"{found['questions']} questions in {found['groups']} groups ({found['together']} kept together)"
    _heading(console, f"{clean(found['benchmark'])}, blind: {asked}" + (f"; left out: {left}" if left else ""))
    rules = list(found["rules"])
    lines: list[list[str | Text]] = []
    for row in found["parts"]:
        best = row["best"]
        excess = Text(signed(best["excess"]) + "*" * best["above"], "bold" if best["above"] else "")
        span_ = span(best["low"], best["high"])
        cells = [str(row["n"]), points(row["chance"]), best["rule"], excess, span_, p_value(best["p_holm"])]
        lines.append([clean(row["part"]), *cells, *(points(each["value"]) for each in row["rules"])])
    names = (name.replace(" in ", "\nin ") for name in rules)
    print_table(console, ("", "n", "chance", "best rule", "above\nchance", "95 %", "Holm", *names), lines, repeated=2)
    _dim(
        console,
        "In points. * above chance after Holm's correction over the parts. The best rule's excess is that of a rule "
        "chosen on other questions; every interval is of groups, all rules learned anew.",
    )
    first = found["parts"][0]
    permuted = ", ".join(f"{each['rule']} {signed(each['permuted'])}" for each in first["rules"])
    _dim(console, f"With permuted answers, {clean(first['part'])} has above chance: {permuted}. It should be about 0.")
    for rule, said in found["rules"].items():
        _dim(console, f"{rule}: {said}.")
    for note in found["notes"]:
        _dim(console, f"Note: {clean(note)}")


def print_table_audit(found: Found, console: Console) -> None:
    """Print what `audit_table` returned: differences from the baseline, or how many pairs a column tells apart."""
    rows, columns, marks = found["differences"], found["columns"], found["marks"]
    names = list(marks)
    half = {
        one["name"]: max((row["high"] - row["low"]) / 2 for row in found["scores"] if row["column"] == one["name"])
        for one in columns
        if any(row["column"] == one["name"] for row in found["scores"])
    }
    _heading(console, f"{clean(found['table'])}: what exceeds the sample; Holm over {len(rows)} differences")
    heads = ("", "n", "±", *(f"{clean(row)}" for row in dict.fromkeys(row["a"] for row in rows)))
    lines: list[list[str | Text]] = []
    for one in columns:
        own = [row for row in rows if row["column"] == one["name"]]
        line: list[str | Text] = [clean(one["name"]), str(one["n"]), number(half.get(one["name"]), one["scale"])]
        if found["baseline"] is None:
            lines.append([*line, *(str(sum(row["verdict"] == name for row in own)) for name in names)])
            continue
        cells = {row["a"]: signed(row["difference"], one["scale"]) + marks[row["verdict"]] for row in own}
        lines.append([*line, *(cells.get(name, DASH) for name in dict.fromkeys(row["a"] for row in rows))])
    if found["baseline"] is None:
        heads = ("", "n", "±", *(name.replace(" if ", "\nif ").replace("not ", "not\n") for name in names))
        beyond = [row for row in rows if row["verdict"] in names[:2]]
        told = ", ".join(
            f"{clean(row['a'])} {MINUS} {clean(row['b'])} {signed(row['difference'], row['scale'])}"
            f"{marks[row['verdict']]} ({clean(row['column'])})"
            for row in beyond
        )
        print_table(console, heads, lines)
        _dim(console, f"Beyond it: {told or 'none'}.")
    else:
        print_table(console, heads, lines)
        _dim(console, f"Minus {clean(found['baseline'])}.")
    for name, said in found["verdicts"].items():
        _dim(console, f"{marks[name] or 'no mark'} {name}: {said}.")
    _dim(console, "± is the widest half of a column's 95 % intervals, as if its questions were independent. "
         + "; ".join(f"{clean(one['name'])}: {one['basis']}" for one in columns) + ".")  # fmt: skip
    for note in found["notes"]:
        _dim(console, f"Note: {clean(note)}")


def print_verification(found: Found, console: Console) -> None:
    """Print what `verify` returned."""
    _heading(console, f"{clean(found['run'])} beside the published scores of {clean(found['model'])}")
    lines: list[list[str | Text]] = []
    for row in found["rows"]:
        told = Text(row["verdict"], "bold" if row["verdict"] == "outside" else "")
        ours = (number(row["value"], 1, 100), span(row["low"], row["high"], 1, 100))
        lines.append([f"{row['benchmark']} {row['metric']}", clean(row["source"]), row["published"], *ours, told])
    print_table(console, ("", "source", "published", "here", "95 %", ""), lines)
    for why in dict.fromkeys(f"{row['dataset']}, {row['source']}: {row['why']}" for row in found["rows"] if row["why"]):
        _dim(console, f"Not comparable: {clean(why)}.")
    _dim(
        console,
        "The interval is of this run over questions. Both scores are of the same questions, so inside says no more "
        "than that their difference is small against the sample.",
    )


def _column_label(column: Found) -> str:
    return column["benchmark"] if column["metric"] == "overall" else f"  {column['metric']}"


def _short(model: str) -> str:
    """A model's name, narrow."""
    name = "CLIP" if model == BASELINE else model.removeprefix("LLaVA-")
    return "CLIP\n2D-RoPE" if name == "2D-RoPE" else name.replace("-2D-RoPE", "\n2D-RoPE").replace("-4b", "\n4b")


def _heading(console: Console, text: str) -> None:
    console.print(Text(text, "bold"))


def _dim(console: Console, text: str) -> None:
    console.print(Text(text, "dim"))
