"""A store that holds nothing of earlier attempts, where ``torchrun`` starts processes again.

``torchrun`` keeps one store as long as it lives (torch 2.13, without ``--standalone`` and with it). Where it starts
processes again, gloo finds the addresses of those that died in it, and hangs or fails; nor does the number of restarts
tell attempts apart, for each node counts its own. So the first rank gives every attempt a name, and tells it only to
those who ask now.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from blindspot.errors import UserError

_LOOK_EVERY, _PATIENCE = 0.02, 600.0
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. Nobody goes on from a method before all processes have called it."""

    rank: int = 0  # its number
    world: int = 1  # how many there are
    device: Any = None  # where it computes, a `torch.device`

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what all share."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What every process has, in the order of ranks."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, entry by entry."""
        if self.world == 1:
            return list(values)
        import torch
        import torch.distributed as dist

        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return sums.tolist()

    def from_first(self, value: T) -> T:
        """What the first process has."""
        return self.gather(value)[0]

    def first_does(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in the first process, which alone does it; its `UserError` is that of all."""
        made: Any = (None, None)
        if self.first:
            try:
                made = (work(), None)
            except UserError as error:
                made = (None, str(error))
        found, problem = self.from_first(made)
        if problem is not None:
            raise UserError(problem)
        return found


@contextmanager
def join_ranks(backend: str = "gloo", device: Any = None, always: bool = False, **options: Any) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started, which then are a group of torch's; inside another, it is the same.

    Args:
        backend: how they talk.
        device: where this one computes.
        always: be a group also where this process is alone.
        options: more of `torch.distributed.init_process_group`.
    """
    if not always and int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks(device=device)
        return
    import torch.distributed as dist
    from torch._C._distributed_c10d import HashStore, PrefixStore
    from torch.distributed.rendezvous import rendezvous

    mine = not dist.is_initialized()
    if mine:
        store, rank, world = HashStore(), 0, 1
        if "WORLD_SIZE" in os.environ:
            store, rank, world = next(rendezvous("env://"))
            store = PrefixStore(agree(store, rank, world), store)
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, **options)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        if mine:
            dist.destroy_process_group()


def agree(store: Any, rank: int, world: int) -> str:
    """A name of this attempt that is new and the same on all ranks, though ``store`` may be old."""
    if rank:
        question = uuid.uuid4().hex  # an answer to it can't be an old one
        store.set(f"ask/{rank}", question)
        store.wait([f"tell/{question}"])
        name = store.get(f"tell/{question}").decode()
        store.set(f"heard/{name}/{rank}", "")
        return name
    name, missing = uuid.uuid4().hex, set(range(1, world))
    deadline = time.monotonic() + _PATIENCE
    while missing:
        if time.monotonic() > deadline:
            late = ", ".join(str(other) for other in sorted(missing))
            raise UserError(f"of {world} processes, number {late} did not start in ten minutes; look at their output")
        for other in sorted(missing):
            if store.check([f"heard/{name}/{other}"]):
                missing.remove(other)
            elif store.check([f"ask/{other}"]):  # it may still be that of a process that died, and will change
                store.set(f"tell/{store.get(f'ask/{other}').decode()}", name)
        time.sleep(_LOOK_EVERY if missing else 0)
    return name


def own_gpu() -> str | None:
    """The GPU of this process, under ``torchrun`` each one of its own; None: there is none on this machine."""
    import torch

    if not torch.cuda.is_available():
        return None
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local >= torch.cuda.device_count():
        raise UserError(f"process {local + 1} on this machine has no GPU; start {torch.cuda.device_count()}")
    return f"cuda:{local}"
