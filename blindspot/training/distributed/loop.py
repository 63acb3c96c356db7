"""The loop: train a variant on all ranks, log, save, and go on where a run was stopped."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from blindspot.errors import UserError
from blindspot.training.distributed import attention, flops, parallel, run_file
from blindspot.training.distributed.batches import Batch, Samples
from blindspot.training.distributed.checkpoint import Checkpoints
from blindspot.training.distributed.config import TrainConfig
from blindspot.training.distributed.loading import Batches, Layout, batches_ahead
from blindspot.training.distributed.loss import Objective
from blindspot.training.distributed.meter import Meter
from blindspot.training.distributed.optimiser import adamw, update
from blindspot.training.distributed.order import Grouped, Order, Permute, Shuffled
from blindspot.training.distributed.ranks import Ranks, joined
from blindspot.training.distributed.step import Gradient, count, differentiate, weights
from blindspot.training.distributed.tracking import Log
from blindspot.training.loop import Report
from blindspot.training.stages import freeze

CHECKPOINTS = "checkpoints"
GPU_MULTIPLE = 128


def train(
    config: TrainConfig,
    variant: Any,
    samples: Samples,
    out: Path,
    report: Report = lambda step, steps, loss=None, phase="": None,
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

    Raises:
        UserError: if the loss is no number (with the samples that made it so; the state before is saved), a worker
            dies, the run in ``out`` was another, or something cannot be written.
    """
    with joined() as ranks:
        steps = config.total_steps(len(samples))
        run_file.begin(out, {**facts, **config.recipe(), "samples": len(samples)}, ranks)
        freeze(variant, config.frozen)
        packed = config.batching == "packed" and not variant.model.gated  # gated layers know rows, not documents
        costs, patch_size = flops.costs(variant), variant.config.vision_config.patch_size
        dtype = parallel.DTYPES[config.precision]
        way = attention.choose(variant, config.attention, ranks.device, dtype, config.compile) if packed else None
        objective = Objective(variant, way, dtype)
        parallel.place(objective, config, ranks)
        optimiser = adamw(objective, config, ranks.device)
        checkpoints = Checkpoints(out / CHECKPOINTS, config.keep, ranks, beside=ranks.device.type == "cuda")
        done = checkpoints.newest() or 0
        if done:
            checkpoints.load(done, objective, optimiser)
        log = Log(out, done, config.tracker) if ranks.first else None
        meter = Meter(ranks, steps)
        batches = _batches(config, samples, range(done, steps), packed, ranks)
        shard = ranks.rank % (config.shard_size or ranks.world)  # copies of a weight round its moments alike
        with batches_ahead(batches, config.workers, pin=ranks.device.type == "cuda") as data:
            for step, batch in enumerate(data, start=done):
                meter.data_arrived()
                torch.manual_seed((config.seed * 1_000_003 + step) * 4099 + shard)
                skipped = _skipped(batch, ranks)
                counts = count(batch, costs, patch_size, ranks)
                shares = weights(config.loss, batch, counts)
                gradient = differentiate(objective, batch, shares, config.clip, ranks)
                if not gradient.finite:
                    checkpoints.save(step, objective, optimiser)
                    checkpoints.finish()
                    raise UserError(_no_number(step, gradient, out))
                share, finished = config.rate(step, steps), step + 1
                update(optimiser, share)
                if log is not None:
                    row = {"step": finished, "steps": steps, "loss": round(gradient.loss, 6)}
                    row |= {
                        "lr": share * config.lr,
                        "grad_norm": round(gradient.norm, 6),
                        **meter.row(finished, counts),
                    }
                    log.write(row | ({"skipped": skipped} if skipped else {}))
                    report(finished, steps, gradient.loss)
                if finished % config.save_every == 0 or finished == steps:
                    checkpoints.save(finished, objective, optimiser)
        checkpoints.finish()
        if log is not None:
            log.close()
        objective.release()
        return parallel.whole_state(objective)


def _batches(config: TrainConfig, samples: Any, steps: range, packed: bool, ranks: Ranks) -> Batches:
    grouped = config.batching == "llava"
    permute: Permute = Shuffled(len(samples), config.seed)
    if grouped:
        if config.batch % config.row_batch:
            raise UserError(f"under batching llava, batch ({config.batch}) is a multiple of row_batch")
        words_r, pictured_r = samples.lengths()
        permute = Grouped(words_r, pictured_r, config.row_batch, config.batch // config.row_batch, config.seed)
    total = steps.stop * config.batch if config.steps else math.ceil(len(samples) * config.epochs)
    multiple = GPU_MULTIPLE if packed and ranks.device.type == "cuda" else 1
    layout = Layout(config.pack_tokens, config.row_batch if grouped else None, packed, multiple)
    order = Order(len(samples), config.batch, total, permute)
    return Batches(samples, order, layout, steps, ranks.rank, ranks.world, config.workers)


def _skipped(batch: Batch, ranks: Ranks) -> list[dict[str, Any]]:
    """The rows of the global batch that are not trained on."""
    unread = batch.unread
    if ranks.total([len(unread)])[0]:
        unread = [skipped for part in ranks.gather(unread) for skipped in part]
    rows = [asdict(skipped) for skipped in batch.dropped + unread]
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def _no_number(step: int, gradient: Gradient, out: Path) -> str:
    what = f"the loss is {gradient.loss}"
    if math.isfinite(gradient.loss):
        what = f"the gradient's norm is {gradient.norm}, the loss {gradient.loss:.4f},"
    named = ", ".join(gradient.culprits[:8]) + (" and more" if gradient.culprits[8:] else "")
    return (
        f"{what} at step {step + 1}, of {named or 'no sample alone'}; the state before it is in {out / CHECKPOINTS}. "
        "Look at these samples, or lower the rate of learning in another --out"
    )
