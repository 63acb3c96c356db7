"""What each of two processes does in the tests of several ranks, in the environment that torchrun gives them.

A check is `name=folder`; what it returns on the first rank is saved as `folder/state.pt`, an error as
`folder/error<rank>.txt`.
"""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from toy_training import SMALL, ToySamples, toy_parts, toy_variant

from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.training.config import TrainConfig
from blindspot.training.packing import TrainingSample
from blindspot.training.parallel import joined
from blindspot.training.variant import train, train_arm

BASE = TrainConfig(
    batch=8, lr=3e-3, steps=20, frozen=(), precision="fp32", pack_tokens=60, save_every=5, keep=2, workers=0
)
DEADLY, FATAL = 33, 9


def base_variant() -> Any:
    """The variant that several processes train: with parameters in every place that has any."""
    return toy_variant(EncoderPositions("mixed", 10.0, "keep"), LanguagePositions("mrope", sections=(4, 4, 4)))


class KillingSamples(ToySamples):
    """Samples that kill the second process at a step of which it reads this row."""

    def __getitem__(self, number: int) -> TrainingSample:
        if number == DEADLY and int(os.environ.get("RANK", 0)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)


class DyingSamples(ToySamples):
    """A data set with a picture that kills whoever reads it."""

    def pixels(self, sample: TrainingSample, blank: bool = False) -> list[dict[str, Tensor]]:
        if sample.id == f"s{FATAL}":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().pixels(sample, blank)


def run(out: Path, samples: ToySamples | None = None, variant: Any = None, **changes: Any) -> Any:
    """Train the base, or what is changed of it."""
    return train(replace(BASE, **changes), variant or base_variant(), samples or ToySamples(), out)


def _lonely(out: Path) -> Any:
    """One picture in the whole data set, and gated blocks that run only where there is an image."""
    samples = ToySamples(tokens=1, pictures=(1, 0, 0), broken=frozenset({5}))
    variant = toy_variant(connector=ConnectorSpec("gated_cross_attention", every=1))
    return run(out, samples, variant, steps=8, save_every=100)


def _rounded(out: Path) -> Any:
    """How far apart copies of the weights end whose moments are rounded at random."""
    variant = base_variant()
    with joined() as ranks:
        run(out, variant=variant, shard_size=1, optimiser_states="bf16", steps=4)
        copies = ranks.gather({name: parameter.to_local().detach() for name, parameter in variant.named_parameters()})
    return {name: copies[1][name] - tensor for name, tensor in copies[0].items()} if ranks.first else {}


def _arm(out: Path) -> Any:
    train_arm(toy_parts(), out / "rows.json", out / "images", out / "run", "instruct", **SMALL)


CHECKS: dict[str, Callable[[Path], Any]] = {
    "base": run,
    "killed": lambda out: run(out, KillingSamples()),
    "lonely": _lonely,
    "deadly": lambda out: run(out, ToySamples(deadly=frozenset({DEADLY})), save_every=100),
    "half": lambda out: run(out, precision="bf16", checkpointing="full", steps=6, frozen=("vision_tower",)),
    "arm": _arm,
    "copies": lambda out: run(out, shard_size=1),  # each process with a whole copy of the weights
    "rounded": _rounded,
    "dying": lambda out: run(out, DyingSamples(), workers=2, save_every=100),
}
ALONE = ("dying",)
"""Checks of the first process alone, after the others: torch's loader has a way of interrupting whoever holds it."""


def main(environment: dict[str, str], named: Sequence[str]) -> None:
    """Carry out checks."""
    os.environ |= environment
    torch.set_num_threads(1)
    checks = [one.split("=") for one in named]
    with joined() as ranks:
        for name, folder in checks:
            if name not in ALONE:
                _check(name, Path(folder), ranks.rank)
    del os.environ["WORLD_SIZE"]
    for name, folder in checks:
        if name in ALONE and ranks.first:
            _check(name, Path(folder), 0)


def _check(name: str, folder: Path, rank: int) -> None:
    try:
        state = CHECKS[name](folder)
    except UserError as error:
        (folder / f"error{rank}.txt").write_text(str(error))
        return
    if rank == 0:
        torch.save(state, folder / "state.pt")
    else:
        assert not state
