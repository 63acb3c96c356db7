"""Time and memory of diagnoses on models with as many image tokens as real ones have.

    python perf/diagnose.py            some 15 minutes on an idle core; --json for a JSON object, --help for the rest
    python perf/diagnose.py --only photo

LLaVAs with random weights in float32, one thread, each measurement in a process of its own. Maps of attention and of
gradients on a photo, as `diagnose --image` has them, in models of 16 layers with 32 heads, with 576 and with 2,025
image tokens; beside them, with 576, what a script on transformers does: attention of all layers kept
(`output_attentions`), and a gradient through it. Memory is the peak of the process over what it had with the model
open. Then the whole `diagnose --image`, and every diagnosis of drawn scenes, with 576 image tokens in 2 layers.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from memory import peak_mib
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig, LlavaForConditionalGeneration

from blindspot.diagnostics.base import Budget, Photo
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import attending
from blindspot.diagnostics.core.stimuli import Stimulus
from blindspot.diagnostics.photo.run import Asked, attention, gradient
from blindspot.diagnostics.registry import DIAGNOSTICS, run_of
from blindspot.diagnostics.run import open_vlm
from blindspot.scenes.world import Scene
from blindspot.studies.tiny_families import llava

NARROW, WIDE = 336, 630
"""Pixels of a side: 576 and 2,025 patches of 14."""
DEEP = {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 32, "hidden_size": 512}


def opened(side: int, **language: int) -> HookedVLM:
    """A LLaVA in the published format, its tower for pictures of ``side`` pixels, opened as a user's is."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        llava(folder)
        config = AutoConfig.from_pretrained(folder)
        config.vision_config.image_size, config.image_seq_length = side, (side // 14) ** 2
        for key, value in {"max_position_embeddings": 4096, **language}.items():
            setattr(config.text_config, key, value)
        config.text_config.head_dim = config.text_config.hidden_size // config.text_config.num_attention_heads
        LlavaForConditionalGeneration(config).save_pretrained(folder)
        path = folder / "preprocessor_config.json"
        images = json.loads(path.read_text()) | {
            "size": {"shortest_edge": side},
            "crop_size": {"height": side, "width": side},
        }
        path.write_text(json.dumps(images))
        return open_vlm(folder)


def photo() -> Photo:
    noise_hw3 = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    return Photo("noise.png", noise_hw3, "What is left of the cup?", (0.1, 0.1, 0.4, 0.4))


def attended(vlm: HookedVLM) -> None:
    """What a script does: keep all attention, and look at its gradient."""
    asked = photo()
    prepared = vlm.prepare([Stimulus(Scene((), 0), asked.question, (), "", {})], [asked.pixels_hw3])
    vlm.model.set_attn_implementation("eager")
    out = vlm.model(**prepared.inputs, output_attentions=True)
    for attention_bhqt in out.attentions:
        attention_bhqt.retain_grad()
    out.logits[0, -1].max().backward()
    maps = [a.grad[0, :, -1] * a[0, :, -1] for a in out.attentions]
    assert len(maps) == len(vlm.roles.layers)


def maps(vlm: HookedVLM) -> None:
    """The same, and rollout, by Blindspot."""
    asked = Asked(vlm, photo())
    attention(asked, lambda: None)
    with attending(vlm.roles.layers, every=False):
        gradient(asked, lambda: None)


def measured(what: str, side: int, language: dict[str, int]) -> dict[str, Any]:
    """Seconds, and MB over what the process had with the model open."""
    torch.set_num_threads(1)
    vlm = opened(side, **language)
    jobs: dict[str, Callable[[], object]] = {
        "peer": lambda: attended(vlm),
        "maps": lambda: maps(vlm),
        "photo": lambda: run_of("photo")(vlm, Budget(photo=photo()), lambda done, of: None),
    }
    job = jobs.get(what, lambda: run_of(what)(vlm, Budget(), lambda done, of: None))
    before, began = peak_mib(), time.process_time()
    job()
    return {
        "what": what,
        "tokens": (side // 14) ** 2,
        "seconds": time.process_time() - began,
        "mb": peak_mib() - before,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("photo", "scenes"))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    asked: list[tuple[str, int, dict[str, int]]] = []
    if given.only != "scenes":
        asked += [("peer", NARROW, DEEP), ("maps", NARROW, DEEP), ("maps", WIDE, DEEP), ("photo", NARROW, {})]
    if given.only != "photo":
        asked += [(name, NARROW, {}) for name in DIAGNOSTICS]
    found = []
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "1000000"  # what is freed goes back at once, and does not count as used
    for one in asked:
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            found.append(pool.submit(measured, *one).result())
        print(found[-1], file=sys.stderr)
    if given.json:
        print(json.dumps(found))
        return
    table = Table("what", "image tokens", "CPU seconds", "MB over the model")
    for row in found:
        table.add_row(row["what"], f"{row['tokens']:,}", f"{row['seconds']:.1f}", f"{row['mb']:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
