"""The processes of a run under ``torchrun``, which talk over gloo; without it, this one is alone."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from blindspot.rendezvous import Ranks, meet

_PATIENCE = timedelta(days=30)  # the first to finish waits for the last, and torchrun ends all if one dies


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Ranks()
        return
    import torch.distributed as dist

    mine = not dist.is_initialized()
    if mine:
        store, rank, world = meet()
        dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=_PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        if mine:
            dist.destroy_process_group()
