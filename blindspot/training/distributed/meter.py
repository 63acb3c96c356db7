"""What a step's row in the log says besides the loss: speed, share of the GPU's peak, memory, time left."""

import resource
import sys
import time
from typing import Any

import torch

from blindspot.training.distributed.flops import peak
from blindspot.training.distributed.ranks import Ranks
from blindspot.training.distributed.step import Counts


class Meter:
    """Times the steps of this process.

    Args:
        ranks: the processes.
        steps: of the run.
    """

    def __init__(self, ranks: Ranks, steps: int) -> None:
        self._ranks, self._steps = ranks, steps
        self._peak = peak(ranks.device)
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
        rate = counts.operations / seconds / self._ranks.world
        return {
            "seconds": round(seconds, 4),
            "data_seconds": round(self._waited, 4),
            "tokens": int(counts.tokens),
            "supervised_tokens": int(counts.supervised),
            "tokens_per_second": round(counts.tokens / seconds, 1),
            "padding": round(1 - counts.tokens / counts.room, 4),
            "tflops_per_device": round(rate / 1e12, 4),
            "mfu": None if self._peak is None else round(rate / self._peak, 4),
            "memory_gib": round(peak_memory(self._ranks.device), 3),
            "seconds_left": round(usual * (self._steps - finished), 1),
        }


def peak_memory(device: torch.device) -> float:
    """Most memory that this process has had on its device, in GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
