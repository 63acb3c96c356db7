"""The real command line over toy steps and a toy report; run as a program by the tests."""

import functools
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import blindspot

sys.modules["blindspot.reporting"] = reporting = ModuleType("reporting")
reporting.__path__ = [str(Path(blindspot.__path__[0]) / "reporting")]


def _write_report(run: Path) -> Path:
    page = run / "report" / "index.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("page")
    return page


def _print_tables(results: Any, console: Any) -> None:
    console.print(f"tables of {len(results['columns'])} columns")
    if os.environ.get("TOY_SHOW_TORCH"):
        console.print(f"torch loaded: {'torch' in sys.modules}")


reporting.collect = lambda run: {"columns": [], "gallery": [], "localisation": []}  # pyright: ignore
reporting.write_report, reporting.print_tables = _write_report, _print_tables  # pyright: ignore

if __name__ == "__main__":
    from blindspot import cli
    from blindspot.studies import engine, study

    engine.ENVIRONMENT |= {name: value for name, value in os.environ.items() if name.startswith("TOY_")}
    study.code_version = lambda: "toy"
    study.run_study = functools.partial(study.run_study, registry="toy_steps:STEPS")
    cli.app()
