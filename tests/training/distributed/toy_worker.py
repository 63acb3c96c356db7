"""What each of two processes does in the tests of several ranks; started like torchrun starts it.

Every argument is a check, `name=folder`; what it returns on the first rank is saved as `folder/state.pt`, an error as
`folder/error<rank>.txt`.
"""

import os
import signal
import sys
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
from blindspot.training.packing import Sample
from blindspot.training.parallel import joined
from blindspot.training.variant import train, train_arm

BASE = TrainConfig(
    batch=8,
    lr=3e-3,
    steps=20,
    frozen=(),
    precision="fp32",
    pack_tokens=60,
    save_every=5,
    keep=2,
    workers=0,
)
DEADLY, FATAL = 33, 9


def base_variant() -> Any:
    """The variant that several processes train: with parameters in every place that has any."""
    return toy_variant(EncoderPositions("mixed", 10.0, "keep"), LanguagePositions("mrope", sections=(4, 4, 4)))


class KillingSamples(ToySamples):
    """Samples that kill the second process at a step of which it reads this row."""

    def __getitem__(self, number: int) -> Sample:
        if number == DEADLY and int(os.environ.get("RANK", 0)) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(number)


def _base(out: Path) -> Any:
    return train(BASE, base_variant(), ToySamples(), out)


def _killed(out: Path) -> Any:
    return train(BASE, base_variant(), KillingSamples(), out)


def _lonely(out: Path) -> Any:
    """One picture in the whole data set, and gated blocks that run only where there is an image."""
    samples = ToySamples(tokens=1, pictures=(1, 0, 0), broken=frozenset({5}), deadly=frozenset())
    variant = toy_variant(connector=ConnectorSpec("gated_cross_attention", every=1))
    return train(replace(BASE, steps=8, save_every=100), variant, samples, out)


def _deadly(out: Path) -> Any:
    return train(replace(BASE, save_every=100), base_variant(), ToySamples(deadly=frozenset({DEADLY})), out)


class DyingSamples(ToySamples):
    """A data set with a picture that kills whoever reads it."""

    def pixels(self, sample: Sample, blank: bool = False) -> list[dict[str, Tensor]]:
        if sample.id == f"s{FATAL}":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().pixels(sample, blank)


def _dying(out: Path) -> Any:
    return train(replace(BASE, workers=2, save_every=100), base_variant(), DyingSamples(), out)


def _half(out: Path) -> Any:
    config = replace(BASE, precision="bf16", checkpointing="full", steps=6, frozen=("vision_tower",))
    return train(config, base_variant(), ToySamples(), out)


def _copies(out: Path) -> Any:
    """Each process with a whole copy of the weights."""
    return train(replace(BASE, shard_size=1), base_variant(), ToySamples(), out)


def _rounded(out: Path) -> Any:
    """How far apart copies of the weights end whose moments are rounded at random."""
    variant = base_variant()
    with joined() as ranks:
        train(replace(BASE, shard_size=1, optimiser_states="bf16", steps=4), variant, ToySamples(), out)
        copies = ranks.gather({name: parameter.to_local().detach() for name, parameter in variant.named_parameters()})
    return {name: copies[1][name] - tensor for name, tensor in copies[0].items()} if ranks.first else {}


def _arm(out: Path) -> Any:
    train_arm(toy_parts(), out / "rows.json", out / "images", out / "run", "instruct", **SMALL)


CHECKS = {
    "base": _base,
    "killed": _killed,
    "lonely": _lonely,
    "deadly": _deadly,
    "half": _half,
    "dying": _dying,
    "arm": _arm,
    "copies": _copies,
    "rounded": _rounded,
}


ALONE = ("dying",)
"""Checks of the first process alone, after the others: torch's loader has a way of interrupting whoever holds it."""


def main() -> None:
    torch.set_num_threads(1)
    checks = [argument.split("=") for argument in sys.argv[1:]]
    with joined() as ranks:
        for name, folder in checks:
            if name not in ALONE:
                _run(name, Path(folder), ranks.rank)
    del os.environ["WORLD_SIZE"]
    for name, folder in checks:
        if name in ALONE and ranks.first:
            _run(name, Path(folder), 0)


def _run(name: str, folder: Path, rank: int) -> None:
    try:
        state = CHECKS[name](folder)
    except UserError as error:
        (folder / f"error{rank}.txt").write_text(str(error))
        return
    if rank == 0:
        torch.save(state, folder / "state.pt")
    else:
        assert not state


if __name__ == "__main__":
    main()
