"""The page about several evaluated models: a table with intervals and ties, and a browser of their answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blindspot.files import write_text
from blindspot.reporting.page import render
from blindspot.text import clean, number, p_value, span


def write_glance(found: Mapping[str, Any], page: Path) -> Path:
    """Write the page, which is returned.

    Args:
        found: models, columns, samples and notes, as ``blindspot.evaluation.scores.glance`` gives them.
        page: the file, which needs no other.
    """
    columns = [{**column, "label": _label(column)} for column in found["columns"]]
    rows = [
        {**model, "cells": [_cell(column, column["cells"][place]) for column in columns]}
        for place, model in enumerate(found["models"])
    ]
    papers = dict.fromkeys(model for column in columns for model in column["paper"])
    beside = [
        {"label": f"{model}, as the paper prints it", "cells": [column["paper"].get(model, "") for column in columns]}
        for model in papers
    ]
    scales = [(column["scale"], column["most"]) for column in columns]
    chances = [number(column["chance"], *on) for column, on in zip(columns, scales, strict=True)]
    constants = [
        number(column["constant"], *on)
        + (f" ({clean(column['constant_answer'], 12)})" if column["constant_answer"] is not None else "")
        for column, on in zip(columns, scales, strict=True)
    ]
    beside += [{"label": "Chance", "cells": chances}, {"label": "The best constant answer", "cells": constants}]
    if any(column["shortcuts"] for column in columns):
        best = [max(column["shortcuts"].items(), key=lambda rule: rule[1], default=None) for column in columns]
        cells = [f"{number(rule[1], *on)} ({rule[0]})" if rule else "" for rule, on in zip(best, scales, strict=True)]
        beside.append({"label": "The best shortcut on the same questions", "cells": cells})
    samples = {"models": [model["name"] for model in found["models"]], "benchmarks": found["samples"]}
    write_text(page, render("glance.html.j2", of=found, columns=columns, rows=rows, beside=beside, samples=samples))
    return page


def _label(column: Mapping[str, Any]) -> str:
    benchmark, metric = column["benchmark"], column["metric"]
    return benchmark if metric == "overall" else f"{benchmark} {metric}"


def _cell(column: Mapping[str, Any], cell: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the page shows of a number, and what its column is sorted by."""
    if cell is None:
        return {
            "text": number(None),
            "small": "",
            "mark": None,
            "value": "",
            "said": "not asked, or not of all its parts",
        }
    on, mark = (column["scale"], column["most"]), cell["mark"]
    said = [f"{cell['n']} questions", f"{number(cell['unparsed'], 100)} % unreadable"]
    said += [f"against the best: p {p_value(cell['p_holm'])} after Holm"] if cell["p_holm"] is not None else []
    return {"text": number(cell["value"], *on), "small": span(cell["low"], cell["high"], *on), "mark": mark,
            "value": cell["value"], "said": "; ".join(said)}  # fmt: skip
