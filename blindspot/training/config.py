"""What a training run is told."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from blindspot.errors import UserError
from blindspot.training.log import library_of

Part = Literal["vision_tower", "multi_modal_projector", "language_model"]
Stage = Literal["connector", "instruct"]
_POSITIVE = (
    "batch", "lr", "encoder_lr", "epochs", "steps", "clip", "pack_tokens", "row_batch", "shard_size", "save_every",
    "keep",
)  # fmt: skip
_RECIPE = (
    "batch", "lr", "encoder_lr", "frozen", "epochs", "steps", "warmup", "clip", "precision", "loss", "optimiser_states",
    "batching", "row_batch", "seed",
)  # fmt: skip
_SEEDS = 2**32
"""Of these every step and shard has a seed of its own that torch takes."""


@dataclass(frozen=True)
class TrainConfig:
    """How a variant is trained. Defaults are LLaVA-1.5's where it has them (specs: recipe, 3.1).

    Attributes:
        batch: samples of an optimiser step, over all ranks and micro-batches.
        lr: peak learning rate.
        encoder_lr: that of the image encoder, where it trains; None: ``lr``.
        frozen: parts that do not train, as `training.stages.freeze` names them.
        epochs: times that every sample is seen.
        steps: optimiser steps, instead of ``epochs``.
        warmup: share of the steps in which the rate rises.
        clip: the gradient's norm is cut to this.
        precision: ``bf16`` computes in bfloat16, and keeps weights that train, gradients and optimiser in float32.
        loss: what a step minimises. ``tokens``: the mean over the supervised tokens of the global batch.
            ``llava_exact``: the mean over micro-batches of the mean over each one's tokens, as LLaVA's code has it
            under transformers' ``Trainer``: a token among few others counts more, and ``row_batch`` changes the loss.
            For comparison, under ``batching="llava"`` only.
        optimiser_states: ``bf16`` halves the memory of AdamW's two moments, rounded at random; see `optimiser`.
        pack_tokens: most tokens of a micro-batch; what the memory holds. How many micro-batches a step takes follows
            from it, and changes nothing else.
        row_batch: samples of a micro-batch under ``batching="llava"``.
        batching: ``packed``: documents side by side without padding. ``llava``: rows padded to the longest, grouped by
            LLaVA's ``group_by_modality_length``, for comparison.
        attention: see `attention.choose`.
        checkpointing: which activations are computed again in the backward pass: ``none``, all but matrix products
            and attention (``selective``), or those of whole blocks (``full``).
        shard_size: ranks that share one copy of the weights, as the GPUs of a node (HSDP): less traffic between nodes,
            more memory. None: all ranks.
        compile: compile every transformer block.
        save_every: steps between checkpoints.
        keep: checkpoints that are kept.
        seed: of the order of the data, and of dropout where a model has any.
        workers: processes of each rank that read and resize pictures ahead; 0: none, the rank itself.
        tracker: where the log goes besides its file.
    """

    batch: int
    lr: float
    encoder_lr: float | None = None
    frozen: tuple[Part, ...] = ("vision_tower",)
    epochs: float = 1.0
    steps: int | None = None
    warmup: float = 0.03
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "bf16"
    loss: Literal["tokens", "llava_exact"] = "tokens"
    optimiser_states: Literal["fp32", "bf16"] = "fp32"
    pack_tokens: int = 4096
    row_batch: int = 16
    batching: Literal["packed", "llava"] = "packed"
    attention: Literal["auto", "documents", "varlen", "mask"] = "auto"
    checkpointing: Literal["none", "selective", "full"] = "none"
    shard_size: int | None = None
    compile: bool = False
    save_every: int = 500
    keep: int = 2
    seed: int = 42
    workers: int = 4
    tracker: Literal[None, "trackio", "wandb", "tensorboard"] = None

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                known = ", ".join(map(str, get_args(hint)))
                raise UserError(f"{name}: {getattr(self, name)!r} is none of {known}")
        if not set(self.frozen) < set(get_args(Part)):
            known = ", ".join(get_args(Part))
            raise UserError(f"frozen: {', '.join(sorted(self.frozen))}; name one or two of {known}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UserError(f"{name} must be more than 0, got {value}")
        if self.encoder_lr is not None and "vision_tower" in self.frozen:
            raise UserError("encoder_lr is given, but the encoder (vision_tower) is frozen")
        if self.loss == "llava_exact" and self.batching != "llava":
            raise UserError("loss llava_exact depends on LLaVA's micro-batches; give batching llava too")
        if not 0 <= self.warmup < 1 or self.workers < 0:
            raise UserError("warmup is a share of the steps, 0 to 1, and workers a number of processes, 0 or more")
        if not 0 <= self.seed < _SEEDS:
            raise UserError(f"seed must be 0 to {_SEEDS - 1}, got {self.seed}")
        if self.tracker is not None:
            library_of(self.tracker)

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
