"""Samples as tensors: documents side by side or one in each row, and turns about one image that do not see each other.

A miniature's row is a document with turns: a prefix (the image's placeholder tokens, or a scene in words) and then
turns. A turn attends to the prefix and to its own earlier tokens, and its positions continue from the prefix: every
turn gets exactly the logits that it would get in a sequence of its own, but the prefix is computed once. LLaVA's
conversations are documents that are all prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from blindspot.model.encoding import IGNORE

PREFIX = -1
Picture = dict[str, Tensor]
"""What an image processor makes of one picture, without the dimension of the batch."""
_PER_TOKEN = ("tokens", "turns", "positions", "supervised")


@dataclass(frozen=True)
class Rows:
    """Token rows of different lengths, flat."""

    tokens: np.ndarray  # ids of all rows, one after the other
    turns: np.ndarray  # for each token its turn in the row, or `PREFIX`
    positions: np.ndarray  # for each token its rotary position
    supervised: np.ndarray  # for each token whether it is an answer that is trained on
    starts: np.ndarray  # where each row begins; one more entry than there are rows

    def __len__(self) -> int:
        return len(self.starts) - 1

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file."""
        with path.open("wb") as handle:
            np.savez(handle, **vars(self))

    @classmethod
    def load(cls, path: Path) -> "Rows":
        """Read what `save` wrote."""
        with np.load(path) as arrays:
            return cls(**arrays)


@dataclass(frozen=True)
class TrainingSample:
    """A conversation to train on."""

    id: str  # how its data set calls it
    ids: Sequence[int]  # of tokens, with a placeholder for every token of every picture
    labels: Sequence[int]  # the id where it is supervised, else `IGNORE`; not shifted
    pictures: tuple[Any, ...] = ()  # in reading order, in whatever form `Samples.pixels` takes


@dataclass(frozen=True)
class Micro:
    """What goes through the model at once: documents side by side in one row, or one in each row, padded.

    The first token of a document is never supervised.
    """

    ids_bl: Tensor
    positions_bl: Tensor  # from 0 in every document
    document_bl: Tensor  # the number of each token's document, -1 for padding
    turn_bl: Tensor | None  # each token's turn in the document, or `PREFIX`; None: no document has turns
    predictor_n: Tensor  # of each supervised token the place of the token before it in the flattened batch
    label_n: Tensor  # its id
    owner_n: Tensor  # the number of its document
    lengths: tuple[int, ...]  # of the documents
    pixels: dict[str, Tensor]  # of all pictures in reading order, as the model takes them
    names: tuple[str, ...]  # of the documents; "" for one that is not the data set's
    blank: bool = False  # whether its only picture is a filler's

    @classmethod
    def of(cls, supervised_bl: Tensor, ids_bl: Tensor, document_bl: Tensor, **others: Any) -> "Micro":
        """With the supervised tokens, found here, where no GPU has to be waited for."""
        at_n = supervised_bl.flatten().nonzero()[:, 0]
        label_n, owner_n = ids_bl.flatten()[at_n], document_bl.flatten()[at_n]
        found = {"predictor_n": at_n - 1, "label_n": label_n, "owner_n": owner_n}
        return cls(ids_bl=ids_bl, document_bl=document_bl, **found, **others)

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
        return self.each(lambda tensor: tensor.to(device, non_blocking=True))

    def each(self, change: Callable[[Tensor], Tensor]) -> "Micro":
        """A copy with every tensor changed."""
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, pixels={name: change(tensor) for name, tensor in self.pixels.items()})


