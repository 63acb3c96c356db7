"""The log of a run: JSON Lines always, a tracker where one is asked for; and what a row says of speed and memory."""

import json
import re
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from blindspot.files import LOG, parse_json, write_jsonl
from blindspot.training.flops import GPUS
from blindspot.training.tracker import Tracker

LEVEL = 0.03
"""See `last_fall`."""


class Log:
    """The log of a run, on its first rank; rows behind ``step``, from which it goes on, are taken away."""

    def __init__(self, folder: Path, step: int, tracker: Tracker | None, name: str = LOG) -> None:
        self._path = folder / name
        kept = []
        for line in self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []:
            try:
                row = parse_json(line)
            except ValueError:  # a kill cut it off
                break
            if row["step"] <= step:
                kept.append(row)
        write_jsonl(self._path, kept)
        self._tracked = None if tracker is None else tracker.begin(folder, kept)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, if it says more than that a step is done; its numbers go to the tracker too."""
        if row.keys() <= {"step", "steps"}:
            return
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
        if self._tracked is not None:
            self._tracked.write(row["step"], row)

    def close(self) -> None:
        """Tell the tracker that the run is over."""
        if self._tracked is not None:
            self._tracked.close()


def last_fall(losses: Sequence[float]) -> float:
    """By how much a logged loss fell from the last but one fifth of its rows to the last, in means, as a share of its
    whole fall: `LEVEL` and below is level. 1 where it has not fallen, or has too few rows to tell.
    """
    fifth, whole = len(losses) // 5, losses[0] - losses[-1] if losses else 0.0
    if fifth < 2 or whole <= 0:
        return 1.0
    return (sum(losses[-2 * fifth : -fifth]) - sum(losses[-fifth:])) / fifth / whole


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
