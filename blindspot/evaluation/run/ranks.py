"""The processes of a run under ``torchrun``: who they are, and what they wait for."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from blindspot.errors import UserError

_PATIENCE = timedelta(days=30)  # the first to finish waits for the last, and torchrun ends all if one dies
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run.

    Attributes:
        rank: its number.
        world: how many there are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes what all share."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """What every process has, in the order of ranks; nobody goes on before all are here."""
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def first_does(self, work: Callable[[], T]) -> T:
        """What ``work`` returns in the first process, for all of them.

        Raises:
            UserError: in all of them, if it does in the first.
        """
        made: tuple[T | None, str | None] = (None, None)
        if self.first:
            try:
                made = (work(), None)
            except UserError as error:
                made = (None, str(error))
        value, refusal = self.gather(made)[0]
        if refusal is not None:
            raise UserError(refusal)
        return value  # pyright: ignore[reportReturnType]  (of the first process, which did the work)


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; without it, this one is alone. They talk over gloo."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    from blindspot.meeting import meet

    mine = not dist.is_initialized()
    if mine:
        store, rank, world = meet()
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()
