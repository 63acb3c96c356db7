"""What encoder objectives share: their interface, captions, views, and a student that imitates a slow teacher."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from blindspot.encoders import Encoder, TowerShape

PROTOTYPES = 256
STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.04
CENTRE_MOMENTUM = 0.9
GLOBAL_SIDE = (0.63, 1.0)  # DINO's global crops cover 40-100 % of the area, its local crops 5-40 %
LOCAL_SIDE = (0.22, 0.63)


@dataclass(frozen=True)
class CaptionShape:
    """What caption tensors look like."""

    vocab_size: int  # number of token ids
    length: int  # tokens of a caption, ``eos_id`` and padding included
    pad_id: int  # fills a caption after its ``eos_id``; never a target of a loss
    eos_id: int  # ends every caption; not ``pad_id``, else the end could not be learnt

    def __post_init__(self) -> None:
        if self.pad_id == self.eos_id:
            raise ValueError(f"captions: pad_id and eos_id are both {self.pad_id}")


class Objective(nn.Module, ABC):
    """A way to pre-train an image encoder from images and captions.

    An objective owns whatever it needs beside the tower (text tower, decoder, teacher); only ``tower`` outlives it.
    All randomness comes from torch's global generator, so a loop that seeds and stores it repeats a run exactly.
    The tower comes with its positions attached; objectives with phases divide the ``total_steps`` of the stage.
    """

    def __init__(
        self, tower: PreTrainedModel, encoder: Encoder, shape: TowerShape, captions: CaptionShape, total_steps: int
    ) -> None:
        super().__init__()
        self.tower, self.encoder, self.shape = tower, encoder, shape
        self.captions, self.total_steps = captions, total_steps
        self.build()

    @abstractmethod
    def build(self) -> None:
        """Make what the objective owns beside the tower."""

    @abstractmethod
    def forward(self, pixels_bchw: Tensor, captions_bl: Tensor, step: int) -> dict[str, Tensor]:
        """Losses of one batch.

        Args:
            pixels_bchw: pixels normalised as the family expects.
            captions_bl: int64 ids, each row ended by ``eos_id`` and then padded with ``pad_id`` to ``length``.
            step: counted from 0.

        Returns:
            ``loss``, the scalar to minimise, and its detached parts by name, all float32.
        """

    def after_step(self, step: int) -> None:
        """Called after the optimiser's step ``step``: teachers and clamps are updated here."""


def full_precision(tensor: Tensor) -> torch.autocast:
    """A context without autocast on the tensor's device: losses are computed in float32."""
    return torch.autocast(tensor.device.type, enabled=False)


def text_tower(kind: Any, config_class: Any, shape: TowerShape, captions: CaptionShape) -> Any:
    """A text transformer of ``kind``, CLIP's or SigLIP's, as wide as the image encoder, of two layers."""
    config = config_class(
        vocab_size=captions.vocab_size,
        hidden_size=shape.width,
        intermediate_size=2 * shape.width,
        num_hidden_layers=2,
        num_attention_heads=shape.heads,
        max_position_embeddings=captions.length,
        pad_token_id=captions.pad_id,
        bos_token_id=None,
        eos_token_id=captions.eos_id,
    )
    config._attn_implementation = "eager"
    return kind(config)


def caption_loss(logits_blv: Tensor, targets_bl: Tensor, pad_id: int) -> Tensor:
    """Mean cross-entropy over the tokens of a batch that are not padding, in nats."""
    with full_precision(logits_blv):
        return F.cross_entropy(logits_blv.flatten(0, 1).float(), targets_bl.flatten(), ignore_index=pad_id)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Additive (length, length) mask, on the device of ``like``: 0 where key <= query, else -inf."""
    return torch.full((length, length), float("-inf"), device=like.device).triu_(1)


def random_views(pixels_bchw: Tensor, side: tuple[float, float], count: int = 1) -> Tensor:
    """``count`` random square crops of every image, resized bilinearly to its size.

    ``side`` is the least and greatest side of a crop, as a fraction of the image's. Crops of image i are rows i, i +
    batch, ...
    """
    repeated = pixels_bchw.repeat(count, 1, 1, 1)
    side_n = side[0] + (side[1] - side[0]) * torch.rand(len(repeated), device=pixels_bchw.device)
    centre_n2 = (1 - side_n)[:, None] * (2 * torch.rand(len(repeated), 2, device=pixels_bchw.device) - 1)
    theta_n23 = torch.cat([torch.diag_embed(side_n[:, None].expand(-1, 2)), centre_n2[:, :, None]], dim=2)
    grid_nhw2 = F.affine_grid(theta_n23, list(repeated.shape), align_corners=False)
    return F.grid_sample(repeated, grid_nhw2.to(repeated.dtype), align_corners=False, padding_mode="border")


@contextmanager
def masked_patches(tower: PreTrainedModel, mask_bn: Tensor, token_d: Tensor) -> Iterator[None]:
    """Within the context, embedded patches where ``mask_bn`` is true are replaced by ``token_d``.

    Positions are added afterwards, so a masked patch still knows its place.
    """

    def replace(module: nn.Module, args: object, embedded: Tensor) -> Tensor:
        token = token_d.to(embedded.dtype)
        if embedded.ndim == 3:  # DINOv2 embeds straight to (batch, patches, width)
            return torch.where(mask_bn[:, :, None], token, embedded)
        mask_b1hw = mask_bn.view(len(mask_bn), 1, *embedded.shape[2:])
        return torch.where(mask_b1hw, token[:, None, None], embedded)

    handle = tower.get_input_embeddings().register_forward_hook(replace)
    try:
        yield
    finally:
        handle.remove()


class PrototypeHead(nn.Module):
    """An MLP, then products of its normalised output with learned prototypes, ``unit`` ones as in DINO; float32."""

    def __init__(self, width: int, unit: bool = False) -> None:
        super().__init__()
        self.unit = unit
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.prototypes = nn.Linear(width, PROTOTYPES, bias=False)

    def forward(self, x_nd: Tensor) -> Tensor:
        read_nd = F.normalize(self.mlp(x_nd), dim=-1)
        if self.unit:
            return F.linear(read_nd, F.normalize(self.prototypes.weight, dim=-1)).float()
        return self.prototypes(read_nd).float()


def cross_entropies(
    student_nk: Tensor, teacher_nk: Tensor, centre_k: Tensor, temperature: float = TEACHER_TEMPERATURE
) -> Tensor:
    """-sum_k softmax((teacher - centre) / temperature)_k log softmax(student / 0.1)_k of every row (Caron et al. 2021).

    The centre is the running mean of the teacher's prototype scores, which keeps it from collapsing to one of them.
    """
    targets_nk = ((teacher_nk - centre_k) / temperature).softmax(dim=-1)
    return -(targets_nk * F.log_softmax(student_nk / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)


@torch.no_grad()
def follow(teacher: Iterable[Tensor], student: Iterable[Tensor], momentum: float) -> None:
    """Move the teacher's weights towards the student's; momentum 0 copies them."""
    for mine, theirs in zip(teacher, student, strict=True):
        mine.lerp_(theirs, 1 - momentum)
