"""Answers of a model on this machine, in batches, with every picture computed once for all its questions."""

import copy
import hashlib
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from io import BytesIO
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from blindspot.benchmarks.scoring import TAGS, is_cut_off
from blindspot.errors import UserError
from blindspot.evaluation.adapters import Adapter, adapter_of
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply
from blindspot.evaluation.models import prefix
from blindspot.evaluation.models.rows import PromptRow, RowMaker, batches, groups, stacked

HARMLESS = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_length", "max_new_tokens", "use_cache"),
    *("min_p", "temperature", "top_k", "top_p", "typical_p", "cache_implementation", "transformers_version"),
}
"""Keys of a generation config that do not change which token is the likeliest."""
NEUTRAL = {"num_beams": 1, "repetition_penalty": 1.0, "_from_model_config": True}
STRETCHED = re.compile("'rope_type': '(dynamic|longrope)'")
"""Rotary positions that turn otherwise once a text is long; a beginning alone does not know how long it gets."""
MOST, MOST_ROUNDED = 1e-4, 0.05
"""Deviation of logits, as a share of their spread, that rounding may cause: in float32, and in fewer bits."""
TRIED = ("What is in the picture?", "How many of them are there, and where do you see them?")
TOKENS = 3
"""Said by every row when sharing is tried, so that going on is tried too."""


