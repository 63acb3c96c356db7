"""Tables as data, laid out like the paper's, and what prints them: the page, LaTeX, CSV files and the terminal."""

import csv
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from textwrap import fill
from typing import Any

from rich import box
from rich.console import Console
from rich.text import Text

from blindspot.evaluation.paper import load
from blindspot.evaluation.statistics import ALPHA
from blindspot.files import write_text
from blindspot.reporting.run import Column, RunArm, stage_name
from blindspot.terminal import listing, pieces
from blindspot.text import DASH, MINUS, TIMES, number, points, signed, significant, span

GAP = Column(
    id="general_minus_spatial",
    label=f"{MINUS} spatial",
    paper="General",
    description="What the arm has on general benchmarks more than on spatial ones.",
)
_ROLES = {"frontier": "Frontier models", "variant": "LLaVA variants"}
_NAMES = {"coco": "COCO", "ade20k": "ADE20K"}
MOST_ROWS = 60
PARTS = "parts"
"""Instead of a split: the columns that have parts, part by part."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    MINUS: r"$-$",
    DASH: "--",
    "±": r"$\pm$",
    **{mark: "\\" + mark for mark in "&%$#_{}"},
}
NOT_YET = "not yet"
"""Instead of a score that an evaluation is still to bring."""
_MARKS = {"*": "$^{*}$", "†": r"$^{\dagger}$", "**": "$^{**}$", "?": "$^{?}$"}
_NARROW = 8  # letters of a heading on the terminal that need not be broken
Row = dict[str, Any]


@dataclass(frozen=True)
class TableCell:
    """One number: ``text``, its interval in small print, whether it is the best of its column, and a mark."""

    text: str
    small: str = ""
    best: bool = False
    mark: str = ""
    sign: int = 0


@dataclass(frozen=True)
class TableRow:
    """A labelled row with one cell per column."""

    label: str
    cells: list[TableCell]


@dataclass(frozen=True)
class PaperTable:
    """Columns and titled blocks of rows."""

    columns: list[Column]
    blocks: list[tuple[str, list[TableRow]]]

    @property
    def long(self) -> bool:
        """Whether its blocks are folded on the page."""
        return sum(len(rows) for _, rows in self.blocks) > MOST_ROWS

    @property
    def header(self) -> list[tuple[str, int]]:
        """Benchmarks of the paper with the number of neighbouring columns that each spans."""
        return [(paper, len(list(group))) for paper, group in groupby(self.columns, key=lambda column: column.paper)]


def arms_of(results: Row) -> list[RunArm]:
    """The arms of ``results.json``."""
    return [RunArm.model_validate(arm) for arm in results["arms"]]


def columns_of(results: Row, split: str = "iid") -> list[Column]:
    """The columns of ``results.json``; of `PARTS` one a part, under the name of the column that it belongs to."""
    columns = [Column.model_validate(column) for column in results["columns"]]
    if split != PARTS:
        return columns
    return [
        column.model_copy(update={"id": f"{column.id}/{part}", "label": part, "paper": column.name, "baselines": {}})
        for column in columns
        for part in column.parts
    ]


def asked_on(columns: Sequence[Column]) -> str:
    """What headings say of scores on columns that only resemble the benchmarks they are named after."""
    return " on drawn relatives of the benchmarks" if any(column.relative for column in columns) else ""


def rows_at(rows: Sequence[Row], stage: str, split: str = "iid") -> dict[tuple[str, ...], Row]:
    """Scores over all seeds by arm and column, or differences by both arms and column."""
    return {
        (*(row[key] for key in ("arm", "a", "b") if key in row),
         f"{row['column']}/{row['split']}" if split == PARTS else row["column"]): row
        for row in rows
        if row["stage"] == stage and split in (PARTS, row["split"]) and row.get("seed") is None
    }  # fmt: skip


def score_table(results: Row, stage: str, split: str = "iid") -> PaperTable | None:
    """Arms by columns, over all seeds, those with a score; best arm marked, for which replicates and models that are
    only evaluated do not compete; None without any score."""
    rows, columns = rows_at(results["scores"], stage, split), columns_of(results, split)
    arms = [arm for arm in arms_of(results) if any(arm.id == own for own, _ in rows)]
    if not {column.id for column in columns} & {column for _, column in rows}:
        return None
    competing = {arm.id for arm in arms if arm.axes and arm.replicate_of is None}
    best: dict[str, float] = defaultdict(float)
    for (arm, column), row in rows.items():
        if arm in competing:
            best[column] = max(row["score"], best[column])
    blocks: dict[str, list[TableRow]] = defaultdict(list)
    gaps = {row["arm"]: row for row in results["gaps"] if row["stage"] == stage and split == "iid"}
    unreached = {row["arm"] for row in results["missing"] if row["stage"] == stage}
    for arm in sorted(arms, key=lambda arm: arm.replicate_of is not None):
        cells = []
        for column in columns:
            cell = TableCell(NOT_YET if arm.id in unreached else DASH)
            if row := rows.get((arm.id, column.id)):
                marked = arm.id in competing and row["score"] == best[column.id] > 0
                small = span(row["low"], row["high"])
                small += f" {row['counted']}/{row['runs']}" if row["counted"] < row["runs"] else ""
                cell = TableCell(points(row["score"]), small, marked)
            cells.append(cell)
        if gaps:
            row = gaps.get(arm.id, {})
            text = signed(row["difference"]) if row else NOT_YET if arm.id in unreached else DASH
            cells.append(TableCell(text, span(row.get("low"), row.get("high"))))
        title = "Replicate: same configuration, other seeds" if arm.replicate_of else arm.block or "Arms"
        blocks[title].append(TableRow(arm.label, cells))
    rules = dict.fromkeys(name for column in columns for name in column.baselines)
    scale = [(name, [column.baselines.get(name) for column in columns]) for name in rules]
    scale.append(("chance", [column.chance for column in columns]))
    if split == "iid":
        noise = {row["column"]: row["deviation"] for row in results["noise"] if row["stage"] == stage}
        worst: dict[str, float] = {}
        for (_, column), row in rows.items():
            worst[column] = max(worst.get(column, 0.0), row["parse_failures"])
        for name, found in (("seed noise", noise), ("unreadable", worst)):
            if any(value is not None for value in found.values()):
                scale.append((name, [found.get(column.id) for column in columns]))
    columns = [*columns, GAP] if gaps else columns
    references = [TableRow(name, [TableCell(points(value)) for value in [*values, None][: len(columns)]])
                  for name, values in scale]  # fmt: skip
    return PaperTable(columns, [*blocks.items(), ("For scale", references)])


def difference_table(results: Row, stage: str, split: str = "iid") -> PaperTable | None:
    """Pairs by columns: difference, interval and mark; None without any difference."""
    found, columns = rows_at(results["differences"], stage, split), columns_of(results, split)
    if not {column.id for column in columns} & {column for *_, column in found}:
        return None
    blocks = []
    unreached = {row["arm"] for row in results["missing"] if row["stage"] == stage}
    for kind in dict.fromkeys(pair["kind"] for pair in results["pairs"]):
        pairs = [pair for pair in results["pairs"] if pair["kind"] == kind]
        lines = []
        for pair in pairs:
            rows = [found.get((pair["a"], pair["b"], column.id)) for column in columns]
            absent = TableCell(NOT_YET if {pair["a"], pair["b"]} & unreached else DASH)
            lines.append(TableRow(pair["label"], [_difference_cell(row) if row else absent for row in rows]))
        title = f"{pairs[0]['first']} minus {pairs[0]['second']}"
        if kind == "replicate":
            title = "Replicate minus original: what differs by seed alone"
        blocks.append((title[:1].upper() + title[1:], lines))
    bands = {row["column"]: row["band"] for row in results["noise"] if row["stage"] == stage and split == row["split"]}
    if any(band is not None for band in bands.values()):
        known = [bands.get(column.id) for column in columns]
        cells = [TableCell(DASH if band is None else f"±{points(band)}") for band in known]
        blocks.append(("For scale", [TableRow("noise band", cells)]))
    return PaperTable(columns, blocks)


def paper_rows(results: Row) -> list[Row]:
    """The cells of the paper's Tables 1, 2, 4 and 5 that the study asks for, each beside ours after the last stage.

    A row of the paper comes once for every arm that repeats it, and with its own numbers alone where none does. Empty
    where no arm repeats any, or none has a score yet.
    """
    paper, stage = load(), results["stages"][-1]
    scores, titles = rows_at(results["scores"], stage), {column.id: column.paper for column in columns_of(results)}
    arms, unreached = arms_of(results), {row["arm"] for row in results["missing"] if row["stage"] == stage}
    found: list[Row] = []
    for table in dict.fromkeys(column.table for column in paper.columns):
        columns = [column for column in paper.table(table) if column.id in titles]
        for model, role in sorted(paper.roles.items(), key=itemgetter(1)):  # frontier models first, as in the paper
            for arm in [arm for arm in arms if arm.paper == model] or [None]:
                name = model if arm is None or arm.label == model else f"{model} ({arm.label})"
                for column in columns:
                    own = scores.get((arm.id, column.id), {}) if arm else {}
                    part = "" if column.metric == "overall" else f" {_NAMES.get(column.metric, column.metric)}"
                    found.append({"table": table, "role": role, "row": name, "arm": arm.id if arm else None,
                                  "benchmark": column.benchmark, "metric": column.metric,
                                  "title": titles[column.id] + part, "scale": column.scale,
                                  **{key: own.get(key) for key in ("score", "low", "high")},
                                  "missing": bool(arm and arm.id in unreached and not own),
                                  "paper": paper.row(model)[column.key]})  # fmt: skip
    return found if any(row["score"] is not None for row in found) else []


def paper_tables(rows: Sequence[Row]) -> dict[str, PaperTable]:
    """`paper_rows` laid out as the paper does, by the number of its table: each column ours and the paper's."""
    tables: dict[str, PaperTable] = {}
    for table, of_table in groupby(rows, key=itemgetter("table")):
        blocks, columns = [], {}
        for role, of_role in groupby(of_table, key=itemgetter("role")):
            cells, lines = list(of_role), []
            best: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
            for row in cells:
                own = best[row["title"]]
                own[:] = max(own[0], row["score"] or 0.0), max(own[1], float(row["paper"]))
                columns |= {(row["title"], side): None for side in ("here", "paper")}
            for _, line in groupby(cells, key=itemgetter("row", "arm")):
                line = list(line)
                lines.append(
                    TableRow(line[0]["row"], [cell for row in line for cell in _beside(row, *best[row["title"]])])
                )
            blocks.append((_ROLES[role], lines))
        made = [Column(id=f"{title}/{side}", label=side, paper=title) for title, side in columns]
        tables[table] = PaperTable(made, blocks)
    return tables


