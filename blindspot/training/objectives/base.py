"""What every encoder objective shares: its interface, and the pieces of loss that more than one of them uses."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from blindspot.encoders import Encoder, TowerShape

GLOBAL_SIDE = (0.63, 1.0)  # DINO's global crops cover 40-100 % of the area, its local crops 5-40 %
LOCAL_SIDE = (0.22, 0.63)


@dataclass(frozen=True)
class CaptionShape:
    """What caption tensors look like.

    Attributes:
        vocab_size: number of token ids.
        length: tokens of a caption, ``eos_id`` and padding included.
        pad_id: fills a caption after its ``eos_id``; never a target of a loss.
        eos_id: ends every caption.

    Raises:
        ValueError: if padding and end share an id: the end could then not be learnt.
    """

    vocab_size: int
    length: int
    pad_id: int
    eos_id: int

    def __post_init__(self) -> None:
        if self.pad_id == self.eos_id:
            raise ValueError(f"captions: pad_id and eos_id are both {self.pad_id}")


class Objective(nn.Module, ABC):
    """A way to pre-train an image encoder from images and captions.

    An objective owns whatever it needs beside the tower (text tower, decoder, teacher); only ``tower`` outlives it.
    All randomness comes from torch's global generator, so a loop that seeds and stores it repeats a run exactly.

    Args:
        tower: the encoder to train, with its positions attached.
        encoder: its family.
        shape: its size.
        captions: what the caption tensors look like.
        total_steps: steps of the whole stage; objectives with phases divide it.
    """

    def __init__(
        self, tower: PreTrainedModel, encoder: Encoder, shape: TowerShape, captions: CaptionShape, total_steps: int
    ) -> None:
        super().__init__()
        self.tower = tower
        self.encoder = encoder
        self.shape = shape
        self.captions = captions
        self.total_steps = total_steps
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


def eos_positions(captions_bl: Tensor, eos_id: int) -> Tensor:
    """Index of the first ``eos_id`` of each caption, shape (batch,).

    Raises:
        ValueError: if a caption has none.
    """
    is_eos_bl = captions_bl == eos_id
    if not bool(is_eos_bl.any(dim=1).all()):
        raise ValueError(f"captions: a row has no end token (id {eos_id})")
    return is_eos_bl.int().argmax(dim=1)


def caption_loss(logits_blv: Tensor, targets_bl: Tensor, pad_id: int) -> Tensor:
    """Mean cross-entropy over the tokens of a batch that are not padding, in nats."""
    with full_precision(logits_blv):
        return F.cross_entropy(logits_blv.flatten(0, 1).float(), targets_bl.flatten(), ignore_index=pad_id)


def causal_mask(length: int, like: Tensor) -> Tensor:
    """Additive (length, length) mask, on the device of ``like``: 0 where key <= query, else -inf."""
    return torch.full((length, length), float("-inf"), device=like.device).triu_(1)


def random_views(pixels_bchw: Tensor, side: tuple[float, float], count: int = 1) -> Tensor:
    """``count`` random square crops of every image, resized bilinearly to the image's size.

    Args:
        pixels_bchw: images.
        side: least and greatest side of a crop, as a fraction of the image's side.
        count: crops per image.

    Returns:
        Shape (count * batch, channels, height, width); the crops of image i are rows i, i + batch, ...
    """
    repeated = pixels_bchw.repeat(count, 1, 1, 1)
    side_n = side[0] + (side[1] - side[0]) * torch.rand(len(repeated), device=pixels_bchw.device)
    centre_n2 = (1 - side_n)[:, None] * (2 * torch.rand(len(repeated), 2, device=pixels_bchw.device) - 1)
    theta_n23 = torch.cat([torch.diag_embed(side_n[:, None].expand(-1, 2)), centre_n2[:, :, None]], dim=2)
    grid_nhw2 = F.affine_grid(theta_n23, list(repeated.shape), align_corners=False)
    return F.grid_sample(repeated, grid_nhw2.to(repeated.dtype), align_corners=False, padding_mode="border")
