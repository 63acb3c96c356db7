"""Global batches: samples, dealing them to ranks and micro-batches, and a micro-batch as tensors."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from blindspot.model.encoding import IGNORE
from blindspot.training.data.batching import balanced_packs

Picture = dict[str, Tensor]
"""What an image processor makes of one picture, without the dimension of the batch."""


@dataclass(frozen=True)
class Sample:
    """A conversation to train on.

    Attributes:
        id: how its data set calls it.
        ids: token ids, with a placeholder for every token of every picture.
        labels: the id where it is supervised, else `IGNORE`; not shifted.
        pictures: its pictures in reading order, in whatever form `Samples.pixels` takes.
    """

    id: str
    ids: Sequence[int]
    labels: Sequence[int]
    pictures: tuple[Any, ...] = ()


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
class Skipped:
    """A row that was not trained on."""

    row: int
    why: str
    id: str | None = None


@dataclass(frozen=True)
class Micro:
    """What goes through the model at once: documents side by side in one row, or one in each row, padded.

    Attributes:
        ids_bl: token ids.
        positions_bl: positions, from 0 in every document.
        document_bl: for each token the number of its document, -1 for padding.
        predictor_n: for each supervised token where the token before it is, counted through the flattened batch.
        label_n: its id. The first token of a document is never supervised.
        owner_n: the number of its document.
        lengths: of the documents.
        packed: whether they stand in one row.
        pixels: of all pictures in reading order, as the model takes them.
        names: of the documents; "" for one that is not the data set's.
        blank: whether its only picture is a filler's.
    """

    ids_bl: Tensor
    positions_bl: Tensor
    document_bl: Tensor
    predictor_n: Tensor
    label_n: Tensor
    owner_n: Tensor
    lengths: tuple[int, ...]
    packed: bool
    pixels: dict[str, Tensor]
    names: tuple[str, ...]
    blank: bool = False

    @property
    def supervised(self) -> int:
        """Tokens that are trained on."""
        return len(self.label_n)

    @property
    def tokens(self) -> int:
        """Tokens of the data set's documents."""
        return sum(length for length, name in zip(self.lengths, self.names, strict=True) if name)

    def to(self, device: torch.device) -> "Micro":
        """A copy on ``device``."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Micro":
        """A copy in memory that a GPU reads while it computes; torch's loader calls this."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Any) -> "Micro":
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, pixels={name: change(tensor) for name, tensor in self.pixels.items()})


@dataclass(frozen=True)
class Batch:
    """One rank's part of a global batch.

    Attributes:
        micros: its micro-batches; every rank has as many.
        dropped: rows of the global batch that hold nothing to train on; the same on every rank.
        unread: of this rank's rows those with a picture that cannot be read; their labels are ignored.
    """

    micros: list[Micro]
    dropped: list[Skipped] = field(default_factory=list)
    unread: list[Skipped] = field(default_factory=list)

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


def collate(
    samples: Sequence[tuple[str, Sample]],
    pictures: Sequence[Picture],
    packed: bool,
    multiple: int = 1,
    filler: Sample | None = None,
) -> Micro:
    """Samples as tensors.

    Args:
        samples: with the name of each.
        pictures: of all of them, in reading order; those of ``filler`` last.
        packed: side by side in one row, or one in each row.
        multiple: the row is filled up to a multiple of this with a document that means nothing.
        filler: goes behind them.
    """
    samples = samples if filler is None else [*samples, ("", filler)]
    ids = [torch.tensor(sample.ids) for _, sample in samples]
    labels = [torch.tensor([IGNORE, *sample.labels[1:]]) for _, sample in samples]
    names = [name for name, _ in samples]
    short = -sum(map(len, ids)) % multiple if packed else 0
    if short:
        ids.append(torch.zeros(short, dtype=torch.long))
        labels.append(torch.full((short,), IGNORE))
        names.append("")
    lengths = tuple(map(len, ids))
    positions = [torch.arange(length) for length in lengths]
    documents = [torch.full((length,), number) for number, length in enumerate(lengths)]

    def join(parts: list[Tensor], padding: int) -> Tensor:
        return torch.cat(parts)[None] if packed else pad_sequence(parts, batch_first=True, padding_value=padding)

    labels_t, document_bl = join(labels, IGNORE).flatten(), join(documents, -1)
    supervised_n = (labels_t != IGNORE).nonzero()[:, 0]  # found here, where no GPU has to be waited for
    return Micro(
        ids_bl=join(ids, 0),
        positions_bl=join(positions, 0),
        document_bl=document_bl,
        predictor_n=supervised_n - 1,
        label_n=labels_t[supervised_n],
        owner_n=document_bl.flatten()[supervised_n],
        lengths=lengths,
        packed=packed,
        pixels=stack(pictures),
        names=tuple(names),
        blank=filler is not None,
    )


def stack(pictures: Sequence[Picture]) -> dict[str, Tensor]:
    """Pictures as one batch; rows of patches are padded to the most."""
    stacked: dict[str, Tensor] = {}
    for name in ("pixel_values", "spatial_shapes"):
        tensors = [picture[name] for picture in pictures if name in picture]
        if tensors:
            stacked[name] = pad_sequence(tensors, batch_first=True) if tensors[0].ndim == 2 else torch.stack(tensors)
    return stacked