def _beside(row: Row, best: float, paper_best: float) -> list[TableCell]:
    """Our cell, on the scale that the paper prints, and the paper's."""
    scale, low, high = row["scale"], row["low"], row["high"]
    own = TableCell(NOT_YET if row["missing"] else DASH)
    if row["score"] is not None:
        own = TableCell(number(row["score"], scale), span(low, high, scale), row["score"] == best > 0)
    return [own, TableCell(row["paper"], best=float(row["paper"]) == paper_best)]


def _difference_cell(row: Row) -> TableCell:
    """``*`` survives Holm's correction; ``†`` only a test on the questions alone, uncorrected, sees it."""
    questions = row["p_questions"] is not None and row["p_questions"] < ALPHA
    mark = "*" if row["significant"] else "†" if questions else ""
    small = "" if row["low"] is None else f"{signed(row['low'])}, {signed(row['high'])}"
    sign = 0 if not row["significant"] else 1 if row["difference"] > 0 else -1
    return TableCell(signed(row["difference"]), small, mark=mark, sign=sign)


def times_table(results: Row) -> PaperTable | None:
    """Steps to learn by arm and column, and their ratios by pair; None without probes."""
    arms = {(row["arm"], row["column"]): row for row in results["times"]["arms"]}
    pairs = {(row["a"], row["b"], row["column"]): row for row in results["times"]["pairs"]}
    columns = [column for column in columns_of(results) if any(column.id == name for _, name in arms)]
    if not columns:
        return None
    own, ratios = [], []
    for arm in arms_of(results):
        if found := [arms.get((arm.id, column.id)) for column in columns]:
            cells = [_time_cell(row, "steps", f" {row['reached']}/{row['runs']}") if row else TableCell(DASH)
                     for row in found]  # fmt: skip
            own.append(TableRow(arm.label, cells))
    for pair in results["pairs"]:
        found = [pairs.get((pair["a"], pair["b"], column.id)) for column in columns]
        cells = [_time_cell(row, "ratio") if row else TableCell(DASH) for row in found]
        ratios.append(TableRow(f"{pair['label']}: {pair['first']} over {pair['second']}", cells))
    return PaperTable(columns, [("Steps", own), ("Ratios of steps", ratios)])


