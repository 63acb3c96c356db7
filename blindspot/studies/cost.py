"""What a stage of an arm costs: tokens, floating-point operations and memory.

Operations are those of the model (2 a multiply-add); recomputing activations is counted apart, so that hours at a
given MFU do not depend on it. N: parameters of a map; s: tokens of a sample; d, L: width and blocks.

- A linear map costs 2N a token forward, and again for each further pass of `passes`: 6N where it trains, 4N where it is
  frozen with something that trains before it, 2N where nothing does.
- Causal attention costs 2 s^2 d L a sample forward (full attention, in the encoder, twice that), and twice as much
  backward whether or not anything in it trains: both factors of its products are activations.
- The head and its loss see supervised tokens only; the encoder runs up to the layer that is read.
"""

from dataclasses import dataclass, fields

from blindspot.errors import UserError
from blindspot.studies.arms import FEATURE_LAYER, STATED, Arm, training_steps
from blindspot.studies.schema import LlavaStage
from blindspot.training.flops import GPUS as KNOWN
from blindspot.training.flops import Gpu, passes

PACK = 4096
"""Tokens of a packed micro-batch on one GPU, for the estimate of activations: the trainer's default."""
CHUNK = 1024
"""Supervised tokens whose logits are in memory at once."""


GPUS = KNOWN[:4]
"""Those that a plan compares."""


@dataclass(frozen=True)
class Counts:
    """What a stage reads.

    Attributes:
        samples: rows, over all epochs.
        images: those that have one.
        image_tokens: tokens of all images.
        text_tokens: the other tokens.
        supervised: those of answers.
        steps: optimiser steps.
    """

    samples: int
    images: int
    image_tokens: int
    text_tokens: int
    supervised: int
    steps: int

    @property
    def tokens(self) -> int:
        """All tokens that enter the language model."""
        return self.image_tokens + self.text_tokens


