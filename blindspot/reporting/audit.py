"""The pages of audits: of a benchmark, what words alone score on each part; of a published table, what exceeds its
sample."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blindspot.files import write_text
from blindspot.plots import GREY, HUES, Estimate, Figure, Forest, Rule
from blindspot.reporting.drawing import write_figures
from blindspot.reporting.page import render
from blindspot.reporting.run import Column
from blindspot.reporting.tables import PaperTable, TableCell, TableRow, as_csv, booktabs
from blindspot.text import DASH, MINUS, number, p_value, points, signed, span

_DRAWN = 40
"""Parts of the figure; the table has all."""


def write_audit(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write ``index.html``, which is returned, and the figure, from what ``blindspot.evaluation.audit`` returned."""
    rows = [
        {
            "part": row["part"],
            "best": row["best"]["rule"],
            "above": row["best"]["above"],
            "cells": [str(row["n"]), str(row["groups"]), points(row["chance"])],
            "excess": signed(row["best"]["excess"]),
            "span": span(row["best"]["low"], row["best"]["high"]),
            "holm": p_value(row["best"]["p_holm"]),
            "rules": [
                {"value": points(each["value"]), "span": f"{signed(each['low'])} to {signed(each['high'])}",
                 "permuted": signed(each["permuted"])}
                for each in row["rules"]
            ],
        }
        for row in found["parts"]
    ]  # fmt: skip
    drawn = write_figures([_figure(found)], folder / "figures")["audit"]
    write_text(folder / "index.html", render("audit.html.j2", of=found, rows=rows, drawn=drawn))
    return folder / "index.html"


def write_table_audit(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write ``index.html``, which is returned, and ``scores`` and ``differences`` as ``.tex`` and ``.csv``, from what
    ``blindspot.evaluation.published.audit_table`` returned."""
    columns = {
        one["name"]: Column(id=one["name"], label=f"n = {one['n']:,}", paper=one["name"], description=one["basis"])
        for one in found["columns"]
    }
    scale = {one["name"]: one["scale"] for one in found["columns"]}
    scores = {(row["model"], row["column"]): row for row in found["scores"]}
    best = {
        name: max((row["value"] for _, row in scores.items() if row["column"] == name), default=0) for name in scale
    }
    pairs = {(row["a"], row["b"], row["column"]): row for row in found["differences"]}
    strongest = next(iter(found["verdicts"]))

    def score(row: Mapping[str, Any] | None) -> TableCell:
        if row is None:
            return TableCell(DASH)
        shown, on = row["value"], scale[row["column"]]
        return TableCell(number(shown, on), span(row["low"], row["high"], on), shown == best[row["column"]] > 0)

    def change(row: Mapping[str, Any] | None) -> TableCell:
        if row is None:
            return TableCell(DASH)
        text, low, high = (signed(row[key], row["scale"]) for key in ("difference", "low", "high"))
        sign = (-1 if row["difference"] < 0 else 1) if row["verdict"] == strongest else 0
        return TableCell(text, f"{low}, {high}", mark=found["marks"][row["verdict"]], sign=sign)

    models = dict.fromkeys(model for model, _ in scores)
    beside = {b: dict.fromkeys(row["a"] for row in found["differences"] if row["b"] == b) for _, b, _ in pairs}
    tables = {
        "scores": PaperTable(
            [*columns.values()],
            [("Scores", [TableRow(one, [score(scores.get((one, name))) for name in columns]) for one in models])],
        ),
        "differences": PaperTable(
            [*columns.values()],
            [
                (f"{MINUS} {b}", [TableRow(a, [change(pairs.get((a, b, name))) for name in columns]) for a in several])
                for b, several in beside.items()
            ],
        ),
    }
    for name, table in tables.items():
        write_text(folder / f"{name}.tex", booktabs(table))
        write_text(folder / f"{name}.csv", as_csv(found[name]))
    write_text(folder / "index.html", render("published.html.j2", of=found, **tables))
    return folder / "index.html"


def _figure(found: Mapping[str, Any]) -> Figure:
    """The best rule of each part, in points above chance."""
    parts = found["parts"][:_DRAWN]
    above = [row["part"] for row in found["parts"] if row["best"]["above"]]
    title = "No part is answered beyond chance without its pictures"
    if above:
        title = f"Without pictures, {len(above)} of {len(found['parts'])} parts are answered beyond chance"
    estimates = [
        Estimate(place, 100 * best["excess"], 100 * best["low"], 100 * best["high"], HUES[best["above"]])
        for place, best in enumerate(row["best"] for row in parts)
    ]
    rows = [{"part": row["part"], "n": row["n"], "chance": row["chance"], **row["best"]} for row in found["parts"]]
    panel = Forest(names=[row["part"] for row in parts], estimates=estimates, rules=[Rule(0, "x", GREY)], grid="x",
                   x_label="points above chance")  # fmt: skip
    subtitle = "The best rule on words alone, chosen on other questions, with its 95 % interval over groups"
    return Figure("audit", title, subtitle, [[panel]], rows, height=0.9 + 0.3 * len(parts))
