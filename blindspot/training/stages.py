"""The stages of an arm: text, encoder, connector, instruct. Each trains one part and saves it.

The text and encoder stages stand in for the pretrained parts that LLaVA starts from; connector and instruct are
LLaVA's two stages.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlavaForConditionalGeneration

from blindspot.encoders import Encoder, TowerShape, build_tower
from blindspot.files import write_via
from blindspot.positions import EncoderPositions
from blindspot.training.loop import Order, Recipe, Report, fit
from blindspot.training.objectives import OBJECTIVES
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.packing import Rows, answer_loss, pack

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


def train_text(config: LlamaConfig, rows: Rows, run: Run) -> LlamaForCausalLM:
    """Train a language model from nothing on turns about scenes in words."""
    config._attn_implementation = "eager"
    model = LlamaForCausalLM(config)
    order = Order(len(rows), run.recipe.batch, run.seed)
    pad = _pad(config)
    fit(
        model,
        lambda step: answer_loss(model, pack(rows, order(step), pad)),
        run.recipe,
        run.seed,
        run.folder,
        run.report,
    )
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
    order = Order(len(captions_nl), run.recipe.batch, run.seed)

    def loss(step: int) -> Tensor:
        chosen = order(step)
        return objective(pixels(chosen), captions_nl[chosen], step)["loss"]

    fit(objective, loss, run.recipe, run.seed, run.folder, run.report, after_step=objective.after_step)
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
    order = Order(len(rows), run.recipe.batch, run.seed)
    pad = _pad(model.config)

    def loss(step: int) -> Tensor:
        chosen = order(step)
        return answer_loss(model, pack(rows, chosen, pad), pixels(chosen))

    fit(model, loss, run.recipe, run.seed, run.folder, run.report, probe=probe, probe_every=probe_every)


def freeze(model: LlavaForConditionalGeneration, parts: tuple[str, ...]) -> None:
    """Stop the named parts from training. A position table that rotary positions replaced is frozen already."""
    for part in parts:
        getattr(model.model, part).requires_grad_(False)
    if "language_model" in parts:
        model.lm_head.requires_grad_(False)


def save_weights(module: nn.Module, path: Path, without: Sequence[str] = ()) -> None:
    """Write a module's weights as safetensors, atomically; those of the parts named ``without`` are left out."""
    state = {name: tensor.contiguous() for name, tensor in module.state_dict().items() if not _in(name, without)}
    write_via(path, lambda temporary: save_file(state, temporary))


def load_weights(module: nn.Module, path: Path, without: Sequence[str] = ()) -> None:
    """Read what `save_weights` wrote; every key must fit."""
    kept = {name: tensor for name, tensor in module.state_dict().items() if _in(name, without)}
    module.load_state_dict({**kept, **load_file(path)})


def _in(name: str, parts: Sequence[str]) -> bool:
    return name.split(".")[0] in parts


def _pad(config: Any) -> int:
    assert isinstance(config.pad_token_id, int)
    return config.pad_token_id