def lay_out(prefix: Sequence[int], turns: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[np.ndarray]:
    """One row: its tokens, turns, positions and supervised flags, in the order of `Rows`.

    Args:
        prefix: ids of the prefix.
        turns: for each turn the ids of its prompt and of its answer. The answer is supervised, and must follow on
            something of its own: a prompt, or right behind the prefix.
    """
    if any(not prompt and (number or not prefix) for number, (prompt, _) in enumerate(turns)):
        raise ValueError("a turn without a prompt must be the first, behind a prefix: nothing else predicts its answer")
    tokens, numbers, positions = list(prefix), [PREFIX] * len(prefix), list(range(len(prefix)))
    supervised = [False] * len(prefix)
    for number, (prompt, answer) in enumerate(turns):
        length = len(prompt) + len(answer)
        tokens += [*prompt, *answer]
        numbers += [number] * length
        positions += range(len(prefix), len(prefix) + length)
        supervised += [False] * len(prompt) + [True] * len(answer)
    return [np.array(tokens), np.array(numbers), np.array(positions), np.array(supervised)]


def join(rows: Sequence[list[np.ndarray]]) -> Rows:
    """Rows laid out by `lay_out`, flat."""
    tokens, turns, positions, supervised = (
        np.concatenate([row[part] for row in rows]).astype(kind)
        for part, kind in enumerate((np.int32, np.int16, np.int16, np.bool_))
    )
    starts = np.concatenate([[0], np.cumsum([len(row[0]) for row in rows])])
    return Rows(tokens, turns, positions, supervised, starts)


def join_rows(parts: Sequence[Rows]) -> Rows:
    """Several collections of rows as one."""
    ends = np.cumsum([0] + [len(part.tokens) for part in parts])
    starts = [part.starts[:-1] + end for part, end in zip(parts, ends, strict=False)]
    fields = (np.concatenate([getattr(part, name) for part in parts]) for name in _PER_TOKEN)
    return Rows(*fields, starts=np.concatenate([*starts, ends[-1:]]))


def with_image_tokens(rows: Rows, image: int, stored: int, wanted: int) -> Rows:
    """The same rows for a model whose images take ``wanted`` tokens ``image``, not ``stored``; turns move along."""
    if stored == wanted:
        return rows
    placeholder_t = rows.tokens == image
    first_t = placeholder_t & ((np.cumsum(placeholder_t) - 1) % stored == 0)
    copies_t = np.where(placeholder_t, np.where(first_t, wanted, 0), 1)
    ends = np.concatenate([[0], np.cumsum(copies_t)])
    starts = ends[rows.starts]
    images = np.diff(np.concatenate([[0], np.cumsum(first_t)])[rows.starts])
    row_u = np.repeat(np.arange(len(rows)), np.diff(starts))
    tokens, turns, positions, supervised = (np.repeat(getattr(rows, name), copies_t) for name in _PER_TOKEN)
    moved_u = positions + (images * (wanted - stored))[row_u]
    place_u = np.arange(len(tokens)) - starts[row_u]
    positions = np.where(turns == PREFIX, place_u, moved_u).astype(positions.dtype)
    return Rows(tokens, turns, positions, supervised, starts)


def pack(rows: Rows, chosen: np.ndarray, pad: int, pixels: dict[str, Tensor] | None = None) -> Micro:
    """The ``chosen`` rows with the ``pixels`` of their images, padded on the right to the longest with ``pad``.

    Padding sees the prefix, so that no query is without a key; nothing sees padding.
    """
    starts, lengths = rows.starts[chosen], rows.starts[chosen + 1] - rows.starts[chosen]
    columns = np.arange(lengths.max())
    real_bl = columns < lengths[:, None]
    index_bl = np.where(real_bl, starts[:, None] + columns, 0)
    turns_bl = np.where(real_bl, rows.turns[index_bl], np.iinfo(np.int16).max)
    ids_bl = torch.from_numpy(np.where(real_bl, rows.tokens[index_bl], pad)).long()
    return Micro.of(
        torch.from_numpy(real_bl & rows.supervised[index_bl]),
        ids_bl,
        torch.arange(len(chosen))[:, None].expand_as(ids_bl),
        positions_bl=torch.from_numpy(np.where(real_bl, rows.positions[index_bl], 0)).long(),
        turn_bl=torch.from_numpy(turns_bl),
        lengths=tuple(lengths.tolist()),
        pixels=pixels or {},
        names=tuple(f"row {row}" for row in chosen),
    )


def collate(
    samples: Sequence[tuple[str, TrainingSample]],
    pictures: Sequence[Picture],
    packed: bool,
    multiple: int = 1,
    filler: TrainingSample | None = None,
) -> Micro:
    """Samples, each with its name, as tensors: ``packed`` side by side in one row, or one in each row.

    ``filler`` goes behind them, and a packed row is filled up to a ``multiple`` with a document that means nothing.
    ``pictures`` are those of all, in reading order; rows of patches are padded to the most.
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

    def join(parts: list[Tensor], padding: int) -> Tensor:
        return torch.cat(parts)[None] if packed else pad_sequence(parts, batch_first=True, padding_value=padding)

    pixels: dict[str, Tensor] = {}
    for name in ("pixel_values", "spatial_shapes"):
        tensors = [picture[name] for picture in pictures if name in picture]
        if tensors:
            pixels[name] = pad_sequence(tensors, batch_first=True) if tensors[0].ndim == 2 else torch.stack(tensors)
    return Micro.of(
        join(labels, IGNORE) != IGNORE,
        join(ids, 0),
        join([torch.full((length,), number) for number, length in enumerate(lengths)], -1),
        positions_bl=join([torch.arange(length) for length in lengths], 0),
        turn_bl=None,
        lengths=lengths,
        pixels=pixels,
        names=tuple(names),
        blank=filler is not None,
    )
