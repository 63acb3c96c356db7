"""Stage 2 on rows as long as LLaVA's mix: Blindspot's packed batches against transformers' ``Trainer`` with padding.

Both train the same model (about 50M parameters, encoder frozen, float32) on the same rows from the same weights, with
AdamW and one thread. Rows have the lengths of mix 665k as far as they are published (specs: recipe 3.3, efficiency 4.1
and 4.3): 94 % have a picture, text is log-normal with a mean of 250 tokens beside a picture and 950 without, cut at
2,048, a third to two thirds of it supervised; every length, that of a picture too, is divided by ``--scale``. Pictures
are random pixels, ready made: reading them is measured by ``perf/data.py``. The peer has LLaVA's 16 rows a micro-batch.
Each run is a process of its own, so that its peak memory is its own.

    python perf/train_llava.py [--steps 3] [--batch 32] [--scale 4] [--group] [--json]
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from memory import peak_mib
from peer import run_trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlavaForConditionalGeneration

from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.config import llava_config
from blindspot.model.encoding import IGNORE
from blindspot.positions import EncoderPositions
from blindspot.training.config import TrainConfig
from blindspot.training.packing import TrainingSample
from blindspot.training.variant import train

PAD, BEGIN, END, IMAGE, VOCABULARY = 0, 1, 2, 3, 16_000
PATCH, LONGEST, ROWS = 14, 2048, 4000
WITH_PICTURE = 0.939
PEER_ROWS = 16


class Job(NamedTuple):
    """What is measured."""

    steps: int
    batch: int
    scale: int
    group: bool


class Rows:
    """The rows, as `blindspot.training.loading.Samples`.

    Args:
        scale: lengths are divided by it; a square of a number that divides 16.
    """

    def __init__(self, scale: int) -> None:
        self.side = 16 // round(scale**0.5)
        self._scale = scale
        self._picture_chw = torch.randn(
            3, self.side * PATCH, self.side * PATCH, generator=torch.Generator().manual_seed(0)
        )
        self.filler = TrainingSample("", [IMAGE] * self.side**2, [IGNORE] * self.side**2, (None,))

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, number: int) -> TrainingSample:
        draw = np.random.default_rng([11, number])
        pictured = bool(draw.random() < WITH_PICTURE)
        text = int(draw.lognormal(np.log(180 if pictured else 700), 0.8)) // self._scale
        room = LONGEST // self._scale - pictured * self.side**2 - 2
        text = max(4, min(text, room))
        answer = max(1, round(text * draw.uniform(1 / 3, 2 / 3)))
        words = draw.integers(END + 2, VOCABULARY, text).tolist()
        ids = [BEGIN, *[IMAGE] * (pictured * self.side**2), *words, END]
        labels = [IGNORE] * (len(ids) - answer - 1) + ids[len(ids) - answer - 1 :]
        return TrainingSample(f"s{number}", ids, labels, (number,) * pictured)

    def pixels(self, sample: TrainingSample, blank: bool = False) -> list[dict[str, Tensor]]:
        """The same pixels for every picture."""
        return [{"pixel_values": self._picture_chw}] * len(sample.pictures)


def measure_ours(job: Job) -> dict[str, float]:
    """Supervised tokens a second of `blindspot.training.variant.train` after the first step."""
    torch.set_num_threads(1)
    before = peak_mib()
    config = TrainConfig(
        batch=job.batch,
        lr=2e-5,
        steps=job.steps + 1,
        frozen=("vision_tower",),
        precision="fp32",
        pack_tokens=4096 // job.scale,
        save_every=10**6,
        workers=0,
    )
    with tempfile.TemporaryDirectory() as scratch:
        ends: list[tuple[float, float]] = []
        train(config, _variant(job.scale), Rows(job.scale), Path(scratch), lambda *_, **__: ends.append(_now()))
        log = [json.loads(line) for line in (Path(scratch) / "log.jsonl").read_text().splitlines()][1:]
    real = sum(row["tokens"] for row in log)
    room = sum(row["tokens"] / (1 - row["padding"]) for row in log)
    return _rates(ends, [sum(row["supervised_tokens"] for row in log), real, room], before)


def measure_peer(job: Job) -> dict[str, float]:
    """The same of ``Trainer`` and transformers' own Llava."""
    torch.set_num_threads(1)
    before = peak_mib()
    rows, ends, collated = Rows(job.scale), [], []
    each = job.batch // PEER_ROWS
    run_trainer(
        _peer(job.scale),
        [_plain(rows[number]) for number in range(min(ROWS, 40 * job.batch))],
        _collator(rows, collated),
        lambda: ends.append(_now()),
        max_steps=job.steps + 1,
        per_device_train_batch_size=PEER_ROWS,
        gradient_accumulation_steps=each,
        learning_rate=2e-5,
        lr_scheduler_type="cosine",
        warmup_steps=1,
        train_sampling_strategy="group_by_length" if job.group else "random",
    )
    used = np.array(collated[each : (job.steps + 1) * each]).sum(axis=0)  # one batch more may have been made ahead
    return _rates(ends, used.tolist(), before)


