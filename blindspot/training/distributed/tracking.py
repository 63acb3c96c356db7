"""The log of a run: JSON Lines always, and a tracker where one is asked for."""

import importlib
import json
from pathlib import Path
from typing import Any, Protocol

from blindspot.errors import UserError
from blindspot.files import parse_json, write_jsonl

LOG = "log.jsonl"


class Tracker(Protocol):
    """Where numbers go besides the file."""

    def log(self, values: dict[str, Any], step: int) -> None: ...

    def finish(self) -> None: ...


class Log:
    """The log of a run; only the first rank has one.

    Args:
        folder: of the run.
        step: the step that the run continues behind; rows of later steps, of a run that was killed, are taken away.
        tracker: ``trackio``, ``wandb``, ``tensorboard`` or None.
    """

    def __init__(self, folder: Path, step: int, tracker: str | None) -> None:
        self._path = folder / LOG
        write_jsonl(self._path, [row for row in _rows(self._path) if row["step"] <= step])
        self._tracker = None if tracker is None else open_tracker(tracker, folder)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; its numbers go to the tracker too."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        if self._tracker is not None:
            numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
            self._tracker.log(numbers, step=row["step"])

    def close(self) -> None:
        """Tell the tracker that the run is over."""
        if self._tracker is not None:
            self._tracker.finish()


def library_of(name: str) -> Any:
    """The module of a tracker.

    Raises:
        UserError: if it is not installed.
    """
    try:
        return importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError as error:
        raise UserError(f"the tracker {name} is not installed ({error}); pip install {name}") from error


def open_tracker(name: str, folder: Path) -> Tracker:
    """A tracker that files under the name of the run's folder."""
    library = library_of(name)
    if name == "tensorboard":
        return _TensorBoard(library.SummaryWriter(folder / "tensorboard"))
    library.init(project="blindspot", name=folder.name)
    return library


class _TensorBoard:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def log(self, values: dict[str, Any], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a log up to the first that a kill cut off."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(parse_json(line))
        except ValueError:
            break
    return rows
