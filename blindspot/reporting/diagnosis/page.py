"""The page of a diagnosis: what each diagnostic found, as sentences, figures and tables."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.files import write_text
from blindspot.reporting.diagnosis import (
    attention,
    behaviour,
    causal,
    coherence,
    consistency,
    counterfactuals,
    norms,
    stages,
)
from blindspot.reporting.diagnosis.data import (
    AGAIN,
    DIAGNOSTICS,
    Pictures,
    Table,
    Tables,
    diagnosed,
    load_diagnosis,
    load_pictures,
)
from blindspot.reporting.figure_style import style
from blindspot.reporting.html import render
from blindspot.reporting.sheet import Drawn, write_drawn
from blindspot.reporting.text import DASH, MINUS, clean

_DRAW: dict[str, Callable[[Tables, Pictures], Iterator[Drawn]]] = {
    "probes": stages.draw,
    "counterfactuals": counterfactuals.draw,
    "consistency": consistency.draw,
    "coherence": coherence.draw,
    "attention": attention.draw,
    "norms": norms.draw,
    "patching": causal.draw,
    "behaviour": behaviour.draw,
}
_MOST_SENTENCES = 8
_MOST_ROWS = 400


def is_diagnosis(folder: Path) -> bool:
    """Whether ``blindspot diagnose`` has written there."""
    return (folder / "diagnosis.json").is_file()


def write_diagnosis(folder: Path) -> tuple[Path, list[str]]:
    """Write ``index.html``, and every figure as SVG, PDF and CSV in ``figures/``, from what diagnostics left there.

    Args:
        folder: what ``blindspot diagnose`` wrote, finished or not.

    Returns:
        The page, and its main sentences.

    Raises:
        UserError: if nothing was diagnosed, a file is damaged, or one cannot be written.
    """
    found = load_diagnosis(folder)
    if not found:
        raise UserError(f"{folder} holds no diagnosis; run blindspot diagnose MODEL --out {folder}")
    sections, sentences = [], []
    with style():
        for name, tables in found.items():
            drawn = _drawn(folder, name, tables)
            shown = [write_drawn(figure, folder / "figures") for figure in drawn]
            said = [sentence for figure in drawn for sentence in figure.says]
            sentences = said + sentences if name == "behaviour" else sentences + said
            spelled = [_spelled(table) for table in tables.values()]
            sections.append({"name": name, "question": DIAGNOSTICS[name], "figures": shown, "tables": spelled})
    sentences = sentences[:_MOST_SENTENCES] + [f"{name} is left out: {why}" for name, why in _left_out(found)]
    of = diagnosed(folder)
    page = render(
        "diagnosis/page.html.j2",
        of=of,
        name=_name(of["model"]),
        sections=sections,
        sentences=sentences,
        missing=[name for name in DIAGNOSTICS if name not in found],
    )
    write_text(folder / "index.html", page)
    return folder / "index.html", sentences


def _left_out(found: Mapping[str, Tables]) -> Iterator[tuple[str, str]]:
    """Diagnostics that have no numbers, and why."""
    for name, tables in found.items():
        notes = [note for table in tables.values() for note in table.notes]
        if notes and not any(table.rows for table in tables.values()):
            yield name, notes[0]


def _drawn(folder: Path, name: str, tables: Tables) -> list[Drawn]:
    pictures = load_pictures(folder, name)
    filled = {key: table for key, table in tables.items() if table.rows}
    try:
        return list(_DRAW[name](filled, pictures))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{folder / name}.json does not hold the rows that its figures need ({type(error).__name__}: "
                        f"{clean(str(error), 120)}); {AGAIN}") from error  # fmt: skip


def _name(model: Any) -> str:
    """A Hugging Face id as it is, of a folder its own name."""
    text = str(model)
    return text if text.count("/") == 1 and not text.startswith((".", "/")) else text.rstrip("/").rsplit("/", 1)[-1]


def _spelled(table: Table) -> dict[str, Any]:
    """A table for the page: keys, and rows as text."""
    keys = list(dict.fromkeys(key for row in table.rows for key in row))
    rows = [[_text(row.get(key)) for key in keys] for row in table.rows[:_MOST_ROWS]]
    return {"name": table.name, "title": table.title, "notes": table.notes, "keys": keys, "rows": rows,
            "left_out": max(0, len(table.rows) - _MOST_ROWS)}  # fmt: skip


def _text(value: Any) -> str:
    if value is None:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}".replace("-", MINUS) if isinstance(value, float) else str(value)
