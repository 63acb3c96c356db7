"""Everything that is made from ``results.json``: tables, figures, the page."""

from pathlib import Path
from typing import Any

from blindspot.files import parse_json, write_text
from blindspot.reporting.arms_diagnosed import follows, load_arms
from blindspot.reporting.collect import VERSION, collect
from blindspot.reporting.diagnosis import stage_figure_of_arms
from blindspot.reporting.export import write_tables
from blindspot.reporting.figure_style import style
from blindspot.reporting.figures import draw_figures
from blindspot.reporting.page import Images, render_page
from blindspot.reporting.plan import load_plan
from blindspot.reporting.sheet import write_drawn


def write_report(run: Path) -> Path:
    """Write ``tables/``, ``report/figures/`` and ``report/index.html`` from ``results.json``.

    Collects the results first where ``results.json`` is missing or of another version.

    Returns:
        the page.

    Raises:
        UserError: as ``collect`` does, or if the test images cannot be read.
    """
    results, plan = _stored(run) or collect(run), load_plan(run)
    images = Images(run, plan)
    write_tables(run, results)
    diagnosed = load_arms(run, plan)
    with style():
        drawn = [*draw_figures(results), stage_figure_of_arms(diagnosed)]
        figures = {one.name: write_drawn(one, run / "report" / "figures") for one in drawn if one is not None}
    page = run / "report" / "index.html"
    write_text(page, render_page(images, results, figures, follows(diagnosed)))
    return page


def _stored(run: Path) -> dict[str, Any] | None:
    try:
        results = parse_json((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("version") == VERSION else None
