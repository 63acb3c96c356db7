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
from blindspot.training import attention, flops, parallel
from blindspot.training.checkpoint import begin_run
from blindspot.training.config import Stage, TrainConfig, stage_config
from blindspot.training.fit import Recipe, Report, Work, fit, silent
from blindspot.training.llava.index import LlavaRows, index_rows
from blindspot.training.llava.samples import LlavaSamples, Template
from blindspot.training.loading import Batch, Batches, Layout, Samples, batches_ahead
from blindspot.training.log import Meter
from blindspot.training.loss import AnswerLoss
from blindspot.training.optim import adamw, cosine
from blindspot.training.order import Order, llava_order, shuffled
from blindspot.training.packing import Micro
from blindspot.training.parallel import DTYPES, Ranks, joined
from blindspot.training.parts import CONNECTOR, freeze, load_connector, save_connector

GPU_MULTIPLE = 128
MODEL = "model"
TEMPLATES = {"connector": "plain", "instruct": "v1"}
"""LLaVA's, by stage."""


@dataclass(frozen=True)
class Material:
    """What a stage trains on, and how rows become samples.

    Attributes:
        json: rows in LLaVA's form.
        images: the folder that their paths are relative to.
        index: the folder for the indexed rows, on a disk that all ranks see.
        template: ``plain``, ``v1``, or ``chat`` for the tokenizer's own.
        max_length: longest sample in tokens, pictures counted.
        pad: whether a picture is first padded to a square with the mean colour.
    """

    json: Path
    images: Path
    index: Path
    template: str
    max_length: int
    pad: bool


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
        json: rows in LLaVA's form.
        images: the folder that their paths are relative to.
        out: folder of the run, on a disk that all ranks see.
        stage: ``connector`` (LLaVA's first) or ``instruct`` (its second); says the recipe.
        connector: a file of stage 1 to start the connector from.
        template: ``plain``, ``v1``, or ``chat`` for the tokenizer's own; by default the stage's in LLaVA.
        max_length: longest sample in tokens, pictures counted.
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
            load_connector(variant, connector)
        material = Material(json, images, out / "rows", template or TEMPLATES[stage], max_length, stage == "instruct")
        facts = {"stage": stage} | ({"model": str(model.resolve())} if isinstance(model, Path) else {})
        state = train_stage(config, variant, processor, material, out, ranks, report, facts)
        connects = set(config.frozen) == {"vision_tower", "language_model"}
        made = out / (CONNECTOR if connects else MODEL)
        if ranks.first and connects:
            save_connector(state, variant.config, made)
        elif ranks.first:
            save_model(variant.config, state, processor, made, DTYPES[config.precision])
        ranks.from_first(None)
        return made


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
    """Train a variant on the material; all ranks call this.

    Its processor becomes the one that fits what it has learned: it pads pictures if they were padded, and writes
    conversations in the template.

    Args:
        config: how.
        variant: see `train`.
        processor: the variant's.
        material: on what.
        out: folder of the run.
        ranks: the processes.
        report: told of every step, on the first rank.
        facts: see `train`; bytes of the rows, template and length are added.

    Returns:
        The weights, on the first rank.
    """
    refuse_long(config, material.max_length)
    template = _template(material.template, processor.tokenizer)
    ranks.first_does(partial(index_rows, material.json, material.index))
    if material.pad:
        processor.image_processor = padded(processor.image_processor)
    if material.template in conversation.CHAT_TEMPLATES:
        processor.chat_template = processor.tokenizer.chat_template = conversation.CHAT_TEMPLATES[material.template]
    rows = LlavaRows(material.index, material.images)
    samples = LlavaSamples(rows, processor, template, material.max_length)
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
        config: how.
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
        return parallel.whole_state(work.module)


class _Llava(Work):
    """A variant on conversations: a global batch dealt to ranks and micro-batches.

    A step's loss is the same whatever number of ranks and micro-batches computes it.
    """

    module: AnswerLoss

    def __init__(self, config: TrainConfig, variant: Any, samples: Any, steps: int, ranks: Ranks) -> None:
        self._config, self._ranks = config, ranks
        freeze(variant, config.frozen)
        packed = config.batching == "packed" and not variant.model.gated  # gated layers know rows, not documents
        self._costs, self._patch_size = flops.costs(variant), variant.config.vision_config.patch_size
        dtype = DTYPES[config.precision]
        way = attention.choose(variant, config.attention, ranks.device, dtype, config.compile) if packed else None
        self.module = AnswerLoss(variant, way, dtype)
        parallel.place(self.module, config, ranks)
        self._meter = Meter(ranks.device, ranks.world, steps)
        grouped = config.batching == "llava"
        permute = partial(shuffled, len(samples), config.seed)
        if grouped:
            if config.batch % config.row_batch:
                raise UserError(f"under batching llava, batch ({config.batch}) is a multiple of row_batch")
            size, count = config.row_batch, config.batch // config.row_batch
            permute = partial(llava_order, *samples.lengths(), size, count, config.seed)
        total = steps * config.batch if config.steps else math.ceil(len(samples) * config.epochs)
        multiple = GPU_MULTIPLE if packed and ranks.device.type == "cuda" else 1
        layout = Layout(config.pack_tokens, config.row_batch if grouped else None, packed, multiple)
        order = Order(len(samples), config.batch, permute, total)
        self._batches = partial(Batches, samples, order, layout)

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
        batches = self._batches(steps, self._ranks.rank, self._ranks.world, self._config.workers)
        return batches_ahead(batches, self._config.workers, pin=self._ranks.device.type == "cuda")

    def terms(self, batch: Batch) -> Iterable[Tensor]:
        self._meter.data_arrived()
        self._skipped, self._counts, self._seen = self._left_out(batch), self._count(batch), []
        for micro, weight in zip(batch.micros, weights(self._config.loss, batch.micros, self._counts), strict=True):
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

    def _count(self, batch: Batch) -> flops.Counts:
        micros = batch.micros
        mine = flops.Counts(
            supervised=sum(micro.supervised for micro in micros),
            tokens=sum(micro.tokens for micro in micros),
            room=sum(micro.ids_bl.numel() for micro in micros),
            operations=sum(self._costs.of(micro, self._patch_size) for micro in micros),
            micros=sum(micro.supervised > 0 for micro in micros),
        )
        return flops.Counts(*self._ranks.total(mine))

    def _left_out(self, batch: Batch) -> list[dict[str, Any]]:
        """The rows of the global batch that are not trained on."""
        unread = batch.unread
        if self._ranks.total([len(unread)])[0]:
            unread = [skipped for part in self._ranks.gather(unread) for skipped in part]
        return batch.dropped + unread


def weights(loss: str, micros: list[Micro], counts: flops.Counts) -> list[float]:
    """What the sum of a micro-batch's losses counts for in the loss of the step, for each of this rank's.

    Args:
        loss: see `TrainConfig`.
        micros: this rank's part of the global batch.
        counts: of the global batch.
    """
    if loss == "tokens":
        return [1 / max(counts.supervised, 1)] * len(micros)
    return [1 / (max(micro.supervised, 1) * max(counts.micros, 1)) for micro in micros]


def save_model(config: Any, state: dict[str, Tensor], processor: Any, folder: Path, dtype: torch.dtype) -> None:
    """Write a checkpoint that `blindspot.load` opens, whole or not at all.

    Args:
        config: the variant's.
        state: its weights.
        processor: its processor.
        folder: what is there already is replaced.
        dtype: of the weights on disk.
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


def _template(name: str, tokenizer: Any) -> Template:
    if name == "plain":
        return conversation.plain
    if name == "v1":
        return partial(conversation.v1, end=tokenizer.eos_token)
    if name == "chat":
        return partial(from_chat_template, tokenizer=tokenizer)
    raise UserError(f"unknown template {name!r}; it is plain, v1 or chat")
