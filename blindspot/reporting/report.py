"""Everything that is made from ``results.json``: tables, figures, the page."""

import json
from pathlib import Path
from typing import Any

from blindspot.files import write_text
from blindspot.reporting.arms_diagnosed import Found, follows, load_arms
from blindspot.reporting.collect import VERSION, collect
from blindspot.reporting.diagnosis import stage_figure_of_arms, write_drawn
from blindspot.reporting.export import write_tables
from blindspot.reporting.figure_style import style
from blindspot.reporting.figures import write_figures
from blindspot.reporting.page import Images, render_page
from blindspot.reporting.plan import load_plan


def write_report(run: Path) -> Path:
    """Write ``tables/``, ``report/figures/`` and ``report/index.html`` from ``results.json``.

    Collects the results first where ``results.json`` is missing or of another version.

    Returns:
        the page.

    Raises:
        UserError: as ``collect`` does, or if the test images cannot be read.
    """
    results, images = _stored(run) or collect(run), Images(run)
    write_tables(run, results)
    folder = run / "report" / "figures"
    diagnosed = load_arms(run, load_plan(run))
    figures = write_figures(folder, results) | _stages(folder, diagnosed)
    page = run / "report" / "index.html"
    write_text(page, render_page(images, results, figures, follows(diagnosed)))
    return page


def _stages(folder: Path, diagnosed: Found) -> dict[str, tuple[Path, str]]:
    """The stage figure of the arms, if they were probed."""
    with style():
        drawn = stage_figure_of_arms([(label, tables["probes"]) for label, tables in diagnosed if "probes" in tables])
        return {} if drawn is None else {"stages": (write_drawn(drawn, folder), drawn.sheet.title)}


def _stored(run: Path) -> dict[str, Any] | None:
    try:
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("version") == VERSION else None
