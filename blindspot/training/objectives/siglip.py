"""SigLIP's objective: every image-caption pair is a yes/no question (Zhai et al. 2023, algorithm 1)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SiglipTextConfig, SiglipTextModel
from transformers.models.siglip.modeling_siglip import SiglipMultiheadAttentionPoolingHead

from blindspot.encoders import TowerShape, normed_tokens
from blindspot.encoders.siglip import SIGLIP
from blindspot.training.objectives.base import CaptionShape, Objective, full_precision, text_tower


def siglip_loss(image_be: Tensor, text_be: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """L = -(1/B) sum_ij log sigmoid(y_ij S_ij), S = scale * cosine + bias, y = 1 on the diagonal and -1 off it.

    The sum over all B^2 pairs is divided by B, not by B^2. Embeddings have any norm, and row i of both belongs
    together; the scale is exp(t).
    """
    logits_bb = scale * F.normalize(image_be, dim=-1) @ F.normalize(text_be, dim=-1).T + bias
    signs_bb = 2 * torch.eye(len(logits_bb), device=logits_bb.device) - 1
    return -F.logsigmoid(signs_bb * logits_bb).sum() / len(logits_bb)


def pooling_head(shape: TowerShape) -> SiglipMultiheadAttentionPoolingHead:
    """MAP head: one learned probe attends to all tokens, then x + MLP(LN(x))."""
    config: Any = SIGLIP.vision_config(shape)
    head = SiglipMultiheadAttentionPoolingHead(config)
    nn.init.xavier_uniform_(head.probe)
    return head


class SigmoidMatching(nn.Module):
    """Text tower, temperature and bias of the sigmoid loss; shared by SigLIP and SigLIP2."""

    def __init__(self, shape: TowerShape, captions: CaptionShape) -> None:
        super().__init__()
        self.text_tower = text_tower(SiglipTextModel, SiglipTextConfig, shape, captions)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def forward(self, image_bd: Tensor, captions_bl: Tensor) -> Tensor:
        """The text tower sees padding and pools the last position, as SigLIP's own does."""
        text_bd = self.text_tower(input_ids=captions_bl).pooler_output
        with full_precision(image_bd):
            return siglip_loss(image_bd.float(), text_bd.float(), self.log_scale.exp(), self.bias)


class SiglipObjective(Objective):
    """MAP-pooled patches against the last token of a non-causal text transformer."""

    def build(self) -> None:
        self.pool = pooling_head(self.shape)
        self.matching = SigmoidMatching(self.shape, self.captions)

    def forward(self, pixels_bchw: Tensor, captions_bl: Tensor, step: int) -> dict[str, Tensor]:
        loss = self.matching(self.pool(normed_tokens(self.tower, self.encoder, pixels_bchw)), captions_bl)
        return {"loss": loss, "sigmoid": loss.detach()}
