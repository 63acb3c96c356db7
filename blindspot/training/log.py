"""The log of a run: JSON Lines always, a tracker where one is asked for; and what a row says of speed and memory."""

import importlib
import json
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from blindspot.errors import UserError
from blindspot.files import LOG, parse_json, write_jsonl
from blindspot.training.flops import GPUS


class Log:
    """The log of a run, on its first rank; rows behind ``step``, from which it goes on, are taken away."""

    def __init__(self, folder: Path, step: int, tracker: str | None) -> None:
        self._path = folder / LOG
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []:
            try:
                row = parse_json(line)
            except ValueError:  # a kill cut it off
                break
            if row["step"] <= step:
                kept.append(row)
        write_jsonl(self._path, kept)
        self._tracker: Any = library_of(tracker) if tracker else None
        self._board: Any = None
        if tracker == "tensorboard":
            self._board = self._tracker.SummaryWriter(folder / tracker)
        elif tracker is not None:
            self._tracker.init(project="blindspot", name=folder.name)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, if it says more than that a step is done; its numbers go to the tracker too."""
        if row.keys() <= {"step", "steps"}:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        numbers = {name: value for name, value in row.items() if isinstance(value, int | float) and name != "step"}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, row["step"])
        elif self._tracker is not None:
            self._tracker.log(numbers, step=row["step"])

    def close(self) -> None:
        """Tell the tracker that the run is over."""
        if self._board is not None:
            self._board.close()
        elif self._tracker is not None:
            self._tracker.finish()


def library_of(name: str) -> Any:
    """The module of a tracker."""
    try:
        return importlib.import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ImportError as error:
        raise UserError(f"the tracker {name} is not installed ({error}); pip install {name}") from error


class BatchCounts(NamedTuple):
    """Of a global batch, over all ranks."""

    supervised: float  # tokens that are trained on
    tokens: float  # of all samples
    room: float  # tokens that are computed, padding and fillers included
    operations: float  # on floating-point numbers
    micros: float  # micro-batches in which something is supervised
    unread: float  # samples with a picture that cannot be read


class Meter:
    """Times the ``steps`` of a run on this process, one of ``world`` that compute on devices like ``device``."""

    def __init__(self, device: torch.device, world: int, steps: int) -> None:
        self._device, self._world, self._steps = device, world, steps
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
        self._peak = next((gpu.peak for gpu in GPUS if re.search(rf"\b{gpu.name}\b", name)), None)
        self._step_began = time.perf_counter()
        self._waited = 0.0
        self._recent: list[float] = []

    def data_arrived(self) -> None:
        """The step's batch is here: the time since the last step was spent waiting for it."""
        self._waited = time.perf_counter() - self._step_began

    def row(self, finished: int, counts: BatchCounts) -> dict[str, Any]:
        """The numbers of the step that ends now, after which ``finished`` are done."""
        now = time.perf_counter()
        seconds, self._step_began = now - self._step_began, now
        self._recent = [*self._recent[-49:], seconds]
        usual = sorted(self._recent)[len(self._recent) // 2]
        rate = counts.operations / seconds / self._world
        if self._device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self._device)
        else:
            unit = 1 if sys.platform == "darwin" else 2**10
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {
            "seconds": round(seconds, 4),
            "data_seconds": round(self._waited, 4),
            "tokens": int(counts.tokens),
            "supervised_tokens": int(counts.supervised),
            "tokens_per_second": round(counts.tokens / seconds, 1),
            "padding": round(1 - counts.tokens / counts.room, 4),
            "tflops_per_device": round(rate / 1e12, 4),
            "mfu": None if self._peak is None else round(rate / self._peak, 4),
            "memory_gib": round(memory / 2**30, 3),
            "seconds_left": round(usual * (self._steps - finished), 1),
        }
