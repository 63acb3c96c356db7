"""The stages of a toy arm: text, encoder, connector, instruct. Each trains one part.

The text and encoder stages stand in for the pretrained parts that LLaVA starts from; connector and instruct are
LLaVA's two stages.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from blindspot.encoders import Encoder, TowerShape, build_tower
from blindspot.errors import UserError
from blindspot.files import CHECKPOINTS, LEVELLED, LOG, read_jsonl, write_json
from blindspot.positions import EncoderPositions
from blindspot.training import turns
from blindspot.training.fit import Probing, Recipe, Report, Work, fit
from blindspot.training.log import LEVEL, last_fall
from blindspot.training.loss import AnswerLoss
from blindspot.training.objectives import OBJECTIVES
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.objectives.blip2 import QFormerObjective
from blindspot.training.order import Order, shuffled
from blindspot.training.packing import Rows, pack
from blindspot.training.parts import freeze
from blindspot.training.tracker import Tracker

Pixels = Callable[[np.ndarray], dict[str, Tensor]]
"""Indices of rows (or of captioned images) -> the encoder's input, by the model's names."""


@dataclass(frozen=True)
class Run:
    """Where and how a stage runs."""

    recipe: Recipe
    seed: int  # of initial weights, data order and everything random
    folder: Path  # where log and checkpoint go
    report: Report
    tracker: Tracker | None = None  # where the log goes besides its file
    if_falling: Literal["note", "stop"] | None = None
    """What becomes of a loss that is not level at the end (`last_fall`): it is noted, or an error. None for a stage
    that has a budget of steps whatever its loss does."""

    def train(
        self,
        module: nn.Module,
        samples: int,
        loss: Callable[[int, np.ndarray], Tensor],
        after_step: Callable[[int], None] = lambda step: None,
        probe: Probing | None = None,
    ) -> None:
        """Minimise the loss of a step and of the samples that it sees, to the end; no checkpoint is left behind."""
        order = Order(samples, self.recipe.batch, partial(shuffled, samples, self.seed))
        work = Work(module, lambda step: loss(step, order(step)), self.seed, after_step)
        fit(work, self.recipe, self.folder, self.report, probe=probe, tracker=self.tracker)
        if self.if_falling is not None:
            self._see_level()
        shutil.rmtree(self.folder / CHECKPOINTS)

    def _see_level(self) -> None:
        losses = [row["loss"] for row in read_jsonl(self.folder / LOG)]
        fell = last_fall(losses)
        if self.if_falling == "stop" and fell > LEVEL:
            raise UserError(
                f"after {self.recipe.steps} steps the loss still falls, from {losses[0]:.3g} to {losses[-1]:.3g} and "
                f"by {fell:.1%} of that in the last fifth of its log ({LEVEL:.0%} is level): raise the stage's steps, "
                "or say if_falling: note"
            )
        write_json(self.folder / LEVELLED, {"fell": round(fell, 6), "level": fell <= LEVEL})


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
    """Train an image encoder from nothing, for any of `OBJECTIVES`, on a caption of every image."""
    tower = build_tower(encoder, shape, positions)
    objective = OBJECTIVES[objective_name].load()(tower, encoder, shape, caption_shape, run.recipe.steps)

    def loss(step: int, chosen: np.ndarray) -> Tensor:
        seen = tuple(pixels(chosen).values())
        return objective(seen[0] if len(seen) == 1 else seen, captions_nl[chosen], step)["loss"]

    run.train(objective, len(captions_nl), loss, objective.after_step)
    return tower


def train_qformer(
    connector: Any,
    captions_nl: Tensor,
    caption_shape: CaptionShape,
    patches: Callable[[np.ndarray], Tensor],
    run: Run,
) -> None:
    """Train a Q-Former by BLIP-2's own losses; ``patches``: indices of captions -> features of their images."""
    objective = QFormerObjective(connector, caption_shape)

    def loss(step: int, chosen: np.ndarray) -> Tensor:
        return objective(patches(chosen), captions_nl[chosen])["loss"]

    run.train(objective, len(captions_nl), loss)


def train_variant(
    model: Any,
    frozen: tuple[str, ...],
    rows: Rows,
    pixels: Pixels | None,
    run: Run,
    probe: Probing | None = None,
) -> None:
    """Train a model on turns, the mean of the losses of their answers' tokens: both of LLaVA's stages, and text.

    Args:
        model: a variant, or a language model; its ``frozen`` parts do not train, see `freeze`.
        rows: turns about images, or about scenes in words.
        pixels: of the rows' images, flat; None: there are none.
    """
    freeze(model, frozen)
    language_model = getattr(model.model, "language_model", model.model)
    answers = AnswerLoss(model, "turns" if turns.takes(language_model) else "mask", torch.float32)

    def loss(step: int, chosen: np.ndarray) -> Tensor:
        images = {} if pixels is None else pixels(chosen)
        micro = pack(rows, chosen, model.config.pad_token_id, images)
        return answers(micro)[0] / micro.supervised

    run.train(model, len(rows), loss, probe=probe)
