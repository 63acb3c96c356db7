"""Global batches ahead of the step: read, dealt to ranks and micro-batches, decoded and resized in worker processes."""

import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from blindspot.errors import UserError
from blindspot.model.conversation import RowError
from blindspot.model.encoding import IGNORE
from blindspot.training.order import Order, balanced_packs
from blindspot.training.packing import Micro, Picture, Sample, collate

IDLE = -1


class Samples(Protocol):
    """A data set. Reading a sample is cheap; its pictures are read only by the rank that trains on it."""

    @property
    def filler(self) -> Sample:
        """A sample of one blank picture, nothing supervised, for micro-batches that have no picture."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> Sample:
        """A sample; raises `RowError` where there is nothing to train on."""
        ...

    def pixels(self, sample: Sample, blank: bool = False) -> list[Picture]:
        """Its pictures, or ``blank`` ones of as many tokens; raises `UserError` where one cannot be read."""
        ...


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch.

    Attributes:
        micros: its micro-batches; every rank has as many.
        dropped: rows of the global batch that hold nothing to train on, as the log names them; the same on every rank.
        unread: likewise, of this rank's rows those with a picture that cannot be read; their labels are ignored.
    """

    micros: list[Micro]
    dropped: list[dict[str, Any]] = field(default_factory=list)
    unread: list[dict[str, Any]] = field(default_factory=list)

    def pin_memory(self) -> "Batch":
        """See `Micro.pin_memory`."""
        return replace(self, micros=[micro.pin_memory() for micro in self.micros])


def deal_packs(lengths: Sequence[int], capacity: int, rank: int, world: int) -> list[list[int]]:
    """The packs of one rank, each a list of places in ``lengths``; every rank gets as many, of about equal length."""
    packs = balanced_packs(lengths, capacity, world) if lengths else [[]] * world
    return packs[rank::world]


def deal_rows(count: int, row_batch: int, rank: int, world: int) -> list[list[int]]:
    """One rank's micro-batches of ``row_batch`` neighbours, dealt in turn as LLaVA's sampler expects."""
    chunks = [list(range(count))[start : start + row_batch] for start in range(0, count, row_batch)]
    chunks += [[] for _ in range(-len(chunks) % world or (0 if chunks else world))]
    return chunks[rank::world]


@dataclass(frozen=True)
class Layout:
    """How a global batch becomes micro-batches.

    Attributes:
        pack_tokens: most tokens of a pack; one without pictures grows by those of a blank one.
        row_batch: samples of a micro-batch, instead of packs of tokens.
        packed: documents side by side, or one in each row.
        multiple: packs are filled up to a multiple of this, which GPU kernels like.
    """

    pack_tokens: int
    row_batch: int | None = None
    packed: bool = True
    multiple: int = 1


class Batches(Dataset[Batch | UserError]):
    """The batches of one rank from a step on.

    Every rank reads the texts of the whole global batch, so all deal it alike, and drops the same rows. A picture is
    read by one rank alone. If that fails, the sample stays, with blank pictures and nothing supervised: the number of
    supervised tokens, by which the loss is divided, is counted over all ranks after decoding.

    Args:
        samples: the data set.
        order: which of them each step sees.
        layout: how a global batch becomes micro-batches.
        steps: from which step to before which.
        rank: this process.
        world: how many there are.
        workers: how many processes read.
    """

    def __init__(
        self, samples: Samples, order: Order, layout: Layout, steps: range, rank: int, world: int, workers: int
    ) -> None:
        self._samples, self._order, self._layout, self._steps = samples, order, layout, steps
        self._rank, self._world = rank, world
        # What each worker is at, told through shared memory: its process, its step and its row.
        self.at_w3 = torch.full((max(workers, 1), 3), IDLE, dtype=torch.long).share_memory_()

    def __len__(self) -> int:
        return len(self._steps)

    def __getitem__(self, place: int) -> Batch | UserError:
        try:
            return self._batch(self._steps[place])
        except UserError as error:
            return error  # raised again where its line stays one; torch would put a traceback into it

    def _batch(self, step: int) -> Batch:
        worker = get_worker_info()
        at_3 = self.at_w3[worker.id if worker else 0]
        at_3[0], at_3[1] = os.getpid(), step
        rows, samples, dropped = [], [], []
        for row in self._order(step).tolist():
            at_3[2] = row
            try:
                sample = self._samples[row]
                if self._layout.packed and len(sample.ids) > self._layout.pack_tokens:
                    raise RowError(f"its {len(sample.ids)} tokens are more than a pack holds")
            except RowError as error:
                dropped.append({"row": row, "why": str(error)})
                continue
            rows.append(row)
            samples.append(sample)
        layout, unread = self._layout, []
        if layout.row_batch is None:
            deal = deal_packs([len(sample.ids) for sample in samples], layout.pack_tokens, self._rank, self._world)
        else:
            deal = deal_rows(len(samples), layout.row_batch, self._rank, self._world)
        micros = [self._micro([(rows[place], samples[place]) for place in places], at_3, unread) for places in deal]
        at_3[2] = IDLE
        return Batch(micros, dropped, unread)

    def _micro(self, chosen: list[tuple[int, Sample]], at_3: Tensor, unread: list[dict[str, Any]]) -> Micro:
        named: list[tuple[str, Sample]] = []
        pictures: list[Picture] = []
        for row, sample in chosen:
            at_3[2] = row
            try:
                pictures += self._samples.pixels(sample)
            except UserError as error:
                unread.append({"row": row, "why": str(error), "id": sample.id})
                pictures += self._samples.pixels(sample, blank=True)
                sample = Sample(sample.id, sample.ids, [IGNORE] * len(sample.ids))
            named.append((f"{sample.id} (row {row})", sample))
        filler = None if pictures else self._samples.filler
        if filler is not None:
            pictures += self._samples.pixels(filler)
        return collate(named, pictures, self._layout.packed, self._layout.multiple, filler)


@contextmanager
def batches_ahead(batches: Batches, workers: int, pin: bool) -> Iterator[Iterator[Batch]]:
    """The batches in order, made ahead by worker processes while the body of the ``with`` computes.

    Raises:
        UserError: if a worker process dies, wherever the body is then: which, and on which step and row it was; or what
            a worker raised.
    """
    loader = DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=2 if workers else None,
        pin_memory=pin,
        worker_init_fn=_start_worker if workers else None,
    )
    try:
        yield map(_or_raise, loader)
    except RuntimeError as error:
        death = _death(error, batches)
        if death is None:
            raise
        # torch's handler of a dead child raises in the middle of anything, and would again as the other workers end.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        raise death from None


def _or_raise(batch: Batch | UserError) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    return batch


def _start_worker(number: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


def _death(error: RuntimeError, batches: Batches) -> UserError | None:
    """The error that names a dead worker, or None if it is another error."""
    found = re.search(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)", str(error))
    if found is None:
        return None
    gone = {int(number) for number in found[1].split(",")}
    lines = [line for line in batches.at_w3.tolist() if line[0] in gone]
    where = "; ".join(f"process {pid} at step {step + 1}, row {row}" for pid, step, row in lines if row != IDLE)
    reason = str(error).split(")", 1)[-1].strip(" .:").split(". ")[0]
    return UserError(
        f"a worker that reads pictures died ({where or 'between two batches'}): {reason}; look at that row's picture, "
        "or at the memory: fewer --workers take less"
    )
