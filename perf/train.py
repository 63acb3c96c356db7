"""Questions per second of stage 2 (instruct) against transformers' ``Trainer``, both in this run, one thread each.

    python perf/train.py            under 2 minutes on an idle core; --json for a JSON object, --help for the rest
    python perf/train.py --against ../before        another checkout of Blindspot instead of Trainer

Both train the miniature study's model (arm clip-learned, float32, nothing frozen) from the same weights on the same
questions about the same pictures, about equally many a step. Ours is `train_variant` as the study runs it: all
questions about a picture in one packed row, Muon and AdamW. The peer is ``Trainer`` with
``LlavaForConditionalGeneration``, one question a sequence (tokenised beforehand), a padding collator and fused AdamW.
Before it is measured it tries both attention implementations and several ways to split a step, and keeps the fastest.
That both minimise the same function is checked too: loss and gradient at the same weights on the same questions.
Needs the ``dev`` extra (accelerate).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
import torch
from memory import peak_mib
from peer import run_trainer
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.config import llava_config
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.positions import EncoderPositions
from blindspot.studies.corpus import Corpus, CorpusSize, EncoderView, write_scenes
from blindspot.studies.loading import load_study
from blindspot.training.fit import Recipe
from blindspot.training.loss import AnswerLoss
from blindspot.training.order import Order, shuffled
from blindspot.training.packing import PREFIX, pack
from blindspot.training.stages import Run, train_variant

FAMILY = ENCODERS["clip"]
STUDY = load_study("miniature")
WARM_UP = 5
TRIAL_STEPS = 4
SPLITS = (1, 2, 4)
IGNORED = -100


class Peer(NamedTuple):
    """How the peer computes: attention implementation, batches that it splits a step into, order of questions."""

    attention: str
    splits: int
    sampling: str


def measure_ours(folder: Path, steps: int) -> dict[str, float]:
    """Train on packed rows; the rate over ``steps`` steps after the warm-up."""
    torch.set_num_threads(1)
    corpus, before = Corpus(folder), peak_mib()
    recipe = Recipe(WARM_UP + steps, STUDY.instruct.batch, STUDY.instruct.lr)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as scratch:
        run = Run(recipe, 0, Path(scratch), lambda *_, **__: ends.append(time.perf_counter()))
        train_variant(_model(corpus, "eager"), (), corpus.rows, lambda chosen: _pixels(corpus, chosen), run)
    order = Order(len(corpus.rows), recipe.batch, partial(shuffled, len(corpus.rows), run.seed))
    asked = sum(len(_questions(corpus, int(row))) for step in range(WARM_UP, recipe.steps) for row in order(step))
    return _rates(ends[WARM_UP - 1 :], asked, steps * recipe.batch, before)


def measure_peer(folder: Path, steps: int, peer: Peer, warm_up: int = WARM_UP) -> dict[str, float]:
    """Train with ``Trainer`` on one question a sequence; the rate over ``steps`` steps after the warm-up."""
    torch.set_num_threads(1)
    corpus, before = Corpus(folder), peak_mib()
    questions = [question for row in range(len(corpus.rows)) for question in _questions(corpus, row)]
    batch = len(questions) * STUDY.instruct.batch // len(corpus.rows) // peer.splits
    ends: list[float] = []
    run_trainer(
        _peer_model(corpus, peer.attention),
        questions,
        _collator(corpus),
        lambda: ends.append(time.perf_counter()),
        max_steps=warm_up + steps,
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=peer.splits,
        learning_rate=STUDY.instruct.lr,
        max_grad_norm=1.0,
        train_sampling_strategy=peer.sampling,
    )
    asked = steps * peer.splits * batch
    return _rates(ends[warm_up - 1 :], asked, asked, before)


def measure_checkout(folder: Path, steps: int, checkout: Path) -> dict[str, float]:
    """`measure_ours` with the package of another checkout."""
    code = "import json, sys; from pathlib import Path; from train import measure_ours\n"
    code += "print(json.dumps(measure_ours(Path(sys.argv[1]), int(sys.argv[2]))))"
    path = os.pathsep.join([str(checkout.resolve()), str(Path(__file__).parent)])
    command = [sys.executable, "-c", code, str(folder), str(steps)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def fastest_peer(folder: Path, attentions: tuple[str, ...], sampling: str) -> tuple[Peer, dict[str, float]]:
    """Try every way for a few steps; the best, and the questions per second of each."""
    peers = [Peer(attention, splits, sampling) for attention in attentions for splits in SPLITS]
    rates = {peer: measure_peer(folder, TRIAL_STEPS, peer, warm_up=1)["questions_per_second"] for peer in peers}
    return max(peers, key=rates.__getitem__), {f"{peer.attention}/{peer.splits}": rates[peer] for peer in peers}


def compare_losses(folder: Path) -> dict[str, float]:
    """Loss of one step's questions in both layouts at the same weights, and how far the gradients are apart."""
    torch.set_num_threads(1)
    corpus = Corpus(folder)
    chosen = np.arange(STUDY.instruct.batch)
    questions = [question for row in chosen for question in _questions(corpus, int(row))]
    images = {"pixel_values": _pixels(corpus, chosen)}
    packed, padded = pack(corpus.rows, chosen, corpus.words.pad, images), _collator(corpus)(questions)
    model = _model(corpus, "eager")
    answers = AnswerLoss(model, "turns", torch.float32)
    ours, ours_gradient = _gradient(model, lambda: answers(packed)[0] / packed.supervised)
    peer, peer_gradient = _gradient(model, lambda: model(**padded).loss)
    apart = float((ours_gradient - peer_gradient).norm() / peer_gradient.norm())
    return {"ours": ours, "peer": peer, "difference": ours - peer, "gradient_difference": apart}


