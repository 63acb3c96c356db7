"""A tracker in the place of trackio: what it is told becomes a JSON line each, in the file that TRACKED names."""

import json
import os
from pathlib import Path
from typing import Any


class Run:
    def __init__(self, name: str) -> None:
        self.name = name

    def log(self, values: dict[str, Any], step: int) -> None:
        with Path(os.environ["TRACKED"]).open("a") as file:
            file.write(json.dumps({"run": self.name, "step": step, **values}) + "\n")

    def finish(self) -> None: ...


def init(project: str, name: str, group: str, resume: str) -> Run:
    assert (project, resume) == ("blindspot", "allow") and name.startswith(f"{group}/")
    return Run(name)
