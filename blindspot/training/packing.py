"""All questions about one image in one row, each seeing the image and itself only.

A row is a prefix (the image's placeholder tokens, or a scene in words) and then turns. A turn attends to the prefix and
to its own earlier tokens, and its positions continue from the prefix: every turn gets exactly the logits that it would
get in a sequence of its own, but the prefix is computed once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

PREFIX = -1
_PER_TOKEN = ("tokens", "turns", "positions", "supervised")


@dataclass(frozen=True)
class Rows:
    """Token rows of different lengths, flat.

    Attributes:
        tokens: ids of all rows, one after the other.
        turns: for each token its turn in the row, or `PREFIX`.
        positions: for each token its rotary position.
        supervised: for each token whether it is an answer that is trained on.
        starts: where each row begins; one more entry than there are rows.
    """

    tokens: np.ndarray
    turns: np.ndarray
    positions: np.ndarray
    supervised: np.ndarray
    starts: np.ndarray

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
class Packed:
    """A batch of rows, padded on the right to the longest.

    Attributes:
        tokens_bl: ids.
        positions_bl: rotary positions.
        mask_b1ll: added to attention scores: 0 where a query may look, else a large negative number.
        supervised_bl: tokens that are trained on.
    """

    tokens_bl: Tensor
    positions_bl: Tensor
    mask_b1ll: Tensor
    supervised_bl: Tensor


def lay_out(prefix: Sequence[int], turns: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[np.ndarray]:
    """One row: its tokens, turns, positions and supervised flags, in the order of `Rows`.

    Args:
        prefix: ids of the prefix.
        turns: for each turn the ids of its prompt and of its answer. The answer is supervised.

    Raises:
        ValueError: if an answer would follow on nothing of its own: no prompt, and not right behind the prefix.
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
    """The same rows for a model whose images take another number of tokens; turns move along behind the prefix.

    Args:
        rows: rows whose images are ``stored`` placeholders each.
        image: id of the placeholder.
        stored: placeholders an image has.
        wanted: placeholders an image gets.
    """
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


def pack(rows: Rows, chosen: np.ndarray, pad: int) -> Packed:
    """Collate the ``chosen`` rows. Padding sees the prefix, so that no query is without a key; nothing sees padding."""
    starts, lengths = rows.starts[chosen], rows.starts[chosen + 1] - rows.starts[chosen]
    columns = np.arange(lengths.max())
    real_bl = columns < lengths[:, None]
    index_bl = np.where(real_bl, starts[:, None] + columns, 0)
    turns_bl = torch.from_numpy(np.where(real_bl, rows.turns[index_bl], np.iinfo(np.int16).max))
    seen_bll = (turns_bl[:, None, :] == PREFIX) | (turns_bl[:, None, :] == turns_bl[:, :, None])
    mask_bll = torch.zeros(seen_bll.shape).masked_fill_(~seen_bll.tril_(), torch.finfo(torch.float32).min)
    return Packed(
        tokens_bl=torch.from_numpy(np.where(real_bl, rows.tokens[index_bl], pad)).long(),
        positions_bl=torch.from_numpy(np.where(real_bl, rows.positions[index_bl], 0)).long(),
        mask_b1ll=mask_bll[:, None],
        supervised_bl=torch.from_numpy(real_bl & rows.supervised[index_bl]),
    )


def answer_loss(model: Any, batch: Packed, pixels_bchw: Tensor | None = None) -> Tensor:
    """Mean cross-entropy over the supervised tokens of the batch, in nats.

    Logits are computed at supervised positions only.

    Args:
        model: a Llama or a Llava with a language-model head.
        batch: packed rows.
        pixels_bchw: one normalised image a row, or None for rows of text.
    """
    images = {} if pixels_bchw is None else {"pixel_values": pixels_bchw}
    hidden_bld = model.model(
        input_ids=batch.tokens_bl,
        position_ids=batch.positions_bl,
        attention_mask=batch.mask_b1ll,
        use_cache=False,
        **images,
    ).last_hidden_state
    predicts_bl = batch.supervised_bl.roll(-1, dims=1)
    logits_nv = model.lm_head(hidden_bld[predicts_bl]).float()
    return torch.nn.functional.cross_entropy(logits_nv, batch.tokens_bl[batch.supervised_bl])
