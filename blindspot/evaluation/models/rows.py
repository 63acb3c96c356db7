"""Questions as ids and tensors; the pictures of several questions are opened and resized once."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from io import BytesIO
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from blindspot.benchmarks.scoring import TAGS
from blindspot.errors import UserError
from blindspot.evaluation.adapters import Adapter
from blindspot.evaluation.base import Asked, Reply
from blindspot.model import images
from blindspot.model.encoding import ends_apart


def groups(asked: Sequence[Asked], share: bool = True) -> list[list[Asked]]:
    """The questions, those about the same pictures together unless each is to be by itself, pictures in their order."""
    found: dict[tuple[str, ...] | str, list[Asked]] = {}
    for one in asked:
        key = one.picture_keys if share and one.pictures and one.picture_keys else one.id
        found.setdefault(key, []).append(one)
    return list(found.values())


def batches(asked: Sequence[Asked], size: int, share: bool = True) -> list[list[Asked]]:
    """The questions in batches of whole `groups`, the longest first, so that what does not fit in memory shows early.

    A batch has at most ``size`` questions, or is one group that has more.
    """
    made: list[list[Asked]] = []
    for group in sorted(
        groups(asked, share),
        key=lambda group: (len(group[0].pictures), max(len(str(one.prompt)) for one in group)),
        reverse=True,
    ):
        if made and len(made[-1]) + len(group) <= size:
            made[-1] += group
        else:
            made.append([*group])
    return made


@dataclass(frozen=True, eq=False)
class PromptRow:
    """A question as a model takes it."""

    asked: Asked
    ids: tuple[int, ...]  # of the prompt
    limit: int  # most tokens of the answer
    head: int  # how many ids there are up to the last that a picture fills; 0 without a picture
    types: Mapping[str, Tensor] = field(default_factory=dict)
    """What the processor says of every token (``token_type_ids``), by name, each of shape (1, length)."""
    media: Mapping[str, Tensor] = field(default_factory=dict)
    """The other inputs: pixels and what goes with them; one object for questions for which they are equal."""
    options: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Ids of every answer whose likelihood is wanted."""
    thought: str = ""  # what of the prompt a thought begins with, if the answer goes on with one


class _Once:
    """A processor, or its image processor, that is asked about the same pictures several times and prepares them once.

    ``calls`` counts those of one question: the n-th gives again what the n-th gave, for the same texts if it has any.
    """

    def __init__(self, part: Any) -> None:
        self._part, self._made, self.calls = part, {}, 0

    def __call__(self, *args: Any, **kwargs: Any) -> BatchFeature:
        key = self.calls, tuple(kwargs.get("text") or ())
        self.calls += 1
        if key not in self._made:
            self._made[key] = self._part(*args, **kwargs)
        return BatchFeature(dict(self._made[key]))  # a copy, which may be taken apart

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)


class RowMaker:
    """Makes rows of questions for a model, which an adapter asks through a processor."""

    def __init__(self, model: Any, processor: Any, adapter: Adapter) -> None:
        self._processor, self._adapter = processor, adapter
        self._longest = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**30
        named = [getattr(model.config, name, None) for name in ("image_token_id", "image_token_index")]
        self._placeholders = {*named, *getattr(processor, "image_token_ids", ())} - {None}
        self._option_ids = lru_cache(maxsize=4096)(self._tokenise_option)

    def rows(self, group: Sequence[Asked]) -> tuple[list[PromptRow], list[Reply]]:
        """Rows of questions about the same pictures, and replies to those that cannot be asked."""
        try:
            pictures = [images.decode(BytesIO(data), "the picture") for data in group[0].pictures]
            for picture in pictures:
                images.refuse_elongated(picture)
        except UserError as error:
            return [], [Reply(one.id, "", error=str(error)) for one in group]
        processor = copy.copy(self._processor)
        processor.image_processor = resizing = _Once(processor.image_processor)
        processor = _Once(processor)
        rows: list[PromptRow] = []
        failed: list[Reply] = []
        for one in group:
            processor.calls = resizing.calls = 0
            try:
                rows.append(self._row(one, processor, pictures, rows[0].media if rows else {}))
            except UserError as error:
                failed.append(Reply(one.id, "", error=str(error)))
            except Exception as error:  # what processors raise, of marks and pictures that differ in number say
                said = " ".join(str(error).splitlines())
                failed.append(Reply(one.id, "", error=f"{type(error).__name__}: {said}"))
        return rows, failed

    def _row(
        self, asked: Asked, processor: Any, pictures: Sequence[Image.Image], media: Mapping[str, Tensor]
    ) -> PromptRow:
        if asked.options and self._adapter.generate is not None:
            raise UserError("a model with code of its own to generate gives no likelihoods")
        text = self._adapter.render(processor, asked.prompt)
        inputs = self._adapter.inputs(processor, [text], [pictures])
        ids = tuple(inputs.pop("input_ids")[0].tolist())
        if not inputs.pop("attention_mask", torch.ones(1)).all():
            raise UserError("the processor pads a prompt that stands alone")
        types = {name: inputs.pop(name) for name in list(inputs) if name.endswith("token_type_ids")}
        own = {name: value for name, value in inputs.items() if isinstance(value, Tensor)}
        if media.keys() != own.keys() or not all(torch.equal(media[name], own[name]) for name in own):
            media = own
        options = {label: self._option_ids(text.split(" ")[-1], option) for label, option in asked.options.items()}
        if len(ids) + max([1, *map(len, options.values())]) > self._longest:
            raise UserError(f"the prompt takes {len(ids)} tokens, and the model reads at most {self._longest}")
        filled_l = torch.tensor([token in self._placeholders for token in ids])
        for values_1l in types.values():
            filled_l |= values_1l[0].bool()
        head = int(filled_l.nonzero().max()) + 1 if pictures and filled_l.any() else 0
        limit = min(asked.prompt.longest, self._longest - len(ids))
        thought = next((tag for tag, _ in TAGS if text.rstrip().endswith(tag)), "")
        return PromptRow(asked, ids, limit, head, types, media, options, thought)

    def _tokenise_option(self, last_word: str, option: str) -> tuple[int, ...]:
        """Ids of an answer behind a prompt that ends in this word; a blank is between them if it is one."""
        tokenizer = self._processor.tokenizer
        before, said = ("\n", option) if ends_apart(tokenizer, last_word) else (last_word, f" {option}")
        context, whole = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, before + said))
        if whole[: len(context)] != context or len(whole) == len(context):
            raise UserError(f"the tokenizer has no separate tokens for the answer {option!r}")
        return tuple(whole[len(context) :])


def stacked(model: Any, rows: Sequence[PromptRow], pad: int = 0) -> dict[str, Tensor]:
    """The rows' prompts as one input, padded on the left."""
    longest = max(len(row.ids) for row in rows)
    missing = [longest - len(row.ids) for row in rows]
    inputs = {
        "input_ids": torch.tensor([[pad] * pads + [*row.ids] for pads, row in zip(missing, rows, strict=True)]),
        "attention_mask": torch.tensor([[0] * pads + [1] * (longest - pads) for pads in missing]),
    }
    for name in rows[0].types:
        types = [torch.nn.functional.pad(row.types[name], (pads, 0)) for pads, row in zip(missing, rows, strict=True)]
        inputs[name] = torch.cat(types)
    inputs |= {name: torch.cat([row.media[name] for row in rows]) for name in rows[0].media}
    return on_device(model, inputs)


def on_device(model: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Inputs where the model is; pictures in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