def write_corpus(folder: Path, rows: int) -> None:
    """Draw scenes as the study's data step does."""
    image = STUDY.model.image
    size = CorpusSize(
        train=rows, test=24, seed=STUDY.data.seed, side=image, image_tokens=(image // STUDY.model.patch) ** 2, probe=24
    )
    write_scenes(folder, size, lambda step, steps: None)


def _model(corpus: Corpus, attention: str) -> BlindspotForConditionalGeneration:
    """The miniature's model; the same weights every time."""
    sizes, words = STUDY.model, corpus.words
    tower = TowerShape(sizes.width, sizes.encoder_layers, sizes.heads, sizes.mlp, sizes.image, sizes.patch)
    shape = LanguageShape(
        sizes.width, sizes.language_layers, sizes.heads, sizes.mlp, sizes.rotary_base, vocabulary=words.count
    )
    torch.manual_seed(0)
    language = shape.config(words.pad, words.begin, words.end)
    return build_variant(FAMILY, tower, EncoderPositions(), language, words.image, attention)


def _peer_model(corpus: Corpus, attention: str) -> LlavaForConditionalGeneration:
    """The same weights in transformers' own class, whose non-persistent buffers have to be built, not assigned."""
    ours = _model(corpus, attention)
    peer = LlavaForConditionalGeneration(llava_config(ours.config))
    peer.load_state_dict(ours.state_dict())
    peer.set_attn_implementation(attention)
    return peer


def _pixels(corpus: Corpus, rows: np.ndarray) -> Tensor:
    return EncoderView(32, 8)(corpus.images[corpus.row_images[rows].reshape(-1)], FAMILY, None)["pixel_values"]


def _questions(corpus: Corpus, row: int) -> list[dict[str, Any]]:
    """The turns of a packed row, each as a sequence of its own behind the row's prefix."""
    rows = corpus.rows
    span = slice(rows.starts[row], rows.starts[row + 1])
    tokens, turns, supervised = rows.tokens[span], rows.turns[span], rows.supervised[span]
    own = [(turns == PREFIX) | (turns == turn) for turn in range(turns.max() + 1)]
    labels = np.where(supervised, tokens, IGNORED)
    return [{"input_ids": tokens[kept].tolist(), "labels": labels[kept].tolist(), "row": row} for kept in own]


def _collator(corpus: Corpus) -> Callable[[list[dict[str, Any]]], dict[str, Tensor]]:
    def pad(lists: list[list[int]], value: int) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([torch.tensor(one) for one in lists], True, value)

    def collate(questions: list[dict[str, Any]]) -> dict[str, Tensor]:
        tokens = [question["input_ids"] for question in questions]
        return {
            "input_ids": pad(tokens, corpus.words.pad),
            "labels": pad([question["labels"] for question in questions], IGNORED),
            "attention_mask": pad([[1] * len(one) for one in tokens], 0),
            "pixel_values": _pixels(corpus, np.array([question["row"] for question in questions])),
        }

    return collate


def _gradient(model: LlavaForConditionalGeneration, loss: Callable[[], Tensor]) -> tuple[float, Tensor]:
    model.zero_grad()
    value = loss()
    value.backward()
    return value.item(), torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def _rates(ends: list[float], questions: int, sequences: int, before: float) -> dict[str, float]:
    """What was measured between the first and the last of the times at which steps ended."""
    seconds, steps, peak = ends[-1] - ends[0], len(ends) - 1, peak_mib()
    return {
        "questions_per_second": questions / seconds,
        "sequences_per_second": sequences / seconds,
        "milliseconds_per_step": 1000 * seconds / steps,
        "questions_per_step": questions / steps,
        "peak_mib": peak,
        "training_mib": peak - before,
    }


def _alone(work: Callable[..., Any], *arguments: Any) -> Any:
    """Call in a process of its own, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, *arguments).result()


def _show(result: dict[str, Any]) -> None:
    table = Table(title="Stage 2, one thread: median ± half of the range")
    for heading in ("", "Blindspot", "Trainer" if "tried" in result else result["against"], "ratio"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, ratio in result["ratios"].items():
        sides = [[run[name] for run in result[side]] for side in ("ours", "peer")]
        cells = [f"{median(side):,.0f} ± {(max(side) - min(side)) / 2:,.0f}" for side in sides]
        table.add_row(name.replace("_", " "), *cells, f"{ratio:.2f}")
    console = Console(highlight=False)
    console.print(table)
    if "tried" not in result:
        return
    loss, tried = result["loss"], (f"{way} {rate:,.0f}" for way, rate in result["tried"].items())
    console.print(
        f"Trainer: {result['attention']} attention, {result['splits']} batch(es) a step, {result['sampling']}."
    )
    console.print(f"Tried, questions per second: {', '.join(tried)}.")
    console.print(
        f"Loss on the same questions: {loss['ours']:.6f} and {loss['peer']:.6f}, {loss['difference']:.1e} apart;"
    )
    console.print(f"gradients {loss['gradient_difference']:.1e} of their norm apart.")


def main() -> None:
    """Measure, alternating, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30, help="optimiser steps timed in each run (default 30)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default 3)")
    parser.add_argument("--attention", choices=("eager", "sdpa"), help="the peer's (default: the faster)")
    parser.add_argument("--group", action="store_true", help="give the peer batches of questions of like length")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout instead of Trainer")
    parser.add_argument("--json", action="store_true", help="print a JSON object instead of the table")
    options = parser.parse_args()
    if min(options.steps, options.repeats) < 1:
        parser.error("--steps and --repeats should be at least 1")
    result: dict[str, Any] = {"steps": options.steps, "ours": [], "peer": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        _alone(write_corpus, folder, (WARM_UP + options.steps) * STUDY.instruct.batch)
        peer: Callable[[], dict[str, float]]
        if options.against:
            result["against"] = str(options.against)
            peer = partial(measure_checkout, folder, options.steps, options.against)
        else:
            result["loss"] = _alone(compare_losses, folder)
            attentions = (options.attention,) if options.attention else ("eager", "sdpa")
            sampling = "group_by_length" if options.group else "random"
            best, result["tried"] = _alone(fastest_peer, folder, attentions, sampling)
            result |= best._asdict()
            peer = partial(_alone, measure_peer, folder, options.steps, best)
        for _ in range(options.repeats):
            result["ours"].append(_alone(measure_ours, folder, options.steps))
            result["peer"].append(peer())
    result["ratios"] = {
        name: median(run[name] for run in result["ours"]) / median(run[name] for run in result["peer"])
        for name in result["ours"][0]
    }
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        _show(result)


if __name__ == "__main__":
    main()
