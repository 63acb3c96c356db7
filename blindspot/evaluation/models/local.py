"""Answers of a model on this machine, in batches, with every picture computed once for all its questions."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from blindspot.evaluation.adapters import Adapter, adapter_of
from blindspot.evaluation.base import Asked, Reply
from blindspot.evaluation.models import decoding
from blindspot.evaluation.models.decoding import Said, settings_of
from blindspot.evaluation.models.prefix import begin, prefixes
from blindspot.evaluation.models.probe import objection
from blindspot.evaluation.models.rows import Row, RowMaker, batches, groups, pieces


class LocalAnswerer:
    """Greedy answers, and likelihoods, of any image-text model of transformers.

    A model whose prompts may be continued from a common beginning runs every picture once (`prefix`); that it may is
    first tried on a picture of noise (`probe`). Any other runs whole prompts through ``generate``, in batches.

    Args:
        model: on its device, unless ``device`` names another.
        processor: of the model.
        adapter: how it is asked; by default that of its config.
        batch: most questions at a time at first; halved whenever memory runs out.
        share: False: run every prompt whole, by ``generate``.
        device: to move the model to.

    Attributes:
        batch: most questions at a time, as memory has allowed so far.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        adapter: Adapter | None = None,
        batch: int = 32,
        share: bool = True,
        device: torch.device | str | None = None,
    ) -> None:
        self._model = model.eval() if device is None else model.eval().to(device)
        self._processor, self.batch, self._share = processor, batch, share
        self._adapter = adapter or adapter_of(model.config.model_type)
        self._settings = settings_of(model, processor, self._adapter)
        self._maker = RowMaker(model, processor, self._adapter)

    @property
    def identity(self) -> dict[str, Any]:
        """The model, its weights' hash, how it is asked and how it computes."""
        return self._identity

    @cached_property
    def _identity(self) -> dict[str, Any]:
        model = self._model
        return {
            "answerer": "local",
            "model": name_of(model),
            "model_type": model.config.model_type,
            "weights_sha256": weights_sha256(model),
            "family": self._adapter.name,
            "dtype": str(model.dtype).removeprefix("torch."),
            "device": model.device.type,
            "attention": model.config._attn_implementation,
            "generation": {**self._adapter.generation, "eos_token_id": sorted(self._settings.ends)},
            "image_bounds": dict(self._adapter.bounds),
            "pictures": "once for their questions" if self._shares else f"for every question: {self._objection}",
            "transformers": transformers.__version__,
        }

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """See `Answerer`. What a question itself is to blame for becomes its reply's ``error``."""
        waiting = batches(asked, self.batch, self._shares)[::-1]
        while waiting:
            part = {one.id: one for one in waiting.pop()}
            alone, full = len(part) == 1, False
            try:
                for reply in self._answer(list(part.values())):
                    del part[reply.id]
                    yield reply
            except torch.OutOfMemoryError:
                full = True
            if full:  # outside of the handler, which would keep what the batch had computed
                yield from self._give_way(list(part.values()), waiting, alone)

    def one_by_one(self) -> "LocalAnswerer":
        """The same model, asked one question at a time through ``generate``."""
        return LocalAnswerer(self._model, self._processor, self._adapter, batch=1, share=False)

    def _give_way(self, left: list[Asked], waiting: list[list[Asked]], alone: bool) -> Iterator[Reply]:
        """Put questions back, and make smaller batches of all that waits; or give up one that stood alone."""
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if alone:
            yield Reply(left[0].id, "", error="the question alone does not fit in the device's memory")
        elif min(self.batch, len(left)) == 1:
            waiting += [[one] for one in left]
        else:
            self.batch = min(self.batch, len(left)) // 2
            everything = [one for batch in (left, *waiting[::-1]) for one in batch]  # the others are too large too
            waiting[:] = batches(everything, self.batch, self._shares)[::-1]

    @cached_property
    def _objection(self) -> str | None:
        """Why prompts run whole, or None."""
        if not self._share:
            return "as asked for"
        return self._settings.obstacle or objection(self._model, self._maker, self._settings)

    @property
    def _shares(self) -> bool:
        return self._objection is None

    def _answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Replies to a batch of `batches`."""
        together: list[Row] = []
        alone: list[Row] = []
        for group in groups(asked, self._shares):
            rows, failed = self._maker.rows(group)
            yield from failed
            for row in rows:  # a prompt that ends in its picture leaves nothing to put behind it
                (together if self._shares and row.head < len(row.ids) else alone).append(row)
        yield from self._one_by_one(alone)
        for kind in product((True, False), repeat=2):
            yield from self._together([row for row in together if (bool(row.head), bool(row.options)) == kind])

    def _together(self, rows: Sequence[Row]) -> Iterator[Reply]:
        """Replies to rows on top of their common beginnings; all have pictures or none, all have options or none."""
        begun: dict[Any, list[Row]] = {}
        for row in rows:
            begun.setdefault((id(row.media), row.ids[: row.head]), []).append(row)
        computed = prefixes(self._model, list(begun.values()), self.batch)
        pairs = [(row, prefix) for few, prefix in zip(begun.values(), computed, strict=True) for row in few]
        pairs.sort(key=lambda pair: len(pair[0].ids) - pair[1].length)
        for piece in pieces(len(pairs), self.batch):
            some = [row for row, _ in pairs[piece]]
            state = begin(self._model, some, [prefix for _, prefix in pairs[piece]])
            if some[0].options:
                sums = decoding.likelihoods(self._model, state, [row.options for row in some])
                yield from (_likeliest(row, values) for row, values in zip(some, sums, strict=True))
            else:
                said = decoding.greedy(self._model, state, [row.limit for row in some], self._settings.ends)
                yield from (self._reply(some[one.row], one) for one in said)

    def _one_by_one(self, rows: Sequence[Row]) -> Iterator[Reply]:
        """Replies to rows whose prompts run whole."""
        for row in rows:
            if row.options:
                yield _likeliest(row, decoding.likelihood(self._model, row, self._settings))
        for some in decoding.alike([row for row in rows if not row.options], 1 if self._adapter.alone else self.batch):
            for said in decoding.generate(self._model, some, self._settings):
                yield self._reply(some[said.row], said)

    def _reply(self, row: Row, said: Said) -> Reply:
        text = self._processor.tokenizer.decode(said.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Reply(row.asked.id, text, said.stopped)


def check_batch(answerer: LocalAnswerer, asked: Sequence[Asked]) -> list[str]:
    """Questions that ``generate`` answers otherwise, one by one: one line each. Rounding alone can cause a few."""
    batched = {reply.id: reply for reply in answerer.answer(asked)}
    alone = {reply.id: reply for reply in answerer.one_by_one().answer(asked)}
    return [
        f"{one.id}: {_told(batched[one.id])} in batches, {_told(alone[one.id])} one by one"
        for one in asked
        if _told(batched[one.id]) != _told(alone[one.id])
    ]


def _told(reply: Reply) -> str:
    return f"error {reply.error!r}" if reply.error is not None else repr(reply.raw)


def _likeliest(row: Row, likelihood: dict[str, float]) -> Reply:
    """The likeliest of the answers, and how likely each is."""
    best = max(likelihood, key=likelihood.__getitem__)
    return Reply(row.asked.id, row.asked.options[best], likelihood=likelihood)


def name_of(model: Any) -> str:
    """The Hugging Face id or the folder's name."""
    folder = Path(model.config._name_or_path)
    repository = folder.parent.parent.name  # models--organisation--name/snapshots/revision
    if repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    return folder.name if folder.is_dir() else str(folder)


def weights_sha256(model: Any) -> str:
    """SHA-256 of the names, types, shapes and bytes of a model's tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
