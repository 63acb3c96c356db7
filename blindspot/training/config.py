"""What a training run is told."""

import math
from dataclasses import asdict
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from blindspot.errors import UserError
from blindspot.training.tracker import Tracker

Stage = Literal["connector", "instruct"]
_RECIPE = (
    "batch", "lr", "encoder_lr", "frozen", "epochs", "steps", "warmup", "clip", "precision", "loss", "optimiser_states",
    "batching", "row_batch", "seed",
)  # fmt: skip


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class TrainConfig:
    """How a variant is trained. Defaults are LLaVA-1.5's where it has them (specs: recipe, 3.1)."""

    batch: PositiveInt  # samples of an optimiser step, over all ranks and micro-batches
    lr: PositiveFloat  # peak learning rate
    encoder_lr: PositiveFloat | None = None  # that of the image encoder, where it trains; None: ``lr``
    frozen: Annotated[
        tuple[Literal["vision_tower", "multi_modal_projector", "language_model"], ...], Field(max_length=2)
    ] = ("vision_tower",)
    """Parts that do not train, as `parts.freeze` names them: two at most."""
    epochs: PositiveFloat = 1.0  # times that every sample is seen
    steps: PositiveInt | None = None  # optimiser steps, instead of ``epochs``
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.03  # share of the steps in which the rate rises
    clip: PositiveFloat = 1.0  # the gradient's norm is cut to this
    precision: Literal["fp32", "bf16"] = "bf16"
    """``bf16`` computes in bfloat16, and keeps weights that train, gradients and optimiser in float32."""
    loss: Literal["tokens", "llava_exact"] = "tokens"
    """What a step minimises. ``tokens``: the mean over the supervised tokens of the global batch. ``llava_exact``: the
    mean over micro-batches of the mean over each one's tokens, as LLaVA's code has it under transformers' ``Trainer``:
    a token among few others counts more, and ``row_batch`` changes the loss. For comparison, under ``batching="llava"``
    only."""
    optimiser_states: Literal["fp32", "bf16"] = "fp32"
    """``bf16`` halves the memory of AdamW's two moments, rounded at random; see `HalfAdamW`."""
    pack_tokens: PositiveInt = 4096
    """Most tokens of a micro-batch; what the memory holds. How many micro-batches a step takes follows from it, and
    changes nothing else."""
    row_batch: PositiveInt = 16  # samples of a micro-batch under ``batching="llava"``
    batching: Literal["packed", "llava"] = "packed"
    """``packed``: documents side by side without padding. ``llava``: rows padded to the longest, grouped by LLaVA's
    ``group_by_modality_length``, for comparison."""
    attention: Literal["auto", "documents", "varlen", "mask"] = "auto"  # see `loss.choose_attention`
    checkpointing: Literal["none", "selective", "full"] = "none"
    """Which activations are computed again in the backward pass: ``none``, all but matrix products and attention
    (``selective``), or those of whole blocks (``full``)."""
    shard_size: PositiveInt | None = None
    """Ranks that share one copy of the weights, as the GPUs of a node (HSDP): less traffic between nodes, more memory.
    None: all ranks."""
    compile: bool = False  # compile every transformer block
    save_every: PositiveInt = 500  # steps between checkpoints
    keep: PositiveInt = 2  # checkpoints that are kept
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 42  # every step and shard has one of its own, that torch takes
    """Of the order of the data, and of dropout where a model has any."""
    workers: NonNegativeInt = 4  # processes of each rank that read and resize pictures ahead; 0: none, the rank itself
    tracker: Tracker | None = None  # where the log goes besides its file

    @model_validator(mode="wrap")
    @classmethod
    def _one_line(cls, values: Any, handler: Any) -> Self:
        try:
            config = handler(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise UserError(f"{first['loc'][0]}: {first['msg']}, got {first['input']!r}") from None
        if config.encoder_lr is not None and "vision_tower" in config.frozen:
            raise UserError("encoder_lr is given, but the encoder (vision_tower) is frozen")
        if config.loss == "llava_exact" and config.batching != "llava":
            raise UserError("loss llava_exact depends on LLaVA's micro-batches; give batching llava too")
        return config

    def total_steps(self, samples: int) -> int:
        """Optimiser steps over this many samples; the last may be of fewer samples."""
        return self.steps or math.ceil(samples * self.epochs / self.batch)

    def recipe(self) -> dict[str, Any]:
        """The fields that a run must keep when it is continued: those that change its result beyond rounding."""
        values = asdict(self)
        return {name: list(values[name]) if name == "frozen" else values[name] for name in _RECIPE}


def stage_config(stage: Stage, **overrides: Any) -> TrainConfig:
    """LLaVA-1.5's recipe of a stage (specs: recipe, 3.1), with what is overridden."""
    recipes: dict[str, dict[str, Any]] = {
        "connector": {"batch": 256, "lr": 1e-3, "frozen": ("vision_tower", "language_model")},
        "instruct": {"batch": 128, "lr": 2e-5, "frozen": ("vision_tower",)},
    }
    if stage not in recipes:
        raise UserError(f"unknown stage {stage!r}; it is connector or instruct")
    return TrainConfig(**{**recipes[stage], **overrides})