def _time_cell(row: Row, name: str, small: str = "") -> TableCell:
    value, mark = row[name], "*" if row.get("significant") else ""
    shown = DASH if value is None else f"{value:.0f}" if name == "steps" else f"{TIMES}{significant(value)}"
    return TableCell(shown, reach(row["low"], row["high"], 4 if name == "steps" else 2) + small, mark=mark)


def reach(low: float | None, high: float | None, digits: int = 2) -> str:
    """An interval of ratios or times, one end of which may be open."""
    ends = [significant(end, digits) for end in (low, high) if end is not None]
    return " to ".join(ends) if len(ends) != 1 else f"over {ends[0]}" if high is None else f"under {ends[0]}"


def told(row: Row) -> tuple[str, str, str]:
    """Of a claim the effect, its interval, and the smallest effect that it could have found: points, or a ratio."""
    low, high, least = row["low"], row["high"], row["detectable"]
    if row["outcome"] == "score":
        interval = "" if low is None else f"{signed(low)} to {signed(high)}"
        return signed(row["effect"]), interval, "" if least is None else f"{points(least)} points"
    few = "" if row["p"] is None else f"nothing: {row['seeds']} seeds"
    effect = DASH if row["effect"] is None else f"{TIMES}{significant(row['effect'])}"
    return effect, reach(low, high), few if least is None else f"factor {significant(least)}"


