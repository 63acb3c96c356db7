"""The page of a diagnosis: what each diagnostic found, as sentences, figures and tables."""

import base64
import csv
import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context

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
    Row,
    Table,
    Tables,
    diagnosed,
    load_diagnosis,
    load_pictures,
)
from blindspot.reporting.diagnosis.drawing import Drawn
from blindspot.reporting.figure_style import save, style
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
_PIXELS_AN_INCH = 72
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
    with style(), rc_context({"text.parse_math": False}):
        for name, tables in found.items():
            drawn = _drawn(folder, name, tables)
            shown = [_shown(figure, write_drawn(figure, folder / "figures")) for figure in drawn]
            said = [sentence for figure in drawn for sentence in figure.says]
            sentences = said + sentences if name == "behaviour" else sentences + said
            spelled = [_spelled(table) for table in tables.values()]
            sections.append({"name": name, "question": DIAGNOSTICS[name], "figures": shown, "tables": spelled})
    sentences = sentences[:_MOST_SENTENCES]
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["tied"] = lambda text: text.replace(" %", "\N{NO-BREAK SPACE}%")
    missing = [name for name in DIAGNOSTICS if name not in found]
    page = environment.get_template("page.html.j2").render(
        of=diagnosed(folder),
        name=_name(diagnosed(folder)["model"]),
        sections=sections,
        sentences=sentences,
        missing=missing,
    )
    write_text(folder / "index.html", page)
    return folder / "index.html", sentences


def write_drawn(drawn: Drawn, folder: Path) -> Path:
    """Write a figure as SVG, PDF and, the numbers behind it, CSV; to be called with `style` on.

    Returns:
        The SVG file.
    """
    write_text(folder / f"{drawn.name}.csv", _csv(drawn.rows))
    return save(drawn.sheet.figure, folder, drawn.name)[0]


def _drawn(folder: Path, name: str, tables: Tables) -> list[Drawn]:
    pictures = load_pictures(folder, name)
    try:
        return list(_DRAW[name](tables, pictures))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{folder / name}.json does not hold the rows that its figures need ({type(error).__name__}: "
                        f"{clean(str(error), 120)}); {AGAIN}") from error  # fmt: skip


def _name(model: Any) -> str:
    """A Hugging Face id as it is, of a folder its own name."""
    text = str(model)
    return text if text.count("/") == 1 and not text.startswith((".", "/")) else text.rstrip("/").rsplit("/", 1)[-1]


def _shown(drawn: Drawn, path: Path) -> dict[str, Any]:
    """A figure for the page, which writes its title as text."""
    svg, sheet = path.read_text(encoding="utf-8"), drawn.sheet
    wide, high, head = (_PIXELS_AN_INCH * inches for inches in (sheet.width, sheet.height, sheet.head))
    box = f'viewBox="0 {head:.2f} {wide:.2f} {high - head:.2f}" width="{wide:.2f}pt" height="{high - head:.2f}pt"'
    tag = re.search(r"<svg\b[^>]*>", svg)
    if tag is not None:
        kept = re.sub(r'\s(?:width|height|viewBox)="[^"]*"', "", tag[0])
        svg = svg.replace(tag[0], kept.replace("<svg", f"<svg {box}", 1), 1)
    source = f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
    return {
        "name": drawn.name,
        "title": sheet.title,
        "subtitle": sheet.subtitle,
        "source": source,
        "width": sheet.width,
    }


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


def _csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