def _variant(scale: int) -> Any:
    side = 16 // round(scale**0.5) * PATCH
    tower = TowerShape(width=256, layers=4, heads=4, mlp_width=1024, image_size=side, patch_size=PATCH)
    text = LanguageShape(512, 10, 8, 1376, 10_000.0, VOCABULARY, LONGEST).config(PAD, BEGIN, END)
    torch.manual_seed(0)
    return build_variant(ENCODERS["siglip"], tower, EncoderPositions(), text, IMAGE, "sdpa")


def _peer(scale: int) -> LlavaForConditionalGeneration:
    ours = _variant(scale)
    peer = LlavaForConditionalGeneration(llava_config(ours.config))
    peer.load_state_dict(ours.state_dict())
    peer.set_attn_implementation("sdpa")
    peer.model.vision_tower.requires_grad_(False)
    return peer


def _plain(sample: TrainingSample) -> dict[str, Any]:
    return {"input_ids": sample.ids, "labels": sample.labels, "pictures": len(sample.pictures)}


def _collator(rows: Rows, collated: list[tuple[int, int, int]]) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    """Pads to the longest on the right, as LLaVA does, and notes supervised, real and padded tokens."""
    (picture,) = rows.pixels(rows.filler)

    def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        def pad(key: str, value: int) -> Tensor:
            return pad_sequence([torch.tensor(sample[key]) for sample in samples], True, value)

        ids_bl, labels_bl = pad("input_ids", PAD), pad("labels", IGNORE)
        mask_bl = pad_sequence([torch.ones(len(sample["input_ids"])) for sample in samples], True, 0).long()
        collated.append((int((labels_bl[:, 1:] != IGNORE).sum()), int(mask_bl.sum()), mask_bl.numel()))
        pictures = sum(sample["pictures"] for sample in samples)
        return {
            "input_ids": ids_bl,
            "labels": labels_bl,
            "attention_mask": mask_bl,
            "pixel_values": picture["pixel_values"].expand(pictures, -1, -1, -1),
        }

    return collate


def _rates(ends: list[tuple[float, float]], tokens: list[float], before: float) -> dict[str, float]:
    """What was measured between the first and the last of the times at which steps ended."""
    (seconds, own_seconds), peak = np.subtract(ends[-1], ends[0]).tolist(), peak_mib()
    supervised, real, room = tokens
    return {
        "supervised_tokens_per_second": supervised / seconds,
        "supervised_tokens_per_core_second": supervised / own_seconds,
        "tokens_per_second": real / seconds,
        "padding_percent": 100 * (1 - real / room),
        "peak_mib": peak,
        "training_mib": peak - before,
    }


def _now() -> tuple[float, float]:
    """Seconds of the clock, and of this process's core, which others on the machine do not take from."""
    return time.perf_counter(), time.process_time()


def _alone(work: Callable[[Job], Any], job: Job) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, job).result()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="optimiser steps timed (default 3)")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step (default 32)")
    parser.add_argument("--scale", type=int, default=4, choices=(1, 4, 16), help="divide all lengths (default 4)")
    parser.add_argument("--group", action="store_true", help="give the peer batches of rows of like length")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the table")
    options = parser.parse_args()
    if options.batch % PEER_ROWS:
        parser.error(f"--batch should be a multiple of {PEER_ROWS}")
    job = Job(options.steps, options.batch, options.scale, options.group)
    sides = {"Blindspot": _alone(measure_ours, job), "Trainer": _alone(measure_peer, job)}
    ours, peer = sides.values()
    ratios = {name: ours[name] / peer[name] for name in ours if peer[name]}
    if options.json:
        print(json.dumps({**job._asdict(), **sides, "ratios": ratios}, indent=1))
        return
    table = Table(title=f"Stage 2, {job.steps} steps of {job.batch} rows, lengths / {job.scale}, one thread")
    for heading in ("", *sides, "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in ours:
        table.add_row(name.replace("_", " "), f"{ours[name]:,.1f}", f"{peer[name]:,.1f}", f"{ratios[name]:.2f}")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
