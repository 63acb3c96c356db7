"""The log of a run: JSON Lines always, a tracker where one is asked for; and what a row says of speed and memory."""

import importlib
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from blindspot.errors import UserError
from blindspot.files import parse_json, write_jsonl
from blindspot.training.flops import Counts, peak

LOG = "log.jsonl"


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
        self._tracker: Any = None
        if tracker == "tensorboard":
            self._tracker = _TensorBoard(library_of(tracker).SummaryWriter(folder / tracker))
        elif tracker is not None:
            self._tracker = library_of(tracker)
            self._tracker.init(project="blindspot", name=folder.name)

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
    """The module of a tracker."""
    try:
        return importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError as error:
        raise UserError(f"the tracker {name} is not installed ({error}); pip install {name}") from error


class _TensorBoard:
    """Called as the other trackers are."""

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


class Meter:
    """Times the steps of this process.

    Args:
        device: where it computes.
        world: how many processes there are.
        steps: of the run.
    """

    def __init__(self, device: torch.device, world: int, steps: int) -> None:
        self._device, self._world, self._steps = device, world, steps
        gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak = peak(gpu)
        self._step_began = time.perf_counter()
        self._waited = 0.0
        self._recent: list[float] = []

    def data_arrived(self) -> None:
        """The step's batch is here: the time since the last step was spent waiting for it."""
        self._waited = time.perf_counter() - self._step_began

    def row(self, finished: int, counts: Counts) -> dict[str, Any]:
        """The numbers of the step that ends now.

        Args:
            finished: steps that are done.
            counts: of its global batch.
        """
        now = time.perf_counter()
        seconds, self._step_began = now - self._step_began, now
        self._recent = [*self._recent[-49:], seconds]
        usual = sorted(self._recent)[len(self._recent) // 2]
        rate = counts.operations / seconds / self._world
        return {
            "seconds": round(seconds, 4),
            "data_seconds": round(self._waited, 4),
            "tokens": int(counts.tokens),
            "supervised_tokens": int(counts.supervised),
            "tokens_per_second": round(counts.tokens / seconds, 1),
            "padding": round(1 - counts.tokens / counts.room, 4),
            "tflops_per_device": round(rate / 1e12, 4),
            "mfu": None if self._peak is None else round(rate / self._peak, 4),
            "memory_gib": round(peak_memory(self._device), 3),
            "seconds_left": round(usual * (self._steps - finished), 1),
        }


def peak_memory(device: torch.device) -> float:
    """Most memory that this process has had on its device, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
