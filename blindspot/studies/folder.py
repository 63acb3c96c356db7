"""The run folder: one process at a time, writable, with room for what will be written."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blindspot.errors import UserError
from blindspot.studies.spec import Study

LOCK = ".lock"
SECONDS_TO_WAIT = 1.5  # for the workers of a run that was just killed
BYTES_PER_PARAMETER = 8  # 32-bit weights, and as much again for logs and answers
MARGIN_BYTES = 50 * 2**20


@contextmanager
def locked(run: Path) -> Iterator[int]:
    """Hold the run folder; yields the lock's file descriptor. Creates the folder.

    Raises:
        UserError: if it cannot be written, or another process holds it.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise UserError(f"cannot write run folder {run}: {error.strerror}; choose another --out") from error
    try:
        _acquire(descriptor, run)
        yield descriptor
    finally:
        os.close(descriptor)


def refuse_other_study(run: Path, study: Study) -> None:
    """Keep a run folder to one study at one scale, because its results are replaced on every call.

    Raises:
        UserError: if the folder holds another one.
    """
    try:
        plan = json.loads((run / "plan.json").read_text(encoding="utf-8"))
        held = (plan["study"], plan["scale"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # no plan, or one that was cut short: it is written anew
    if held != (study.name, study.scale):
        raise UserError(f"{run} holds study {held[0]} at scale {held[1]}; choose another --out")


def check_space(run: Path, study: Study, steps_to_do: int) -> None:
    """Refuse to start on a disk that is clearly too small.

    Raises:
        UserError: with what is free and what is needed.
    """
    images = 3 * (study.data.train + study.data.test) * study.model.image**2
    layers = study.model.encoder_layers + study.model.language_layers
    parameters = layers * (4 * study.model.width**2 + 3 * study.model.width * study.model.mlp)
    needed = MARGIN_BYTES + 2 * images + steps_to_do * BYTES_PER_PARAMETER * parameters
    free = shutil.disk_usage(run).free
    if steps_to_do and free < needed:
        raise UserError(
            f"the disk of {run} has {free / 2**20:.0f} MB free and about {needed / 2**20:.0f} MB are needed; "
            "free some or choose another --out"
        )


def _acquire(descriptor: int, run: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
                raise UserError(
                    f"{run} is in use by another blindspot (process {holder}); wait for it or choose another --out"
                ) from error
            time.sleep(0.05)
        except OSError as error:
            raise UserError(f"cannot lock run folder {run}: {error.strerror}; choose another --out") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
