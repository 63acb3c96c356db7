"""Checkpoints of a run: written beside the run on GPUS, whole or absent, loadable on another number of ranks.

A checkpoint holds tensors: the weights, the optimisers' state and the losses that the log has not seen. The order of
the data and the seeds are functions of the step, so there is nothing else to keep.
"""

import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save

from blindspot.errors import UserError
from blindspot.files import intact, parse_json, seal, write_json
from blindspot.training.parallel import Ranks

warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a process without a group saves alone, as told


def begin_run(out: Path, values: Mapping[str, Any], ranks: Ranks) -> None:
    """Begin a run in ``out``, or see that the one there has the same ``values``; an error is every rank's."""
    ranks.first_does(lambda: refuse_another(out, values) or write_json(out / "run.json", dict(values)))


def refuse_another(out: Path, values: Mapping[str, Any]) -> bool:
    """Whether there is a run in ``out``; an error if it has others of these values: its recipe, what it starts from."""
    path = out / "run.json"
    if not path.exists():
        return False
    try:
        then = dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged; choose another --out") from error
    changed = [
        f"{name} was {then.get(name)} and is {value}" for name, value in values.items() if then.get(name) != value
    ]
    if changed:
        raise UserError(f"the run in {out} is another ({'; '.join(changed)}); choose another --out")
    return True


class Checkpoints:
    """The checkpoints in a folder, ``step-<number>`` each. All ranks call every method at the same steps.

    A checkpoint is written to ``partial-<number>`` and renamed when every rank has written its part; so what a kill
    leaves is not taken for a checkpoint. Every file of it is sealed; ``keep`` of them stay. ``beside`` training they
    are written from a copy of the state in the CPU's memory.
    """

    def __init__(self, folder: Path, keep: int, ranks: Ranks, beside: bool) -> None:
        self._folder, self._keep, self._ranks = folder, keep, ranks
        self._group: Any = dist.new_group(backend="gloo") if beside else None
        self._running: tuple[int, Callable[[], Any]] | None = None
        if ranks.first:
            for left in folder.glob("partial-*"):
                shutil.rmtree(left)

    def newest(self) -> int | None:
        """The step of the newest checkpoint, or None. One that is damaged is named, and removed."""
        for step in self._ranks.from_first(self._steps()[::-1]):
            path = self._folder / f"step-{step}"
            mine = sorted(path.iterdir())[self._ranks.rank :: self._ranks.world]
            found = self._ranks.gather([file for file in mine if not intact(file)])
            damaged = [file for files in found for file in files]
            if not damaged:
                return step
            if self._ranks.first:
                print(f"{damaged[0]} is damaged; what followed the checkpoint before is redone", file=sys.stderr)
                shutil.rmtree(path)
        return None

    def load(self, step: int, state: dict[str, Any]) -> None:
        """Read the checkpoint of ``step`` into the tensors of ``state``."""
        path = self._folder / f"step-{step}"
        with _one_line(f"{path} cannot be continued (REASON); delete it to continue from the one before"):
            load(state, checkpoint_id=path, no_dist=not dist.is_initialized())

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after ``step`` steps, whole only after `finish` where it is written beside training."""
        self.finish()
        writer: Any = _Sealed(self._folder / f"partial-{step}", sync_files=False)  # which sealing does
        if self._group is not None:
            future: Any = async_save(state, storage_writer=writer, process_group=self._group)
            self._running = step, future.result
        else:
            self._running = step, partial(save, state, storage_writer=writer, no_dist=not dist.is_initialized())
            self.finish()

    def finish(self) -> None:
        """Wait until what `save` began is written, and let it be the newest."""
        if self._running is None:
            return
        (step, write), self._running = self._running, None
        written, whole = self._folder / f"partial-{step}", self._folder / f"step-{step}"
        with _one_line(f"cannot write {written}: REASON; free the disk or choose another --out"):
            write()
        if self._ranks.first:  # which comes back from saving when every rank has written
            if whole.exists():
                shutil.rmtree(whole)
            written.rename(whole)
            for old in self._steps()[: -self._keep]:
                shutil.rmtree(self._folder / f"step-{old}")

    def _steps(self) -> list[int]:
        """Steps of the checkpoints that are whole, ascending: their metadata are written last."""
        return sorted(int(path.parent.name.removeprefix("step-")) for path in self._folder.glob("step-*/.metadata"))


class _Sealed(FileSystemWriter):
    """Seals each file where and when it is written: on its rank, beside training where that goes on."""

    def write_data(self, plan: Any, planner: Any) -> Any:
        written = super().write_data(plan, planner)
        for name in {result.storage_data.relative_path for result in written.value()}:
            seal(Path(self.path) / name)
        return written

    def finish(self, metadata: Any, results: Any) -> None:
        super().finish(metadata, results)
        seal(Path(self.path) / ".metadata")


@contextmanager
def _one_line(message: str) -> Iterator[None]:
    """Errors of the block as one of the user's; what damaged files make torch raise has no common base."""
    try:
        yield
    except (Exception, CheckpointException) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(message.replace("REASON", reason)) from error
