"""Everything that is made from ``results.json``: tables, figures, the page."""

import json
from pathlib import Path
from typing import Any

from blindspot.files import write_text
from blindspot.reporting.collect import VERSION, collect
from blindspot.reporting.export import write_tables
from blindspot.reporting.figures import write_figures
from blindspot.reporting.page import Images, render_page


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
    figures = write_figures(run / "report" / "figures", results)
    page = run / "report" / "index.html"
    write_text(page, render_page(images, results, figures))
    return page


def _stored(run: Path) -> dict[str, Any] | None:
    try:
        results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("version") == VERSION else None
