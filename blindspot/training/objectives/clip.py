"""CLIP's objective: softmax over the images and the captions of a batch (Radford et al. 2021, figure 3)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from blindspot.encoders import normed_tokens
from blindspot.training.objectives.base import Objective, full_precision, text_tower

MAX_SCALE = 100.0


def clip_loss(image_be: Tensor, text_be: Tensor, scale: Tensor) -> Tensor:
    """L = (CE(S, diagonal) + CE(S^T, diagonal)) / 2 with S = scale * cosine(image, text).

    Embeddings have any norm, and row i of both belongs together; the scale is exp(t), the inverse temperature.
    """
    logits_bb = scale * F.normalize(image_be, dim=-1) @ F.normalize(text_be, dim=-1).T
    diagonal_b = torch.arange(len(logits_bb), device=logits_bb.device)
    return (F.cross_entropy(logits_bb, diagonal_b) + F.cross_entropy(logits_bb.T, diagonal_b)) / 2


def eos_positions(captions_bl: Tensor, eos_id: int) -> Tensor:
    """Index of the first ``eos_id`` of each caption, which must have one, shape (batch,)."""
    is_eos_bl = captions_bl == eos_id
    if not bool(is_eos_bl.any(dim=1).all()):
        raise ValueError(f"captions: a row has no end token (id {eos_id})")
    return is_eos_bl.int().argmax(dim=1)


class ClipObjective(Objective):
    """CLS -> norm -> linear against the end token of a causal text transformer.

    A tower without CLS is pooled by its mean, so that the objective can be compared on one trunk with the others.
    """

    def build(self) -> None:
        self.text_tower = text_tower(CLIPTextModel, CLIPTextConfig, self.shape, self.captions)
        self.image_projection = nn.Linear(self.shape.width, self.shape.width, bias=False)
        self.text_projection = nn.Linear(self.shape.width, self.shape.width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, pixels_bchw: Tensor, captions_bl: Tensor, step: int) -> dict[str, Tensor]:
        tokens_bnd = normed_tokens(self.tower, self.encoder, pixels_bchw)
        pooled_bd = tokens_bnd[:, 0] if self.encoder.prefix_tokens else tokens_bnd.mean(dim=1)
        # Not the model's own pooling: for the end id 2 it falls back to the largest id of the caption.
        ends_b = eos_positions(captions_bl, self.captions.eos_id)
        states_bld = self.text_tower(input_ids=captions_bl).last_hidden_state
        ends_bd = states_bld[torch.arange(len(ends_b), device=ends_b.device), ends_b]
        image_be, text_be = self.image_projection(pooled_bd), self.text_projection(ends_bd)
        with full_precision(image_be):
            loss = clip_loss(image_be.float(), text_be.float(), self.log_scale.exp())
        return {"loss": loss, "contrastive": loss.detach()}

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        self.log_scale.clamp_(max=math.log(MAX_SCALE))
