"""The page of a benchmark's blind audit: what words alone score on each part, beyond chance."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blindspot.files import write_text
from blindspot.plots import GREY, HUES, Estimate, Figure, Forest, Rule
from blindspot.reporting.drawing import write_figures
from blindspot.reporting.page import render
from blindspot.text import p_value, points, signed, span

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
