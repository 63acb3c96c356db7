"""One stage of a variant on data in LLaVA's form, from files to files, on one process or under torchrun."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from blindspot.errors import UserError
from blindspot.files import new_folder
from blindspot.model import conversation
from blindspot.model.conversation import from_chat_template
from blindspot.model.formats.llava import padded
from blindspot.model.load import load
from blindspot.model.variant import BlindspotForConditionalGeneration, save
from blindspot.training.checkpoint import begin_run
from blindspot.training.config import Stage, TrainConfig, stage_config
from blindspot.training.fit import Recipe, Report, Work, fit, silent
from blindspot.training.flops import costs
from blindspot.training.llava.rows import LlavaRows, index_rows
from blindspot.training.llava.samples import LlavaSamples
from blindspot.training.loading import Batch, Batches, Samples, batches_ahead
from blindspot.training.log import BatchCounts, Meter
from blindspot.training.loss import AnswerLoss, choose_attention
from blindspot.training.optim import adamw, cosine
from blindspot.training.order import Order, llava_order, shuffled
from blindspot.training.packing import Micro
from blindspot.training.parallel import DTYPES, Ranks, joined, place, whole_state
from blindspot.training.parts import CONNECTOR, freeze, load_parts, save_parts

GPU_MULTIPLE = 128
MODEL = "model"
TEMPLATES = {"connector": "plain", "instruct": "v1"}
"""LLaVA's, by stage."""


@dataclass(frozen=True)
class Material:
    """What a stage trains on, and how rows become samples."""

    json: Path  # rows in LLaVA's form
    images: Path  # the folder that their paths are relative to
    index: Path  # the folder for the indexed rows, on a disk that all ranks see
    template: str  # ``plain``, ``v1``, or ``chat`` for the tokenizer's own
    max_length: int  # longest sample in tokens, pictures counted
    pad: bool  # whether a picture is first padded to a square with the mean colour


def train_arm(
    model: Path | tuple[Any, Any],
    json: Path,
    images: Path,
    out: Path,
    stage: Stage,
    connector: Path | None = None,
    template: str | None = None,
    max_length: int = 2048,
    report: Report = silent,
    **overrides: Any,
) -> Path:
    """Train a stage of a model, or go on where it was stopped. Under ``torchrun`` all its processes call this.

    Args:
        model: what to start from: a folder that `blindspot.load` opens, or a variant and its processor.
        json, images, template, max_length: see `Material`; by default the stage's template in LLaVA.
        out: folder of the run, on a disk that all ranks see.
        stage: ``connector`` (LLaVA's first) or ``instruct`` (its second); says the recipe.
        connector: a file of stage 1 to start the connector from.
        report: told of every step, on the first rank.
        overrides: fields of `TrainConfig` that are not as in the recipe.

    Returns:
        What the stage made: ``out/connector.safetensors`` if nothing but the connector trained, else ``out/model``.
    """
    config = stage_config(stage, **overrides)
    refuse_long(config, max_length)
    with joined() as ranks:
        variant, processor = load(model) if isinstance(model, Path) else model
        if not isinstance(variant, BlindspotForConditionalGeneration):
            raise UserError(f"{model} is a {variant.config.model_type} model as transformers has it; train a Llava")
        if connector is not None:
            load_parts(variant, connector, alone=True)
        material = Material(json, images, out / "rows", template or TEMPLATES[stage], max_length, stage == "instruct")
        facts = {"stage": stage} | ({"model": str(model.resolve())} if isinstance(model, Path) else {})
        state = train_stage(config, variant, processor, material, out, ranks, report, facts)
        connects = set(config.frozen) == {"vision_tower", "language_model"}
        if ranks.first and connects:
            save_parts(state, variant.config, (), out)
        elif ranks.first:
            save_model(variant.config, state, processor, out / MODEL, DTYPES[config.precision])
        ranks.from_first(None)
        return out / (CONNECTOR if connects else MODEL)


