"""Checkpoints of a run: written beside the run on GPUs, whole or absent, loadable on another number of ranks.

A checkpoint holds tensors: the weights, the optimisers' state and the losses that the log has not seen. The order of
the data and the seeds are functions of the step, so there is nothing else to keep.
"""

import shutil
import sys
import warnings
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future as Written

from blindspot.errors import UserError
from blindspot.files import intact, parse_json, seal, write_json
from blindspot.training.parallel import Ranks

warnings.filterwarnings("ignore", "torch.distributed is disabled")  # a process without a group saves alone, as told
RUN = "run.json"
_WHOLE, _PARTIAL = "step-", "partial-"


def begin_run(out: Path, values: Mapping[str, Any], ranks: Ranks) -> None:
    """Begin a run in ``out``, or see that the one there is the same; an error is every rank's.

    Args:
        out: folder of the run.
        values: plain values that tell it from other runs: its recipe, and what it starts from.
        ranks: the processes.
    """

    def first() -> None:
        if not refuse_another(out, values):
            write_json(out / RUN, dict(values))

    ranks.first_does(first)


def refuse_another(out: Path, values: Mapping[str, Any]) -> bool:
    """Whether there is a run in ``out``; what is not among ``values`` does not matter.

    Raises:
        UserError: if there is one with other values, or its file is damaged.
    """
    path = out / RUN
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
    leaves is not taken for a checkpoint. Every file of it is sealed.

    Args:
        folder: on a disk that all ranks see.
        keep: how many stay.
        ranks: the processes.
        beside: write while training goes on, from a copy of the state in the CPU's memory.
    """

    def __init__(self, folder: Path, keep: int, ranks: Ranks, beside: bool) -> None:
        self._folder, self._keep, self._ranks = folder, keep, ranks
        self._group: Any = dist.new_group(backend="gloo") if beside else None
        self._running: tuple[int, Future[Any]] | None = None
        if ranks.first:
            for left in folder.glob(f"{_PARTIAL}*"):
                shutil.rmtree(left)

    def newest(self) -> int | None:
        """The step of the newest checkpoint, or None. One that is damaged is named, and removed."""
        for step in self._ranks.from_first(sorted(self._steps(), reverse=True)):
            path = self._folder / f"{_WHOLE}{step}"
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
        path = self._folder / f"{_WHOLE}{step}"
        try:
            load(state, checkpoint_id=path, no_dist=not dist.is_initialized())
        except (Exception, CheckpointException) as error:  # what damaged files make it raise has no common base
            raise UserError(
                f"{path} cannot be continued ({_reason(error)}); delete it to continue from the one before"
            ) from error

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state after ``step`` steps, whole only after `finish` where it is written beside training."""
        self.finish()
        writer: Any = _Sealed(self._folder / f"{_PARTIAL}{step}", sync_files=False)  # which sealing does
        if self._group is not None:
            future: Any = async_save(state, storage_writer=writer, process_group=self._group)
            self._running = step, future
            return
        try:
            save(state, storage_writer=writer, no_dist=not dist.is_initialized())
        except (Exception, CheckpointException) as error:
            raise _unwritable(writer.path, error) from error
        self._publish(step)

    def finish(self) -> None:
        """Wait until what `save` began is written."""
        if self._running is None:
            return
        (step, future), self._running = self._running, None
        try:
            future.result()
        except (Exception, CheckpointException) as error:
            raise _unwritable(self._folder / f"{_PARTIAL}{step}", error) from error
        self._publish(step)

    def _publish(self, step: int) -> None:
        """Rename, once all parts are there: the first rank comes back from saving when every rank has written."""
        if not self._ranks.first:
            return
        whole = self._folder / f"{_WHOLE}{step}"
        if whole.exists():
            shutil.rmtree(whole)
        (self._folder / f"{_PARTIAL}{step}").rename(whole)
        for old in sorted(self._steps())[: -self._keep]:
            shutil.rmtree(self._folder / f"{_WHOLE}{old}")

    def _steps(self) -> list[int]:
        """Steps of the checkpoints that are whole: their metadata are written last."""
        return [int(path.parent.name.removeprefix(_WHOLE)) for path in self._folder.glob(f"{_WHOLE}*/.metadata")]


class _Sealed(FileSystemWriter):
    """Seals each file where and when it is written: on its rank, beside training where that goes on."""

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Written[list[WriteResult]]:
        written = super().write_data(plan, planner)
        for name in {result.storage_data.relative_path for result in written.value()}:
            seal(Path(self.path) / name)
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        seal(Path(self.path) / ".metadata")


def _unwritable(path: Path, error: BaseException) -> UserError:
    return UserError(f"cannot write {path}: {_reason(error)}; free the disk or choose another --out")


def _reason(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[-1]
