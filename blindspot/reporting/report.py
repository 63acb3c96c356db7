"""Everything that is made from ``results.json``: tables, figures, the page. What draws is loaded when it draws."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from blindspot.files import fingerprint, parse_json, sha256_file, write_json, write_text
from blindspot.reporting.collect import VERSION, collect
from blindspot.reporting.export import write_tables
from blindspot.reporting.plan import load_plan

PACKAGE = Path(__file__).parents[1]
MADE = Path("report") / "made.json"
"""Fingerprint of the code, of what a report was made from and of what it consists of."""
LIBRARIES = ("matplotlib", "numpy", "scipy", "statsmodels")


def write_report(run: Path) -> Path:
    """Write ``tables/``, ``report/figures/`` and ``report/index.html`` from ``results.json``.

    Collects the results first where ``results.json`` is missing or of another version.

    Returns:
        the page.

    Raises:
        UserError: as ``collect`` does, or if the test images cannot be read.
    """
    from blindspot.diagnostics.registry import plots_of
    from blindspot.reporting.diagnosis import follows, load_arms
    from blindspot.reporting.drawing import write_figures
    from blindspot.reporting.figures import study_figures
    from blindspot.reporting.page import Images, render_page

    results, plan = _stored(run) or collect(run), load_plan(run)
    images = Images(run, plan)
    write_tables(run, results)
    diagnosed = load_arms(run, plan)
    of_arms = plots_of("probes").of_arms(diagnosed)
    figures = write_figures([*study_figures(results), *([of_arms] if of_arms else [])], run / "report" / "figures")
    page = run / "report" / "index.html"
    write_text(page, render_page(images, results, figures, follows(diagnosed)))
    return page


def kept_report(run: Path) -> dict[str, Any] | None:
    """The results of a run whose report needs no remaking; None if its steps, its files or the code have changed."""
    try:
        made = parse_json((run / MADE).read_text(encoding="utf-8"))
        return _stored(run) if made == _made(run) else None
    except (OSError, ValueError):
        return None


def keep_report(run: Path) -> None:
    """Record that the report of a run was just made, from new results."""
    write_json(run / MADE, _made(run))


def _made(run: Path) -> dict[str, Any]:
    patterns = ("plan.json", "results.json", "steps/*/done.json", "tables/*", "report/**/*")
    parts = [(run, pattern) for pattern in patterns] + [(PACKAGE, "**/*.py"), (PACKAGE, "**/*.j2")]
    checksums = {
        f"{path.relative_to(root)}": sha256_file(path)
        for root, pattern in parts  # the engine holds the files of each step against its done.json
        for path in root.glob(pattern)
        if path.is_file() and path != run / MADE
    }
    return {"fingerprint": fingerprint([checksums, {name: version(name) for name in LIBRARIES}])}


def _stored(run: Path) -> dict[str, Any] | None:
    try:
        results = parse_json((run / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return results if isinstance(results, dict) and results.get("version") == VERSION else None
