"""The stages of a toy arm: text, encoder, connector, instruct. Each trains one part.

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
from transformers import LlamaConfig, LlamaForCausalLM

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

    def train(
        self,
        module: nn.Module,
        samples: int,
        loss: Callable[[int, np.ndarray], Tensor],
        after_step: Callable[[int], None] = lambda step: None,
        **probing: Any,
    ) -> None:
        """Minimise the loss of a step and of the samples that it sees, to the end; no checkpoint is left behind."""
        order = Order(samples, self.recipe.batch, partial(shuffled, samples, self.seed))
        work = Work(module, lambda step: loss(step, order(step)), self.seed, after_step)
        fit(work, self.recipe, self.folder, self.report, **probing)
        shutil.rmtree(self.folder / CHECKPOINTS)


def train_text(config: LlamaConfig, rows: Rows, run: Run) -> LlamaForCausalLM:
    """Train a language model from nothing on turns about scenes in words."""
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    train_variant(model, (), rows, None, run)
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

    def loss(step: int, chosen: np.ndarray) -> Tensor:
        return objective(pixels(chosen), captions_nl[chosen], step)["loss"]

    run.train(objective, len(captions_nl), loss, objective.after_step)
    return tower


def train_variant(
    model: Any,
    frozen: tuple[str, ...],
    rows: Rows,
    pixels: Pixels | None,
    run: Run,
    probe: Callable[[], dict[str, Any]] | None = None,
    probe_every: int = 0,
) -> None:
    """Train a model on turns, the mean of the losses of their answers' tokens: both of LLaVA's stages, and text.

    Args:
        model: a variant, or a language model.
        frozen: its parts that do not train, see `freeze`.
        rows: turns about images, or about scenes in words.
        pixels: indices of rows -> their images, flat; None: there are none.
        run: where and how.
        probe, probe_every: see `fit`.
    """
    freeze(model, frozen)
    answers = AnswerLoss(model, "mask", torch.float32)

    def loss(step: int, chosen: np.ndarray) -> Tensor:
        images = {} if pixels is None else {"pixel_values": pixels(chosen)}
        micro = pack(rows, chosen, model.config.pad_token_id, images)
        return answers(micro)[0] / micro.supervised

    run.train(model, len(rows), loss, probe=probe, probe_every=probe_every)
