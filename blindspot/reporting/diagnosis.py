"""Diagnoses: what diagnostics left in a folder, its page, and what those of a study say of its arms."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from blindspot.diagnostics.base import Pictures, Table, Tables, plain
from blindspot.diagnostics.registry import DIAGNOSTICS, PHOTO, diagnostic, plots_of
from blindspot.errors import UserError, objection
from blindspot.files import is_hub_id, parse_json, write_text
from blindspot.plots import Figure
from blindspot.reporting.drawing import write_figures
from blindspot.reporting.page import render
from blindspot.reporting.run import RunPlan, as_made
from blindspot.text import DASH, MINUS, clean

HEADLINE = "mirrored or flipped"
"""The move of ``counterfactuals`` that the table of arms shows."""
_AGAIN = "delete the file and run blindspot diagnose again"
_MOST_SENTENCES = 8
_MOST_ROWS = 400


class _File(BaseModel):
    tables: list[Table]


def is_diagnosis(folder: Path) -> bool:
    """Whether ``blindspot diagnose`` has written there."""
    return (folder / "diagnosis.json").is_file()


def load_diagnosis(folder: Path) -> dict[str, Tables]:
    """The tables of every diagnostic that is done, by name, in the order of `DIAGNOSTICS`, and of a photo.

    Args:
        folder: what ``blindspot diagnose`` wrote, or the folder of a study's step. A damaged file is refused by name.
    """
    found: dict[str, Tables] = {}
    for name in (*DIAGNOSTICS, PHOTO):
        path = folder / f"{name}.json"
        if not path.exists():
            continue
        try:
            tables = _File.model_validate(parse_json(path.read_text(encoding="utf-8"))).tables
            for table in tables:
                if kind := plots_of(name).ROWS.get(table.name):
                    checker = TypeAdapter(kind)
                    for row in table.rows:
                        checker.validate_python(row)
        except ValidationError as error:
            raise UserError(f"{path}: {clean(objection(error, 'the file'), 200)}; {_AGAIN}") from error
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {clean(str(error), 120)}; {_AGAIN}") from error
        found[name] = {table.name: table for table in tables}
    return found


def write_diagnosis(folder: Path) -> tuple[Path, list[str]]:
    """Write ``index.html``, and every figure as SVG, PDF and CSV in ``figures/``, from what diagnostics left there.

    Args:
        folder: what ``blindspot diagnose`` wrote, finished or not.

    Returns:
        The page, and its main sentences.
    """
    found = load_diagnosis(folder)
    if not found:
        raise UserError(f"{folder} holds no diagnosis; run blindspot diagnose MODEL --out {folder}")
    sections, sentences, left_out = [], [], []
    for name, tables in found.items():
        figures, shown = _figures(folder, name, tables)
        said = [sentence for figure in figures for sentence in figure.says]
        sentences = said + sentences if name == "behaviour" else sentences + said
        spelled = [_spelled(table) for table in tables.values()]
        sections.append({"name": name, "question": diagnostic(name).question, "figures": shown, "tables": spelled})
        notes = [note for table in tables.values() for note in table.notes]
        if notes and not any(table.rows for table in tables.values()):
            left_out.append(f"{name} is left out: {notes[0]}")
    sentences = sentences[:_MOST_SENTENCES] + left_out
    of: dict[str, Any] = {"model": clean(folder.resolve().name), "stimuli": None, "seed": None}
    photo: dict[str, Any] = {}
    if (path := folder / "diagnosis.json").exists():
        try:
            said = parse_json(path.read_text(encoding="utf-8"))
            of = {key: plain(said[key]) for key in of}
            photo = {key: plain(said[key]) for key in ("image", "question") if key in said}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged; {_AGAIN}") from error
    model = str(of["model"])
    page = render(
        "diagnosis.html.j2",
        of=of,
        photo=photo,
        name=model if is_hub_id(model) else model.rstrip("/").rsplit("/", 1)[-1],
        sections=sections,
        sentences=sentences,
        missing=[] if photo else [name for name in DIAGNOSTICS if name not in found],
    )
    write_text(folder / "index.html", page)
    return folder / "index.html", sentences


def load_arms(run: Path, plan: RunPlan) -> list[tuple[str, dict[str, Tables]]]:
    """Label of the arm and tables by diagnostic, of every diagnosis of the study that is done."""
    labels = {arm.id: arm.label for arm in plan.arms}
    found = []
    for step in plan.steps:
        folder = run / step.folder
        if step.kind == "diagnose" and (folder / "done.json").exists():
            for path in (folder / f"{name}.json" for name in DIAGNOSTICS):
                if path.exists():
                    as_made(path)
            found.append((labels.get(step.arm or "", step.id), load_diagnosis(folder)))
    return found


def follows(found: Sequence[tuple[str, Mapping[str, Tables]]]) -> list[dict[str, Any]]:
    """One row an arm: shares of answers that follow each factor when it alone is moved, mean over seeds, and seeds.

    Only questions answered right as drawn count, so an arm that answers few of them has wide intervals of its own.
    """
    shares: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for label, tables in found:
        moved = tables.get("counterfactuals", {})
        for row in moved["shares"].rows if "shares" in moved else []:
            if row.get("move") == HEADLINE and row["value"] is not None:
                shares[label][str(row["factor"])].append(row["value"])
    return [
        {"arm": label, "seeds": max(map(len, factors.values())), "shares": {f: fmean(v) for f, v in factors.items()}}
        for label, factors in shares.items()
    ]


def _figures(folder: Path, name: str, tables: Tables) -> tuple[list[Figure], list[dict[str, Any]]]:
    """The figures of a diagnostic, and what the page shows of each."""
    path = folder / f"{name}.npz"
    pictures: Pictures = {}
    if path.exists():
        try:
            with np.load(path, allow_pickle=False) as arrays:
                pictures = {key: arrays[key] for key in arrays.files}
        except (OSError, ValueError, BadZipFile, EOFError, AttributeError) as error:
            raise UserError(f"cannot read {path}: {clean(str(error), 120)}; delete it and {name}.json, and run "
                            "blindspot diagnose again") from error  # fmt: skip
    try:
        figures = list(plots_of(name).draw({key: table for key, table in tables.items() if table.rows}, pictures))
        return figures, list(write_figures(figures, folder / "figures").values())
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{folder / name}.json does not hold the rows that its figures need ({type(error).__name__}: "
                        f"{clean(str(error), 120)}); {_AGAIN}") from error  # fmt: skip


def _spelled(table: Table) -> dict[str, Any]:
    """A table for the page: keys, and rows as text."""

    def text(value: Any) -> str:
        if value is None:
            return DASH
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:.3g}".replace("-", MINUS) if isinstance(value, float) else str(value)

    keys = list(dict.fromkeys(key for row in table.rows for key in row))
    rows = [[text(row.get(key)) for key in keys] for row in table.rows[:_MOST_ROWS]]
    return {"name": table.name, "title": table.title, "notes": table.notes, "keys": keys, "rows": rows,
            "left_out": max(0, len(table.rows) - _MOST_ROWS)}  # fmt: skip