class LocalAnswerer:
    """Greedy answers, drawn ones, and likelihoods, of any image-text model of transformers.

    A model whose prompts may be continued from a common beginning runs every picture once (`prefix`); that it may is
    first tried on pictures of noise, since no config says so. Any other runs whole prompts through ``generate``.

    Args:
        model: on its device, unless ``device`` names another.
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
        self._adapter = adapter = adapter or adapter_of(model.config.model_type)
        self._lone = adapter.lone or adapter.generate is not None
        self._maker = RowMaker(model, processor, adapter)
        config = copy.deepcopy(getattr(model, "generation_config", None)) or GenerationConfig()
        config.update(**adapter.generation)
        tokenizer = processor.tokenizer
        ends = config.eos_token_id if config.eos_token_id is not None else tokenizer.eos_token_id
        ends = [ends] if isinstance(ends, int) else [*(ends or ())]
        self._pad = next((one for one in (config.pad_token_id, tokenizer.pad_token_id, *ends) if one is not None), 0)
        self._config, self._ends = config, frozenset(ends)
        self._arguments = {**adapter.generation, "pad_token_id": self._pad, "eos_token_id": ends or None}

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
            "generation": {**self._adapter.generation, "eos_token_id": sorted(self._ends)},
            "image_bounds": dict(self._adapter.bounds),
            "pictures": "once for their questions" if self._shares else f"for every question: {self._objection}",
            "transformers": transformers.__version__,
        }

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """See `Answerer`. What a question itself is to blame for becomes its reply's ``error``."""
        if self._adapter.generate is not None and any(one.draw for one in asked):
            raise UserError("this model has code of its own to generate, which draws nothing; leave out --temperature")
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
            if not full:  # the rest is outside of the handler, which would keep what the batch had computed
                continue
            torch.cuda.empty_cache()
            left = list(part.values())
            if alone:
                yield Reply(left[0].id, "", error="the question alone does not fit in the device's memory")
            elif min(self.batch, len(left)) == 1:
                waiting += [[one] for one in left]
            else:
                self.batch = min(self.batch, len(left)) // 2
                everything = [one for batch in (left, *waiting[::-1]) for one in batch]  # the others are too large too
                waiting = batches(everything, self.batch, self._shares)[::-1]

    def one_by_one(self) -> "LocalAnswerer":
        """The same model, asked one question at a time through ``generate``."""
        return LocalAnswerer(self._model, self._processor, self._adapter, batch=1, share=False)

    def _answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Replies to a batch of `batches`."""
        together: list[PromptRow] = []
        alone: list[PromptRow] = []
        for group in groups(asked, self._shares):
            rows, failed = self._maker.rows(group)
            yield from failed
            for row in rows:  # a prompt that ends in its picture leaves nothing to put behind it
                (together if self._shares and row.head < len(row.ids) else alone).append(row)
        yield from self._whole(alone)
        for kind in product((True, False), repeat=2):
            yield from self._together([row for row in together if (bool(row.head), bool(row.options)) == kind])

    def _together(self, rows: Sequence[PromptRow]) -> Iterator[Reply]:
        """Replies to rows on top of their common beginnings; all have pictures or none, all have options or none."""
        begun: dict[Any, list[PromptRow]] = {}
        for row in rows:
            begun.setdefault((id(row.media), row.ids[: row.head]), []).append(row)
        computed = prefix.prefixes(self._model, list(begun.values()), 1 if self._lone else self.batch)
        pairs = [(row, beginning) for few, beginning in zip(begun.values(), computed, strict=True) for row in few]
        pairs.sort(key=lambda pair: len(pair[0].ids) - pair[1].length)
        count = -(-len(pairs) // self.batch)
        for number in range(count):  # as few pieces as it takes, of sizes that differ by one at most
            piece = pairs[len(pairs) * number // count : len(pairs) * (number + 1) // count]
            some = [row for row, _ in piece]
            state = prefix.begin(self._model, some, [beginning for _, beginning in piece])
            if some[0].options:
                sums = prefix.likelihoods(self._model, state, [row.options for row in some])
                yield from (_likeliest(row, values) for row, values in zip(some, sums, strict=True))
                continue
            for place, ids, stopped in prefix.generate(self._model, state, some, self._ends):
                yield self._reply(some[place], ids, stopped)

    def _whole(self, rows: Sequence[PromptRow]) -> Iterator[Reply]:
        """Replies to rows whose prompts run whole."""
        alike: dict[Any, list[PromptRow]] = {}
        for row in rows:
            if row.options:
                options = list(row.options.values())
                most = max(map(len, options))
                ids_bn = torch.tensor([[*ids, *ids[-1:] * (most - len(ids))] for ids in options])
                logits_bnv = self._forced([row] * len(options), ids_bn)
                token_bn = prefix.of_tokens(logits_bnv, ids_bn.to(logits_bnv.device)).tolist()
                sums = [sum(values[: len(ids)]) for values, ids in zip(token_bn, options, strict=True)]
                yield _likeliest(row, dict(zip(row.options, sums, strict=True)))
            else:
                shapes = tuple((name, value.shape[1:]) for name, value in sorted(row.media.items()))
                alike.setdefault((shapes, row.limit), []).append(row)
        most = 1 if self._lone else self.batch
        for part in alike.values():
            for start in range(0, len(part), most):
                yield from self._generate(part[start : start + most])

    @torch.no_grad()
    def _generate(self, rows: Sequence[PromptRow]) -> Iterator[Reply]:
        """Replies to rows whose inputs stack and whose answers have one limit."""
        inputs, limit = stacked(self._model, rows, self._pad), rows[0].limit
        if self._adapter.generate is not None:
            out_bl = self._adapter.generate(self._model, self._processor, inputs, limit)
        else:
            chosen = [_Chosen(rows)] if rows[0].asked.draw else []
            out_bl = self._model.generate(
                **inputs, **self._arguments, max_new_tokens=limit, logits_processor=LogitsProcessorList(chosen)
            )
        start = 0 if self._model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
        for row, ids in zip(rows, out_bl[:, start:].tolist(), strict=True):
            end = next((place for place, token in enumerate(ids) if token in self._ends), None)
            yield self._reply(row, ids[:end], "length" if end is None else "end")

    @torch.no_grad()
    def _forced(self, rows: Sequence[PromptRow], ids_bn: Tensor) -> Tensor:
        """Logits behind the rows' prompts while they say ``ids_bn``, by ``generate``; shape (batch, n, vocabulary)."""
        if self._lone and len(rows) > 1:
            return torch.cat([self._forced([row], of_1n) for row, of_1n in zip(rows, ids_bn.split(1), strict=True)])
        out = self._model.generate(
            **stacked(self._model, rows, self._pad),
            **{**self._arguments, "eos_token_id": None},  # what is to be said is said to its end
            max_new_tokens=ids_bn.shape[1],
            logits_processor=LogitsProcessorList([_Forced(ids_bn)]),
            output_logits=True,
            return_dict_in_generate=True,
        )
        return torch.stack(out.logits, dim=1).float()

    def _reply(self, row: PromptRow, ids: list[int], stopped: str) -> Reply:
        tokenizer = self._processor.tokenizer
        marks = dict(zip(tokenizer.convert_tokens_to_ids([*(self._adapter.thought or ())]), TAGS[0], strict=False))
        text = "".join(
            mark or tokenizer.decode([*few], skip_special_tokens=True, clean_up_tokenization_spaces=False)
            for mark, few in groupby(ids, marks.get)
        )
        stopped = "thought" if stopped == "length" and is_cut_off(row.thought + text) else stopped
        return Reply(row.asked.id, text, stopped, tokens=(len(row.ids), len(ids)))

    @property
    def _shares(self) -> bool:
        return self._objection is None

    @cached_property
    def _objection(self) -> str | None:
        """Why a beginning cannot be computed once for several prompts, or None."""
        model, adapter = self._model, self._adapter
        if not self._share:
            return "as asked for"
        if adapter.generate is not None:
            return "it has code of its own to generate"
        if adapter.no_prefix is not None:
            return adapter.no_prefix
        if model.config.is_encoder_decoder:
            return "it has an encoder of text"
        if getattr(model, "_is_stateful", False):
            return "it keeps a state, not keys and values"
        if stretched := STRETCHED.search(str(model.config.get_text_config().to_dict())):
            return f"its rotary positions are {stretched[1]}"
        wanted = {key: value for key, value in self._config.to_diff_dict().items() if value not in (None, False)}
        unusual = sorted(key for key, value in wanted.items() if key not in HARMLESS and NEUTRAL.get(key) != value)
        return f"its generation settings have {', '.join(unusual)}" if unusual else self._objection_when_tried()

    def _objection_when_tried(self) -> str | None:
        """Ask about two pictures of noise by ``generate``, one by one, and on top of common beginnings, both at once.

        The same tokens are said both times, and logits are compared. A model whose picture sees the question, whose
        cache is of another kind or whose forward pass wants something else gives itself away here.
        """
        model, sees = self._model, self._processor.image_processor is not None
        try:
            made = [self._maker.rows(_tried(seed if sees else None)) for seed in (0, 1)]
            for _, failed in made:
                if failed:
                    raise UserError(failed[0].error or "")
            both = [rows for rows, _ in made]
            rows = [row for few in both for row in few]
            if any(not sees <= row.head < len(row.ids) for row in rows):
                return "no tokens of the prompt are known to be its picture"
            said_bn = torch.tensor([rows[0].ids[-TOKENS:]] * len(rows), device=model.device)
            alone_bnv = torch.cat([self._forced([row], said_bn[:1]) for row in rows])
            begun = prefix.prefixes(model, both, most=1 if self._lone else len(both))
            state = prefix.begin(model, rows, [one for one, few in zip(begun, both, strict=True) for _ in few])
            first_b1v = state.logits_bv[:, None]
            shared_bnv = torch.cat([first_b1v, prefix.advance(model, state, said_bn[:, :-1])], dim=1)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # whatever a model raises that is used in a way it does not know
            why = next(iter(str(error).splitlines()), "")
            return f"a common beginning fails ({type(error).__name__}: {why})"
        if alone_bnv.isnan().any():
            held = str(model.dtype).removeprefix("torch.")
            raise UserError(f"in {held} this model computes no numbers; choose another --dtype")
        known = alone_bnv.isfinite()
        deviation = float((alone_bnv - shared_bnv)[known].square().mean().sqrt() / alone_bnv[known].std())
        if deviation <= (MOST if model.dtype == torch.float32 else MOST_ROUNDED):
            return None
        return f"on top of a common beginning, logits differ by {deviation:.1%}"


