"""Global batches ahead of the step: read, dealt to ranks and micro-batches, decoded and resized in worker processes."""

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from blindspot.errors import UserError
from blindspot.model.conversation import RowError
from blindspot.model.encoding import IGNORE
from blindspot.training.order import Order, balanced_packs
from blindspot.training.packing import Micro, Picture, TrainingSample, collate

IDLE = -1


class Samples(Protocol):
    """A data set. Reading a sample is cheap; its pictures are read only by the rank that trains on it.

    ``filler`` is a sample of one blank picture, nothing supervised, for micro-batches that have no picture. A sample
    with nothing to train on raises `RowError`, a picture that cannot be read `UserError`; ``blank`` pictures of as many
    tokens stand for it.
    """

    @property
    def filler(self) -> TrainingSample: ...
    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> TrainingSample: ...
    def pixels(self, sample: TrainingSample, blank: bool = False) -> list[Picture]: ...


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch; every rank has as many micro-batches.

    ``dropped``: rows of the global batch that hold nothing to train on, as the log names them; the same on every rank.
    ``unread``: likewise, of this rank's rows those with a picture that cannot be read; their labels are ignored.
    """

    micros: list[Micro]
    dropped: list[dict[str, Any]]
    unread: list[dict[str, Any]]

    def pin_memory(self) -> "Batch":
        """A copy in memory that a GPU reads while it computes; torch's loader calls this."""
        return replace(self, micros=[micro.each(Tensor.pin_memory) for micro in self.micros])


def deal(lengths: Sequence[int], pack_tokens: int, row_batch: int | None, world: int) -> list[list[int]]:
    """The micro-batches of a global batch, each a list of places in ``lengths``; of n ranks each takes every n-th.

    Packs of about equal length, or ``row_batch`` neighbours, dealt in turn as LLaVA's sampler expects.
    """
    if not lengths:
        return [[]] * world
    if row_batch is None:
        return balanced_packs(lengths, pack_tokens, world)
    places = list(range(len(lengths)))
    chunks = [places[start : start + row_batch] for start in range(0, len(places), row_batch)]
    return chunks + [[]] * (-len(chunks) % world)


@dataclass(eq=False)
class Batches(Dataset[Batch | UserError]):
    """The batches of one rank from a step on.

    Every rank reads the texts of the whole global batch, so all deal it alike, and drops the same rows. A picture is
    read by one rank alone. If that fails, the sample stays, with blank pictures and nothing supervised: the number of
    supervised tokens, by which the loss is divided, is counted over all ranks after decoding.
    """

    samples: Samples
    order: Order  # which of them each step sees
    steps: range
    pack_tokens: int  # most tokens of a pack; one without pictures grows by those of a blank one
    row_batch: int | None = None  # samples of a micro-batch, instead of packs of tokens
    packed: bool = True  # documents side by side, or one in each row
    multiple: int = 1  # packs are filled up to a multiple of this, which GPU kernels like
    rank: int = 0
    world: int = 1
    workers: int = 0  # processes that read for this rank

    def __post_init__(self) -> None:
        # What each worker is at, told through shared memory: its process, its step and its row.
        self.at_w3 = torch.full((max(self.workers, 1), 3), IDLE, dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, place: int) -> Batch | UserError:
        step, worker = self.steps[place], get_worker_info()
        at_3 = self.at_w3[worker.id if worker else 0]
        at_3[0], at_3[1] = os.getpid(), step
        rows, samples, dropped, unread = [], [], [], []
        try:
            for row in self.order(step).tolist():
                at_3[2] = row
                try:
                    sample = self.samples[row]
                    if self.packed and len(sample.ids) > self.pack_tokens:
                        raise RowError(f"its {len(sample.ids)} tokens are more than a pack holds")
                except RowError as error:
                    dropped.append({"row": row, "why": str(error)})
                    continue
                rows.append(row)
                samples.append(sample)
            dealt = deal([len(sample.ids) for sample in samples], self.pack_tokens, self.row_batch, self.world)
            mine = dealt[self.rank :: self.world]
            micros = [self._micro([(rows[one], samples[one]) for one in places], at_3, unread) for places in mine]
        except UserError as error:
            return error  # raised again where its line stays one; torch would put a traceback into it
        at_3[2] = IDLE
        return Batch(micros, dropped, unread)

    def _micro(self, chosen: list[tuple[int, TrainingSample]], at_3: Tensor, unread: list[dict[str, Any]]) -> Micro:
        named: list[tuple[str, TrainingSample]] = []
        pictures: list[Picture] = []
        for row, sample in chosen:
            at_3[2] = row
            try:
                pictures += self.samples.pixels(sample)
            except UserError as error:
                unread.append({"row": row, "why": str(error), "id": sample.id})
                pictures += self.samples.pixels(sample, blank=True)
                sample = TrainingSample(sample.id, sample.ids, [IGNORE] * len(sample.ids))
            named.append((f"{sample.id} (row {row})", sample))
        filler = None if pictures else self.samples.filler
        if filler is not None:
            pictures += self.samples.pixels(filler)
        return collate(named, pictures, self.packed, self.multiple, filler)


@contextmanager
def batches_ahead(batches: Batches, pin: bool) -> Iterator[Iterator[Batch]]:
    """The batches in order, made ahead by worker processes while the body of the ``with`` computes.

    If one of these dies, wherever the body is then, a `UserError` says which, and on which step and row it was.
    """
    ahead: dict[str, Any] = {"prefetch_factor": 2, "worker_init_fn": _start_worker} if batches.workers else {}
    loader = DataLoader(batches, batch_size=None, num_workers=batches.workers, pin_memory=pin, **ahead)

    def raised() -> Iterator[Batch]:
        for batch in loader:
            if isinstance(batch, UserError):
                raise batch
            yield batch

    try:
        yield raised()
    except RuntimeError as error:
        dead = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
        if dead is None:
            raise
        # torch's handler of a dead child raises in the middle of anything, and would again as the other workers end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        gone = {int(number) for number in dead[1].split(",")}
        lines = [line for line in batches.at_w3.tolist() if line[0] in gone]
        where = "; ".join(f"process {pid} at step {step + 1}, row {row}" for pid, step, row in lines if row != IDLE)
        reason = str(error).split(")", 1)[-1].strip(" .:").split(". ")[0]
        raise UserError(
            f"a worker that reads pictures died ({where or 'between two batches'}): {reason}; look at that row's "
            "picture, or at the memory: fewer --workers take less"
        ) from None


def _start_worker(number: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)
