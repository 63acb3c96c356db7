"""A page as tests look at it, and changes of a made-up run folder."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from blindspot.files import sha256_file

VOID = {"meta", "link", "br", "img"}


class Checker(HTMLParser):
    """Collects tags, attributes and text, and sees to it that tags are closed in order."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\N{NO-BREAK SPACE}", " ").split())


def mark_done(folder: Path) -> None:
    """Have a step's folder, as it is now, be as the step made it."""
    made = [path for path in folder.rglob("*") if path.is_file() and path.name != "done.json"]
    files = {path.relative_to(folder).as_posix(): sha256_file(path) for path in made}
    (folder / "done.json").write_text(json.dumps({"files": files}))


def edit_plan(run: Path, **changes: Any) -> dict[str, Any]:
    """Change keys of a run's plan, which is returned."""
    plan = json.loads((run / "plan.json").read_text()) | changes
    (run / "plan.json").write_text(json.dumps(plan))
    return plan


def edit_answers(run: Path, change: Callable[[int, dict[str, Any]], object], steps: str = "*-evaluate") -> None:
    """Change rows of answers as if their steps had made them so."""
    for path in run.glob(f"steps/{steps}/answers.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for number, row in enumerate(rows):
            change(number, row)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        mark_done(path.parent)