@dataclass(frozen=True)
class Flops:
    """Operations of a stage, by part; ``recompute`` is what full activation checkpointing adds to their sum."""

    blocks: float
    attention: float
    head: float
    connector: float
    encoder: float
    recompute: float

    @property
    def total(self) -> float:
        """Of the model, without recomputation."""
        return self.blocks + self.attention + self.head + self.connector + self.encoder


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, states sharded over all of them.

    Trained parameters take 16 bytes: 2 + 2 for bf16 weights and gradients, 4 for the fp32 master, 8 for Adam (FSDP2
    keeps fp32 weights and fp32 gradients instead: 4 + 4 + 8). Frozen ones take 2.

    Attributes:
        weights: bf16 weights of all parts.
        gradients: bf16 gradients of what trains.
        master: its fp32 copy.
        adam: its two fp32 moments.
        gathered: two blocks of the language model, unsharded for use; 0 on one GPU.
        activations: of `PACK` tokens, nothing recomputed; an estimate from the tensors that autograd keeps.
        recomputed: likewise, every block recomputed in the backward pass.
    """

    weights: float
    gradients: float
    master: float
    adam: float
    gathered: float
    activations: float
    recomputed: float

    @property
    def states(self) -> float:
        """Everything but activations."""
        return self.weights + self.gradients + self.master + self.adam + self.gathered

    def fits(self, gpu: Gpu) -> str:
        """How the stage runs on a GPU, a tenth of which is left to the allocator: ``none`` recomputed, ``full``, or
        ``no``, it does not run."""
        room = 0.9 * gpu.memory - self.states
        return "none" if room >= self.activations else "full" if room >= self.recomputed else "no"


def counts(arm: Arm, stage: LlavaStage) -> Counts:
    """Samples and tokens of a stage.

    Raises:
        UserError: if the study does not say how large its data are.
    """
    data = stage.data
    if data.rows is None or data.with_image is None or data.text_tokens is None or data.supervised_tokens is None:
        raise UserError(f"{data.file}: how large it is is not said; write {STATED} under data")
    rows, images = data.rows * stage.epochs, data.with_image * stage.epochs
    text, supervised = data.text_tokens * rows, data.supervised_tokens * rows
    return Counts(rows, images, images * arm.image_tokens, text, supervised, training_steps(stage))


def flops(arm: Arm, stage: LlavaStage) -> Flops:
    """Operations of a whole stage."""
    count, language = counts(arm, stage), arm.language_size
    trained, tower = "language_model" in stage.trains, "encoder" in stage.trains
    text = count.text_tokens / count.samples
    squares = count.images * (arm.image_tokens + text) ** 2 + (count.samples - count.images) * text**2
    attention = 2 * squares * language.query * language.layers
    linear = 2 * passes(trained, True)
    encoder = count.images * encoder_forward(arm)
    return Flops(
        blocks=linear * language.blocks * count.tokens,
        attention=3 * attention,
        head=linear * language.head * count.supervised,
        connector=count.images * _connector_forward(arm) * passes("connector" in stage.trains, tower),
        encoder=encoder * passes(tower, False),
        recompute=2 * language.blocks * count.tokens + attention + encoder * tower,
    )


def encoder_forward(arm: Arm) -> float:
    """Operations of the encoder on one image, up to the layer that is read."""
    size, (rows, columns) = arm.encoder_size, arm.grid
    tokens, layers = rows * columns + size.prefix, size.layers + 1 + FEATURE_LAYER
    patches = 2 * rows * columns * 3 * size.patch**2 * size.width
    return layers * (2 * tokens * size.block + 4 * tokens**2 * size.width) + patches


def trained_parameters(arm: Arm, stage: LlavaStage) -> int:
    """Parameters that a stage trains."""
    sizes = parameters(arm)
    return sum(sizes[part] for part in stage.trains)


def parameters(arm: Arm) -> dict[str, int]:
    """Parameters of each part. A connector other than ``linear`` is counted as the two-layer MLP: under 1 % of a 7B."""
    width, language = arm.encoder_size.width, arm.language_size
    linear = (width + 1) * language.width
    second = 0 if arm.point.connector.values["name"] == "linear" else (language.width + 1) * language.width
    return {
        "connector": linear + second,
        "language_model": language.parameters,
        "encoder": arm.encoder_size.parameters,
    }


def memory(arm: Arm, stage: LlavaStage, gpus: int) -> Memory:
    """Memory of a stage on each of some GPUs."""
    count, language, encoder = counts(arm, stage), arm.language_size, arm.encoder_size
    trained = trained_parameters(arm, stage)
    full = "language_model" in stage.trains
    # Kept for the backward pass, in a Llama block: both norms' input (bf16 and fp32) and the gated MLP's branches; the
    # inputs of linear maps only where these train.
    width, attention = language.width, 2 * (2 * language.query + 2 * language.key)
    kept = attention + (12 * width + 6 * language.mlp) + (4 * width + 2 * language.mlp if full else 0)
    logits = CHUNK * language.vocabulary * 6
    images = PACK * count.images / count.tokens if "encoder" in stage.trains else 0
    seen = images * (arm.grid[0] * arm.grid[1] + encoder.prefix)
    tower = seen * 2 * (8 * encoder.width + (4 if encoder.gated else 2) * encoder.mlp)
    return Memory(
        weights=2 * sum(parameters(arm).values()) / gpus,
        gradients=2 * trained / gpus,
        master=4 * trained / gpus,
        adam=8 * trained / gpus,
        gathered=2 * 2 * language.block if gpus > 1 else 0,
        activations=PACK * kept * language.layers + tower * encoder.layers + logits,
        recomputed=PACK * (kept + 2 * width * language.layers)
        + tower
        + seen * 2 * encoder.width * encoder.layers
        + logits,
    )


def plain(value: Flops | Memory | Counts) -> dict[str, float]:
    """The fields of a count as plain numbers, whole ones rounded."""
    return {field.name: round(getattr(value, field.name)) for field in fields(value)}


def _connector_forward(arm: Arm) -> float:
    rows, columns = arm.grid
    return 2 * rows * columns * parameters(arm)["connector"]
