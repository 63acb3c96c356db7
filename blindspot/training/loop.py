"""The training loop of every stage: deterministic, checkpointed, and the same bits after a kill as without one."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from blindspot.errors import UserError
from blindspot.files import CHECKPOINT, intact, seal, write_jsonl, write_via
from blindspot.training.optimiser import optimisers

LOG = "log.jsonl"


class Report(Protocol):
    """Told after each step how far the run is."""

    def __call__(self, step: int, steps: int, loss: float | None = None, phase: str = "") -> None: ...


@dataclass(frozen=True)
class Recipe:
    """How long and how fast: optimiser steps, samples a step, peak learning rate, steps of linear warm-up.

    The rate is flat up to half of the steps and then falls linearly to a twentieth of its peak.
    """

    steps: int
    batch: int
    lr: float
    warmup: int = 30
    log_every: int = 25
    checkpoint_every: int = 200

    def rate(self, step: int) -> float:
        """Learning rate of the step counted from 0."""
        half = self.steps / 2
        decay = 1.0 if step < half else 1 - 0.95 * (step - half) / half
        return self.lr * min(1.0, (step + 1) / self.warmup) * decay


class Order:
    """Which samples each step sees: a new permutation every epoch, a pure function of seed and step."""

    def __init__(self, samples: int, batch: int, seed: int) -> None:
        self._samples, self._batch, self._seed = samples, min(batch, samples), seed
        self._epoch, self._permutation = -1, np.empty(0, np.int64)

    def __call__(self, step: int) -> np.ndarray:
        """Indices of the samples of ``step``."""
        per_epoch = self._samples // self._batch
        epoch, place = divmod(step, per_epoch)
        if epoch != self._epoch:
            generator = np.random.Generator(np.random.PCG64([self._seed, epoch]))
            self._epoch, self._permutation = epoch, generator.permutation(self._samples)
        return self._permutation[place * self._batch : (place + 1) * self._batch]


def fit(
    module: nn.Module,
    loss: Callable[[int], Tensor],
    recipe: Recipe,
    seed: int,
    folder: Path,
    report: Report,
    after_step: Callable[[int], None] | None = None,
    probe: Callable[[], dict[str, Any]] | None = None,
    probe_every: int = 0,
) -> None:
    """Minimise ``loss`` over the trainable parameters of ``module``.

    A checkpoint in ``folder`` is continued. `LOG` gets a row every ``recipe.log_every`` steps: step, steps, mean loss
    since the last row, rate; and what ``probe`` measures every ``probe_every`` steps and at the end.

    Args:
        module: everything whose state the run changes.
        loss: step -> scalar; reads its batch by the step number alone. torch's generator is seeded before each call.
        recipe: how long and how fast.
        seed: of the randomness inside ``loss``.
        folder: where the log and the checkpoint go.
        report: told of every step.
        after_step: called after the optimiser, e.g. to update a teacher.
        probe: measures the model on the way; must not change it.
        probe_every: steps between probes.

    Raises:
        UserError: if the loss is not a number; the checkpoint before it is kept.
    """
    stage = optimisers(module, recipe.lr)
    done, rows, recent = _resume(folder / CHECKPOINT, module, stage)
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.train()
    for step in range(done, recipe.steps):
        torch.manual_seed(seed * 1_000_003 + step)
        for optimiser in stage:
            optimiser.param_groups[0]["lr"] = recipe.rate(step)
        value = loss(step)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trainable, 1.0)
        for optimiser in stage:
            optimiser.step()
        module.zero_grad()
        if after_step is not None:
            after_step(step)
        recent.append(value.item())
        if not np.isfinite(recent[-1]):
            raise UserError(f"{folder.name}: the loss is {recent[-1]} at step {step + 1}; lower the stage's lr")
        finished = step + 1
        report(finished, recipe.steps, recent[-1])
        if finished % recipe.log_every == 0 or finished == recipe.steps:
            rows.append(_row(finished, recipe, recent))
            recent = []
        if probe is not None and (finished % probe_every == 0 or finished == recipe.steps):
            module.eval()
            rows[-1].update(probe()) if rows and rows[-1]["step"] == finished else rows.append(
                {"step": finished, "steps": recipe.steps, **probe()}
            )
            module.train()
        if finished % recipe.checkpoint_every == 0 and finished < recipe.steps:
            _save(folder / CHECKPOINT, finished, module, stage, rows, recent)
    module.eval()
    write_jsonl(folder / LOG, rows)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def _row(finished: int, recipe: Recipe, losses: list[float]) -> dict[str, Any]:
    rate = recipe.rate(finished - 1)
    return {"step": finished, "steps": recipe.steps, "loss": round(float(np.mean(losses)), 6), "lr": rate}


def _save(
    path: Path, step: int, module: nn.Module, stage: list[Any], rows: list[dict[str, Any]], recent: list[float]
) -> None:
    state = {
        "step": step,
        "module": module.state_dict(),
        "optimisers": [optimiser.state_dict() for optimiser in stage],
        "rows": rows,
        "recent": recent,
    }

    def write(temporary: Path) -> None:
        torch.save(state, temporary)
        seal(temporary)

    write_via(path, write)


def _resume(path: Path, module: nn.Module, stage: list[Any]) -> tuple[int, list[dict[str, Any]], list[float]]:
    """Load a checkpoint if there is one; a damaged one is as good as none."""
    if not path.exists() or not intact(path):
        path.unlink(missing_ok=True)
        return 0, [], []
    state = torch.load(path, weights_only=True)
    module.load_state_dict(state["module"])
    for optimiser, saved in zip(stage, state["optimisers"], strict=True):
        optimiser.load_state_dict(saved)
    return state["step"], state["rows"], state["recent"]
