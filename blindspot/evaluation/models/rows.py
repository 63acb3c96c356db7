"""Questions as ids and tensors; the pictures of several questions are opened and resized once."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from itertools import pairwise
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from blindspot.errors import UserError
from blindspot.evaluation.adapters import Adapter
from blindspot.evaluation.base import Asked, Reply
from blindspot.model import images
from blindspot.model.encoding import ends_apart


def groups(asked: Sequence[Asked], share: bool = True) -> list[list[Asked]]:
    """The questions, those about the same pictures together, in the order in which pictures first appear.

    Args:
        asked: the questions.
        share: False: every question by itself.
    """
    found: dict[tuple[str, ...] | str, list[Asked]] = {}
    for one in asked:
        key = one.picture_keys if share and one.pictures and one.picture_keys else one.id
        found.setdefault(key, []).append(one)
    return list(found.values())


def batches(asked: Sequence[Asked], size: int, share: bool = True) -> list[list[Asked]]:
    """The questions in batches of whole groups, the longest first, so that what does not fit in memory shows early.

    A batch has at most ``size`` questions, or is one group that has more.

    Args:
        asked: the questions.
        size: of a batch.
        share: see `groups`.
    """
    made: list[list[Asked]] = []
    for group in sorted(groups(asked, share), key=_length, reverse=True):
        if made and len(made[-1]) + len(group) <= size:
            made[-1] += group
        else:
            made.append([*group])
    return made


def pieces(count: int, most: int) -> list[slice]:
    """``count`` things in as few pieces of at most ``most`` as it takes, of sizes that differ by one at most."""
    number = -(-count // most)
    edges = [count * piece // number for piece in range(number + 1)] if number else [0]
    return [slice(start, end) for start, end in pairwise(edges)]


def _length(group: Sequence[Asked]) -> tuple[int, int]:
    """Pictures, then characters of the longest prompt."""
    return len(group[0].pictures), max(len(str(one.prompt)) for one in group)


@dataclass(frozen=True, eq=False)
class Row:
    """A question as a model takes it.

    Attributes:
        asked: the question.
        ids: of the prompt.
        limit: most tokens of the answer.
        head: how many of them there are up to the last that a picture fills; 0 without a picture.
        types: what the processor says of every token (``token_type_ids``), by name, each of shape (1, length).
        media: the other inputs: pixels and what goes with them; one object for questions for which they are equal.
        options: ids of every answer whose likelihood is wanted.
    """

    asked: Asked
    ids: tuple[int, ...]
    limit: int
    head: int
    types: Mapping[str, Tensor] = field(default_factory=dict)
    media: Mapping[str, Tensor] = field(default_factory=dict)
    options: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


class OncePerPicture:
    """A processor that is asked about the same pictures several times, and resizes them once.

    Args:
        processor: to ask.
    """

    def __init__(self, processor: Any) -> None:
        self._resizing = _Remembered(processor.image_processor)
        self._processor = copy.copy(processor)
        self._processor.image_processor = self._resizing
        self._made: dict[tuple[str, ...], BatchFeature] = {}

    def __call__(self, *, text: Sequence[str], **kwargs: Any) -> BatchFeature:
        """What the processor makes of texts and the pictures; a copy that may be taken apart."""
        key = tuple(text)
        if key not in self._made:
            self._resizing.calls = 0
            self._made[key] = self._processor(text=list(text), **kwargs)
        return BatchFeature(dict(self._made[key]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)


class _Remembered:
    """An image processor that gives its n-th result again when it is called for the n-th time about a question."""

    def __init__(self, image_processor: Any) -> None:
        self._image_processor, self._made, self.calls = image_processor, [], 0

    def __call__(self, *args: Any, **kwargs: Any) -> BatchFeature:
        if self.calls == len(self._made):
            self._made.append(self._image_processor(*args, **kwargs))
        self.calls += 1
        return BatchFeature(dict(self._made[self.calls - 1]))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._image_processor, name)


class RowMaker:
    """Makes rows of questions.

    Args:
        model: whose config names the placeholder of pictures.
        processor: of the model.
        adapter: how the model is asked.
    """

    def __init__(self, model: Any, processor: Any, adapter: Adapter) -> None:
        self._processor, self._adapter = processor, adapter
        self._tokenizer = processor.tokenizer
        text_config = model.config.get_text_config()
        self._longest = getattr(text_config, "max_position_embeddings", None) or 2**30
        named = [getattr(model.config, name, None) for name in ("image_token_id", "image_token_index")]
        self._placeholders = {*named, *getattr(processor, "image_token_ids", ())} - {None}
        self._option_ids = lru_cache(maxsize=4096)(self._tokenise_option)

    def rows(self, group: Sequence[Asked]) -> tuple[list[Row], list[Reply]]:
        """Rows of questions about the same pictures, and replies to those that cannot be asked."""
        rows: list[Row] = []
        failed: list[Reply] = []
        processor = OncePerPicture(self._processor)
        try:
            pictures = [open_picture(data) for data in group[0].pictures]
            for picture in pictures:
                images.refuse_elongated(picture)
        except UserError as error:
            return [], [Reply(one.id, "", error=str(error)) for one in group]
        for one in group:
            try:
                rows.append(self._row(one, processor, pictures, rows[0].media if rows else None))
            except Exception as error:  # what processors raise, of marks and pictures that differ in number say
                failed.append(Reply(one.id, "", error=_line(error)))
        return rows, failed

    def _row(
        self, asked: Asked, processor: Any, pictures: Sequence[Image.Image], media: Mapping[str, Tensor] | None
    ) -> Row:
        if asked.options and self._adapter.generate is not None:
            raise UserError("a model with code of its own to generate gives no likelihoods")
        text = self._adapter.render(processor, asked.prompt)
        inputs = dict(self._adapter.inputs(processor, [text], [pictures]))
        ids = tuple(inputs.pop("input_ids")[0].tolist())
        if not inputs.pop("attention_mask", torch.ones(1)).all():
            raise UserError("the processor pads a prompt that stands alone")
        types = {name: inputs.pop(name) for name in list(inputs) if name.endswith("token_type_ids")}
        own = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        media = media if media is not None and _equal(media, own) else own
        options = {label: self._option_ids(text.split(" ")[-1], option) for label, option in asked.options.items()}
        needed = len(ids) + max([1, *map(len, options.values())])
        if needed > self._longest:
            raise UserError(f"the prompt takes {len(ids)} tokens, and the model reads at most {self._longest}")
        limit = min(asked.prompt.longest, self._longest - len(ids))
        return Row(asked, ids, limit, self._head(ids, types) if pictures else 0, types, media, options)

    def _head(self, ids: Sequence[int], types: Mapping[str, Tensor]) -> int:
        filled = torch.tensor([token in self._placeholders for token in ids])
        for values_1l in types.values():
            filled |= values_1l[0].bool()
        return int(filled.nonzero().max()) + 1 if filled.any() else 0

    def _tokenise_option(self, last_word: str, option: str) -> tuple[int, ...]:
        """Ids of an answer behind a prompt that ends in this word; a blank is between them if it is one."""
        blank = ends_apart(self._tokenizer, last_word)
        before, said = ("\n", option) if blank else (last_word, f" {option}")
        context, whole = (
            self._tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, before + said)
        )
        if whole[: len(context)] != context or len(whole) == len(context):
            raise UserError(f"the tokenizer has no separate tokens for the answer {option!r}")
        return tuple(whole[len(context) :])


def _equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def _line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0] if isinstance(error, UserError) and lines else f"{type(error).__name__}: {' '.join(lines)}"


def open_picture(data: bytes) -> Image.Image:
    """The bytes of an image file as RGB, as `blindspot.model.images.open_image` opens a file.

    Raises:
        UserError: if they are no image that can be read.
    """
    return images.decode(BytesIO(data), "the picture")