def tables_of(results: Row, stage: str) -> dict[str, PaperTable]:
    """All tables of a stage that there are numbers for, by kind and what they are about."""
    rows = paper_rows(results) if stage == results["stages"][-1] else []
    tables = {
        **{f"paper_table{number}": table for number, table in paper_tables(rows).items()},
        "scores": score_table(results, stage),
        "scores_compositional": score_table(results, stage, "compositional"),
        "scores_parts": score_table(results, stage, PARTS),
        "differences": difference_table(results, stage),
        "differences_parts": difference_table(results, stage, PARTS),
        "times": times_table(results) if stage == results["stages"][-1] else None,
    }
    return {name: table for name, table in tables.items() if table}


def write_tables(run: Path, results: Row) -> None:
    """Write ``tables/*.csv`` (one tidy row per number) and ``tables/*.tex`` of a run folder."""
    texts = {f"{name}.csv": as_csv(results[name]) for name in ("noise", "hypotheses", "gaps")}
    texts["paper.csv"] = as_csv(paper_rows(results))
    texts["answers.csv"] = as_csv([
        {key: pick[key] for key in ("column", "id", "prompt", "answer")} | {"arm": said["arm"], "said": said["raw"]}
        for pick in results["gallery"] for said in pick["answers"]
    ])  # fmt: skip
    texts |= {"answers.tex": _outputs(results, results["gallery"][0])} if results["gallery"] else {}
    texts |= {f"times_{name}.csv": as_csv(rows) for name, rows in results["times"].items()}
    for stage in results["stages"]:
        for name in ("scores", "differences"):
            texts[f"{name}_{stage}.csv"] = as_csv([row for row in results[name] if row["stage"] == stage])
        for name, table in tables_of(results, stage).items():
            kind, *about = name.split("_")
            texts[f"{'_'.join([kind, stage, *about])}.tex"] = booktabs(table)
    for name, text in texts.items():
        if text:
            write_text(run / "tables" / name, text)


def _outputs(results: Row, pick: Row) -> str:
    """The paper's Table 3: every arm's answer to one question."""
    labels = {arm.id: arm.label for arm in arms_of(results)}
    rows = [rf"{latex(labels[said['arm']])} & {latex(said['raw'])} \\" for said in pick["answers"]]
    asked = f"% {pick['prompt']} (right: {pick['answer']}; {pick['column']} {pick['id']})"
    lines = [asked, r"\begin{tabular}{ll}", r"\toprule", r"Model & Output \\", r"\midrule", *rows]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows under the keys of all of them, but for those of lists; empty where there are none.

    An apostrophe is put before a text that a spreadsheet would take for a formula.
    """

    def safe(value: Any) -> Any:
        if not (isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))):
            return value
        try:
            float(value)
        except ValueError:
            return f"'{value}"
        return value

    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key, value in row.items() if not isinstance(value, list)))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(safe, keys))
    writer.writerows([safe(row.get(key)) for key in keys] for row in rows)
    return text.getvalue()


def latex(text: str) -> str:
    """``text`` with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(mark, mark) for mark in text)


