"""Runs in a folder: how far each is, and the files of its pages."""

import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

from blindspot.errors import UserError
from blindspot.studies.status import read_status
from blindspot.text import clean

MARKS = ("plan.json", "run.json", "diagnosis.json")
"""One of them lies in every run's folder."""
PAGES = ("report/index.html", "index.html")
SERVED = {".html", ".svg", ".pdf", ".csv", ".tex", ".png", ".jpg", ".json"}
_FOUND: dict[Path, tuple[float, list[tuple[str, str, str | None]]]] = {}
"""Of folders: until when, by the clock, what was found there is shown."""
_LOCK = Lock()


def found_runs(root: Path) -> Iterator[tuple[str, str, str | None]]:
    """Of every study, evaluation and diagnosis below a folder: its path there, how far it is, and its page."""
    marks = (path for name in MARKS for depth in ("", "*/", "*/*/", "*/*/*/") for path in root.glob(depth + name))
    for folder in sorted({path.parent for path in marks if "steps" not in path.relative_to(root).parts}):
        page = next((name for name in PAGES if (folder / name).is_file()), None)
        said = "evaluation" if (folder / "run.json").exists() else "diagnosis"
        if (folder / "plan.json").exists():
            try:
                status = read_status(folder)
            except UserError as error:
                said = str(error)
            else:
                said = f"{clean(status.title)}: {len(status.done)} of {len(status.steps)} steps"
                said += ", at work" if status.process else ""
                said += f", {len(status.failures)} failed" if status.failures else ""
        name = folder.relative_to(root).as_posix()
        yield name if name != "." else root.resolve().name, said, page and quote(f"/runs/{name}/{page}")


def recent_runs(root: Path) -> list[tuple[str, str, str | None]]:
    """The same, for all visitors looked up once, and then not for ten times as long as that took."""
    with _LOCK:
        until, found = _FOUND.get(root, (0.0, []))
        if (began := time.monotonic()) > until:
            found = list(found_runs(root))
            _FOUND[root] = (11 * time.monotonic() - 10 * began, found)
        return found


def file_below(root: Path, name: str) -> Any:
    """A page of a run and what belongs to it; nothing outside of the folder but runs that are linked there, no
    weights."""
    responses: Any = import_module("starlette.responses")
    with suppress(OSError, ValueError):  # a name that no file can have
        path = (root / name).resolve()
        linked = [own for own in root.iterdir() if own.is_symlink() and any((own / mark).is_file() for mark in MARKS)]
        held = (own.resolve() for own in (root, *linked))
        if path.suffix in SERVED and any(map(path.is_relative_to, held)) and path.is_file():
            return responses.FileResponse(path)
    return responses.PlainTextResponse("not here", status_code=404)
