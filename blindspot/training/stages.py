"""The stages of an arm: text, encoder, connector, instruct. Each trains one part and saves it.

The text and encoder stages stand in for the pretrained parts that LLaVA starts from; connector and instruct are
LLaVA's two stages.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from blindspot.encoders import Encoder, TowerShape, build_tower
from blindspot.files import CHECKPOINTS
from blindspot.positions import EncoderPositions
from blindspot.training.fit import Recipe, Report, Work, fit
from blindspot.training.loss import AnswerLoss
from blindspot.training.objectives import OBJECTIVES
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.order import Order, shuffled
from blindspot.training.packing import Rows, pack
from blindspot.training.parts import freeze

Pixels = Callable[[np.ndarray], Tensor]
"""Indices of rows (or of captioned images) -> the encoder's input."""


@dataclass(frozen=True)
class Run:
    """Where and how a stage runs.

    Attributes:
        recipe: how long and how fast.
        seed: of initial weights, data order and everything random.
        folder: where log and checkpoint go.
        report: told of every step.
    """

    recipe: Recipe
    seed: int
    folder: Path
    report: Report

    def order(self, samples: int) -> Order:
        """Which of the samples each step sees."""
        return Order(samples, self.recipe.batch, partial(shuffled, samples, self.seed))

    def carry_out(self, work: Work, **probing: Any) -> None:
        """Train to the end, and leave no checkpoint behind."""
        fit(work, self.recipe, self.folder, self.report, **probing)
        shutil.rmtree(self.folder / CHECKPOINTS)


def train_text(config: LlamaConfig, rows: Rows, run: Run) -> LlamaForCausalLM:
    """Train a language model from nothing on turns about scenes in words."""
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    _on_turns(model, rows, None, run)
    return model


def train_encoder(
    encoder: Encoder,
    objective_name: str,
    shape: TowerShape,
    positions: EncoderPositions,
    captions_nl: Tensor,
    caption_shape: CaptionShape,
    pixels: Pixels,
    run: Run,
) -> nn.Module:
    """Train an image encoder from nothing.

    Args:
        encoder: the family.
        objective_name: what to train it for, a key of `OBJECTIVES`; any objective trains any family.
        shape: the size.
        positions: how it knows places.
        captions_nl: a caption of every image.
        caption_shape: what these are.
        pixels: indices of captions -> their images.
        run: where and how.
    """
    tower = build_tower(encoder, shape, positions)
    objective = OBJECTIVES[objective_name].load()(tower, encoder, shape, caption_shape, run.recipe.steps)
    order = run.order(len(captions_nl))

    def loss(step: int) -> Tensor:
        chosen = order(step)
        return objective(pixels(chosen), captions_nl[chosen], step)["loss"]

    run.carry_out(Work(objective, loss, run.seed, objective.after_step))
    return tower


def train_variant(
    model: LlavaForConditionalGeneration,
    frozen: tuple[str, ...],
    rows: Rows,
    pixels: Pixels,
    run: Run,
    probe: Callable[[], dict[str, Any]] | None = None,
    probe_every: int = 0,
) -> None:
    """Train a variant on turns about images: both of LLaVA's stages.

    Args:
        model: the variant.
        frozen: its parts that do not train, of ``vision_tower``, ``multi_modal_projector`` and ``language_model``
            (with its head).
        rows: turns about images.
        pixels: indices of rows -> their images, flat.
        run: where and how.
        probe: see `fit`.
        probe_every: see `fit`.
    """
    freeze(model, frozen)
    _on_turns(model, rows, pixels, run, probe=probe, probe_every=probe_every)


def _on_turns(model: Any, rows: Rows, pixels: Pixels | None, run: Run, **probing: Any) -> None:
    """Train on the answers of turns: the mean of their tokens' losses."""
    order, answers = run.order(len(rows)), AnswerLoss(model, "mask", torch.float32)

    def loss(step: int) -> Tensor:
        chosen = order(step)
        images = {} if pixels is None else {"pixel_values": pixels(chosen)}
        micro = pack(rows, chosen, model.config.pad_token_id, images)
        return answers(micro)[0] / micro.supervised

    run.carry_out(Work(model, loss, run.seed), **probing)
