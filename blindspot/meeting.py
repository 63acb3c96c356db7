"""A store that holds nothing of earlier attempts, where ``torchrun`` starts processes again.

It keeps one store as long as it lives (torch 2.13, without ``--standalone`` and with it). There gloo finds the
addresses of the processes that died, and hangs or fails; nor does the number of restarts tell attempts apart, for each
node counts its own. So the first rank gives every attempt a name, and tells it only to those who ask now.
"""

import time
import uuid
from typing import Any

from torch._C._distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from blindspot.errors import UserError

_LOOK_EVERY, _PATIENCE = 0.02, 600.0


def meet() -> tuple[Any, int, int]:
    """Store, rank and world size of this process, from the environment that ``torchrun`` gives it."""
    store, rank, world = next(rendezvous("env://"))
    return PrefixStore(agree(store, rank, world), store), rank, world


def agree(store: Any, rank: int, world: int) -> str:
    """A name of this attempt that is new and the same on all ranks, though ``store`` may be old.

    Raises:
        UserError: if after ten minutes not all of them are there.
    """
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