def booktabs(table: PaperTable) -> str:
    r"""A ``tabular`` for ``\usepackage{booktabs}``; each interval stands under its number in tiny print."""
    width = len(table.columns) + 1
    lines = [rf"\begin{{tabular}}{{l{'c' * (width - 1)}}}", r"\toprule"]
    groups, rules, start = [""], [], 2
    for paper, spanned in table.header:
        groups.append(rf"\multicolumn{{{spanned}}}{{c}}{{{latex(paper)}}}")
        rules.append(rf"\cmidrule(lr){{{start}-{start + spanned - 1}}}")
        start += spanned
    lines += [" & ".join(groups) + r" \\", "".join(rules)]
    lines.append(" & ".join(["", *(latex(column.label) for column in table.columns)]) + r" \\")
    for title, rows in table.blocks:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\emph{{{latex(title)}}}}} \\"]
        for row in rows:
            cells = [latex(row.label)]
            for cell in row.cells:
                number = rf"\textbf{{{latex(cell.text)}}}" if cell.best else latex(cell.text)
                cells.append(number + _MARKS.get(cell.mark, ""))
            lines.append(" & ".join(cells) + r" \\")
            if any(cell.small for cell in row.cells):
                small = [rf"{{\tiny {latex(cell.small)}}}" if cell.small else "" for cell in row.cells]
                lines.append(" & ".join(["", *small]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def print_tables(results: Row, console: Console) -> None:
    """Print scores and differences, last stage first, then what was found.

    The tables stand on their side (the paper's columns are rows) and are cut into as many pieces as the console's width
    asks for; a console that takes them whole also gets the intervals.
    """
    if not results["meaningful"]:
        console.print(Text(f"Scale {results['scale']}: these numbers mean nothing.", style="bold red"))
    for stage in reversed(results["stages"]):
        name = stage_name(stage)
        if table := score_table(results, stage):
            _print(table, f"Scores{asked_on(table.columns)} after {name}, in points; best in bold", console)
        if table := difference_table(results, stage):
            title = f"Differences after {name}, in points; * survives Holm, † only a test on questions alone"
            _print(table, title, console)
    if table := times_table(results):
        level = f"{100 * results['times']['arms'][0]['level']:.0f} %"
        title = f"Steps to {level} on probes, with intervals and the runs that got there; * survives Holm"
        _print(table, title, console)
    if results["hypotheses"]:
        title = "The explanations, tested; effects in points, or as ratios of steps to learn"
        heads = ("explanation", "effect", "95 %", "Holm's p", "could find", "verdict")
        claims = listing(*heads, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=True)
        for row in results["hypotheses"]:
            p_holm = "" if row["p_holm"] is None else f"{row['p_holm']:.3f}"
            effect, interval, power = told(row)
            claims.add_row(*map(Text, (row["claim"], effect, interval, p_holm, power, row["verdict"])))
        console.print(claims)
    console.print(Text(results["findings"]["text"]))
    for note in results["notes"]:
        console.print(Text(f"Note: {note}", style="dim"))


def _print(table: PaperTable, title: str, console: Console) -> None:
    console.print(Text(title, style="bold"))
    lines = [line for _, lines in table.blocks for line in lines]
    names = (line.label.removeprefix("LLaVA-").replace("-", " ") for line in lines)
    headers = ["", *(fill(name, _NARROW, break_long_words=False) for name in names)]
    made = []
    for intervals in (True, False):
        rows: list[list[str | Text]] = []
        before = None
        for place, column in enumerate(table.columns):
            rows.append([f"  {column.label}" if column.paper == before else column.name])
            before = column.paper
            for cell in (line.cells[place] for line in lines):
                text = Text(cell.text + cell.mark, style="bold" if cell.best or cell.sign else "")
                rows[-1].append(text.append(f" {cell.small}" * (intervals and bool(cell.small)), style="dim"))
        made = list(pieces(headers, rows, console.width))
        if len(made) == 1:
            break
    for piece in made:
        console.print(piece)