def train_stage(
    config: TrainConfig,
    variant: Any,
    processor: Any,
    material: Material,
    out: Path,
    ranks: Ranks,
    report: Report,
    facts: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Train a variant on the material, as `train` does; all ranks call this.

    Its ``processor`` becomes the one that fits what it has learned: it pads pictures if they were padded, and writes
    conversations in the template. Bytes of the rows, template and length are added to the ``facts``.
    """
    tokenizer = processor.tokenizer
    templates = {
        "plain": conversation.plain,
        "v1": partial(conversation.v1, end=tokenizer.eos_token),
        "chat": partial(from_chat_template, tokenizer=tokenizer),
    }
    if material.template not in templates:
        raise UserError(f"unknown template {material.template!r}; it is plain, v1 or chat")
    ranks.first_does(partial(index_rows, material.json, material.index))
    if material.pad:
        processor.image_processor = padded(processor.image_processor)
    if material.template in conversation.CHAT_TEMPLATES:
        processor.chat_template = tokenizer.chat_template = conversation.CHAT_TEMPLATES[material.template]
    rows = LlavaRows(material.index, material.images)
    samples = LlavaSamples(rows, processor, templates[material.template], material.max_length)
    own = {"rows": rows.source.sha256, "template": material.template, "max_length": material.max_length}
    return train(config, variant, samples, out, report, {**own, **facts})


def refuse_long(config: TrainConfig, max_length: int) -> None:
    """Refuse a longest sample that does not fit a pack."""
    if config.batching == "packed" and max_length > config.pack_tokens:
        raise UserError(f"a sample of max_length {max_length} does not fit a pack of pack_tokens {config.pack_tokens}")


def train(
    config: TrainConfig,
    variant: Any,
    samples: Samples,
    out: Path,
    report: Report = silent,
    facts: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Tensor]:
    """Train a variant, or go on where a run in ``out`` was stopped. Under ``torchrun`` all its processes call this.

    ``out`` gets ``log.jsonl``, a row a step, with the rows of the data that could not be trained on; ``checkpoints/``;
    and ``run.json``, by which a run is known to be the same.

    Args:
        variant: a `BlindspotForConditionalGeneration` on the CPU. Afterwards it is of no use where it was sharded.
        samples: the data set. Under ``batching="llava"`` it has ``lengths()`` too, as `LlavaSamples` has.
        out: folder of the run, on a disk that all ranks see.
        report: told of every step, on the first rank.
        facts: plain values that a run must keep, too, when it is continued.

    Returns:
        The weights of the trained variant, on the CPU of the first rank; nothing on the others.
    """
    with joined() as ranks:
        steps = config.total_steps(len(samples))
        begin_run(out, {**facts, **config.recipe(), "samples": len(samples)}, ranks)
        rise = math.ceil(steps * config.warmup)
        recipe = Recipe(
            steps, config.batch, config.lr, rise, cosine, config.clip,
            log_every=1, save_every=config.save_every, keep=config.keep,
        )  # fmt: skip
        work = _Llava(config, variant, samples, steps, ranks)
        fit(work, recipe, out, report, ranks, tracker=config.tracker)
        work.module.release()
        return whole_state(work.module)


class _Llava(Work):
    """A variant on conversations: a global batch dealt to ranks and micro-batches.

    A step's loss is the same whatever number of ranks and micro-batches computes it.
    """

    module: AnswerLoss

    def __init__(self, config: TrainConfig, variant: Any, samples: Any, steps: int, ranks: Ranks) -> None:
        self._config, self._ranks = config, ranks
        freeze(variant, config.frozen)
        packed = config.batching == "packed" and not variant.model.gated  # gated layers know rows, not documents
        self._costs = costs(variant)
        dtype = DTYPES[config.precision]
        way = choose_attention(variant, config.attention, ranks.device, dtype, config.compile) if packed else None
        self.module = AnswerLoss(variant, way, dtype)
        place(self.module, config, ranks)
        self._meter = Meter(ranks.device, ranks.world, steps)
        row_batch, permute = None, partial(shuffled, len(samples), config.seed)
        if config.batching == "llava":
            row_batch = config.row_batch
            if config.batch % row_batch:
                raise UserError(f"under batching llava, batch ({config.batch}) is a multiple of row_batch")
            permute = partial(llava_order, *samples.lengths(), row_batch, config.batch // row_batch, config.seed)
        total = steps * config.batch if config.steps else math.ceil(len(samples) * config.epochs)
        self._batches = partial(
            Batches,
            samples,
            Order(len(samples), config.batch, permute, total),
            pack_tokens=config.pack_tokens,
            row_batch=row_batch,
            packed=packed,
            multiple=GPU_MULTIPLE if packed and ranks.device.type == "cuda" else 1,
            rank=ranks.rank,
            world=ranks.world,
            workers=config.workers,
        )

    def optimisers(self, recipe: Recipe) -> Sequence[Optimizer]:
        config, tower = self._config, self.module.variant.model.vision_tower.parameters()
        return adamw(self.module, config.lr, tower, config.encoder_lr, half=config.optimiser_states == "bf16")

    def state(self) -> dict[str, Tensor]:
        """Without what is frozen, which the run starts from anyway."""
        frozen = {name for name, parameter in self.module.named_parameters() if not parameter.requires_grad}
        return {name: tensor for name, tensor in self.module.state_dict().items() if name not in frozen}

    def after_step(self, step: int) -> None: ...

    def seed(self, step: int) -> int:
        """Copies of a weight round its moments alike."""
        shard = self._ranks.rank % (self._config.shard_size or self._ranks.world)
        return (self._config.seed * 1_000_003 + step) * 4099 + shard

    def batches(self, steps: range) -> AbstractContextManager[Iterator[Batch]]:
        return batches_ahead(self._batches(steps=steps), pin=self._ranks.device.type == "cuda")

    def terms(self, batch: Batch) -> Iterable[Tensor]:
        self._meter.data_arrived()
        micros, unread = batch.micros, batch.unread
        mine = BatchCounts(
            supervised=sum(micro.supervised for micro in micros),
            tokens=sum(micro.tokens for micro in micros),
            room=sum(micro.ids_bl.numel() for micro in micros),
            operations=sum(self._costs.of(micro) for micro in micros),
            micros=sum(micro.supervised > 0 for micro in micros),
            unread=len(unread),
        )
        self._counts = BatchCounts(*self._ranks.total(mine))
        if self._counts.unread:
            unread = [skipped for part in self._ranks.gather(unread) for skipped in part]
        self._skipped, self._seen = batch.dropped + unread, []
        for micro, weight in zip(micros, weights(self._config.loss, micros, self._counts), strict=True):
            loss, document_k = self.module(micro.to(self._ranks.device))
            self._seen.append((micro, document_k))
            yield loss * weight

    def culprits(self) -> list[str]:
        return [
            name
            for micro, document_k in self._seen
            for name, loss in zip(micro.names, document_k.tolist(), strict=True)
            if name and not math.isfinite(loss)
        ]

    def row(self, finished: int, norm: float) -> dict[str, Any]:
        skipped = {"skipped": self._skipped} if self._skipped else {}
        return {"grad_norm": round(norm, 6), **self._meter.row(finished, self._counts), **skipped}


def weights(loss: str, micros: list[Micro], counts: BatchCounts) -> list[float]:
    """What the sum of the losses of each of this rank's micro-batches counts for in the loss of the step."""
    if loss == "tokens":
        return [1 / max(counts.supervised, 1)] * len(micros)
    return [1 / (max(micro.supervised, 1) * max(counts.micros, 1)) for micro in micros]


def save_model(config: Any, state: dict[str, Tensor], processor: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a checkpoint of weights of ``dtype`` that `blindspot.load` opens, whole or not at all.

    It takes the place of what is in ``folder``.
    """
    with torch.device("meta"):
        whole = BlindspotForConditionalGeneration(config)
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    whole.load_state_dict(cast, assign=True)
    whole.config.dtype = dtype
    with new_folder(folder, "free the disk or choose another --out") as new:
        save(whole, new)
        processor.save_pretrained(new)
        if folder.exists():
            shutil.rmtree(folder)
