"""The training loop of every stage: deterministic, checkpointed, and the same bits after a kill as without one."""

import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from blindspot.errors import UserError
from blindspot.files import CHECKPOINTS, PROBES
from blindspot.terminal import Report
from blindspot.training.checkpoint import Checkpoints
from blindspot.training.log import Log
from blindspot.training.optim import Schedule, begin, flat_then_linear, muon
from blindspot.training.parallel import ALONE, Ranks
from blindspot.training.tracker import Tracker


def silent(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
    """A `Report` that nobody reads."""


@dataclass(frozen=True)
class Recipe:
    """How long and how fast a stage trains."""

    steps: int
    batch: int  # samples of a step
    lr: float
    warmup: int = 30  # steps in which the rate rises to its peak, ``lr``
    schedule: Schedule = flat_then_linear
    clip: float = 1.0  # the gradient's norm is cut to this
    log_every: int = 25
    """With ``save_every``: steps between rows of the log, and between checkpoints, of which ``keep`` stay."""
    save_every: int = 200
    keep: int = 1

    def rate(self, step: int, peak: float | None = None) -> float:
        """Learning rate of the step counted from 0, of weights whose peak is ``peak`` (by default ``lr``)."""
        return self.schedule(step, self.steps, self.warmup, self.lr if peak is None else peak)


@dataclass(frozen=True)
class Probing:
    """What is measured on the way, after some ``steps`` and after the last; ``measure`` must not change the model."""

    measure: Callable[[], dict[str, Any]]
    steps: Container[int] = ()


class Work:
    """What a run trains, and what a step of it is. This one reads its batch by the number of the step.

    Args:
        module: everything whose state the run changes.
        loss: step -> scalar; torch's generator is seeded before each call.
        seed: of the randomness inside ``loss``.
        after_step: called after the optimiser, e.g. to update a teacher.
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[int], Tensor],
        seed: int,
        after_step: Callable[[int], None] = lambda step: None,
    ) -> None:
        self.module, self.after_step = module, after_step
        self._loss, self._seed = loss, seed

    def optimisers(self, recipe: Recipe) -> Sequence[Optimizer]:
        """What changes the weights that train. Every group has its ``peak``."""
        return muon(self.module, recipe.lr)

    def state(self) -> dict[str, Tensor]:
        """What of the module a checkpoint holds."""
        return self.module.state_dict()

    def seed(self, step: int) -> int:
        """Of torch's generator in a step."""
        return self._seed * 1_000_003 + step

    def batches(self, steps: range) -> AbstractContextManager[Iterator[Any]]:
        """The batch of each step, which may be made ahead."""
        return nullcontext(iter(steps))

    def terms(self, batch: Any) -> Iterable[Tensor]:
        """This rank's part of a step's loss, as scalars that are differentiated one after the other."""
        yield self._loss(batch)

    def culprits(self) -> list[str]:
        """Of the last step on this rank the samples whose own loss is no number."""
        return []

    def row(self, finished: int, norm: float) -> dict[str, Any]:
        """What the log says of the last step besides loss and rate."""
        return {}


def fit(
    work: Work,
    recipe: Recipe,
    folder: Path,
    report: Report = silent,
    ranks: Ranks = ALONE,
    probe: Probing | None = None,
    tracker: Tracker | None = None,
) -> None:
    """Minimise the loss of ``work`` over what of its module trains, from the newest checkpoint in ``folder`` on.

    All ranks call this. The log gets a row every ``recipe.log_every`` steps: step, steps, mean loss since the last row,
    rate, what ``work`` adds; what ``probe`` measures has a file of its own. A loss that is no number is an error that
    names its samples; the state before is saved.
    """
    module, optimisers = work.module, work.optimisers(recipe)
    begin(optimisers)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    recent = torch.zeros(recipe.log_every, dtype=torch.float64)
    state = partial(_state, work, optimisers, recent)
    checkpoints = Checkpoints(folder / CHECKPOINTS, recipe.keep, ranks, beside=ranks.device.type == "cuda")
    done = checkpoints.newest() or 0
    if done:
        checkpoints.load(done, state())
    log = Log(folder, done, tracker) if ranks.first else None
    probes = Log(folder, done, None, PROBES) if ranks.first and probe is not None else None
    module.train()
    with work.batches(range(done, recipe.steps)) as data:
        for step, batch in enumerate(data, start=done):
            torch.manual_seed(work.seed(step))
            loss, norm = _differentiate(work.terms(batch), trained, recipe.clip, ranks)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                checkpoints.save(step, state())
                checkpoints.finish()
                raise _no_number(step, loss, norm, ranks.gather(work.culprits()), folder)
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = recipe.rate(step, group["peak"])
                optimiser.step()
            module.zero_grad()
            work.after_step(step)
            recent[step % recipe.log_every] = loss
            finished, last = step + 1, step + 1 == recipe.steps
            row: dict[str, Any] = {"step": finished, "steps": recipe.steps}
            if finished % recipe.log_every == 0 or last:
                mean = float(np.mean(recent[: step % recipe.log_every + 1].numpy()))
                row |= {"loss": round(mean, 6), "lr": recipe.rate(step), **work.row(finished, norm)}
            if probe is not None and (finished in probe.steps or last):
                module.eval()
                measured = probe.measure()
                module.train()
                if probes is not None:
                    probes.write({"step": finished, **measured})
            if log is not None:
                log.write(row)
                report(finished, recipe.steps, loss)
            if finished % recipe.save_every == 0 or last:
                checkpoints.save(finished, state())
    checkpoints.finish()
    module.eval()
    if log is not None:
        log.close()


def _differentiate(terms: Iterable[Tensor], trained: list[nn.Parameter], clip: float, ranks: Ranks) -> list[float]:
    """Give every parameter its gradient, cut to ``clip``; the loss, which is the sum of all terms, and the norm."""
    losses = []
    for term in terms:
        (term * ranks.world).backward()  # sharding takes the mean over ranks, and this is a sum
        losses.append(term.detach().double())
    norm: Any = nn.utils.clip_grad_norm_(trained, clip)
    norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return [*ranks.total([torch.stack(losses).sum().item()]), norm.item()]


def _state(work: Work, optimisers: Sequence[Optimizer], recent: Tensor) -> dict[str, Any]:
    """What a checkpoint holds: tensors, which are the run's own."""
    moments = {id(one): held for optimiser in optimisers for one, held in optimiser.state.items()}
    named = {name: moments.get(id(parameter)) for name, parameter in work.module.named_parameters()}
    return {
        "model": work.state(),
        "optimiser": {name: held for name, held in named.items() if held},
        "recent": recent,
    }


def _no_number(step: int, loss: float, norm: float, culprits: list[list[str]], folder: Path) -> UserError:
    named = [name for names in culprits for name in names]
    what = f"the gradient's norm is {norm}, the loss {loss:.4f}," if math.isfinite(loss) else f"the loss is {loss}"
    who = ", ".join(named[:8]) + (" and more" if named[8:] else "") or "no sample alone"
    return UserError(
        f"{what} at step {step + 1}, of {who}; the state before it is in {folder / CHECKPOINTS}. "
        "Look at these samples, or lower the rate of learning in another --out"
    )