class _Forced(LogitsProcessor):
    """Makes rows say ``ids_bn``."""

    def __init__(self, ids_bn: Tensor) -> None:
        self._left = iter(ids_bn.unbind(dim=1))

    def next(self, scores: Tensor) -> Tensor:
        """The tokens that are said now."""
        return next(self._left).to(scores.device)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return torch.full_like(scores, -torch.inf).scatter(1, self.next(scores)[:, None], 0.0)


class _Chosen(_Forced):
    """Makes rows say what is drawn for them."""

    def __init__(self, rows: Sequence[PromptRow]) -> None:
        self._choose, self._rows = prefix.Chooser([row.asked.draw for row in rows]), range(len(rows))

    def next(self, scores: Tensor) -> Tensor:
        return self._choose(scores, self._rows)


def _tried(seed: int | None) -> list[Asked]:
    """Two questions about a picture of noise; None: about none."""
    if seed is None:
        return [Asked(text, Prompt((text,), whole=True)) for text in TRIED]
    noise_hw3 = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(noise_hw3).save(file, "png")
    return [Asked("", Prompt((PICTURE, f"\n{text}\n"), whole=True), (file.getvalue(),)) for text in TRIED]


def _likeliest(row: PromptRow, likelihood: dict[str, float]) -> Reply:
    """The likeliest of the answers, and how likely each is."""
    best = max(likelihood, key=likelihood.__getitem__)
    return Reply(row.asked.id, row.asked.options[best], likelihood=likelihood)


def check_batch(answerer: LocalAnswerer, asked: Sequence[Asked]) -> list[str]:
    """Questions that ``generate`` answers otherwise, one by one: one line each. Rounding alone can cause a few."""
    batched, alone = (
        {reply.id: f"error {reply.error!r}" if reply.error is not None else repr(reply.raw) for reply in replies}
        for replies in (answerer.answer(asked), answerer.one_by_one().answer(asked))
    )
    return [
        f"{one.id}: {batched[one.id]} in batches, {alone[one.id]} one by one"
        for one in asked
        if batched[one.id] != alone[one.id]
    ]


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
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
