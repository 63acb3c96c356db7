"""CLIP (Radford et al. 2021): a ViT with a CLS token, trained with a softmax contrastive loss."""

from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from blindspot.encoders.base import Encoder, TowerShape, shape_arguments


def _config(shape: TowerShape) -> CLIPVisionConfig:
    return CLIPVisionConfig(**shape_arguments(shape))


def _normed_tokens(tower: Any, output: Any) -> Tensor:
    return tower.post_layernorm(output.last_hidden_state)  # CLIPVisionModel itself norms the CLS token only


CLIP = Encoder(
    name="clip",
    label="CLIP",
    prefix_tokens=1,
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
    model_class=CLIPVisionModel,
    vision_config=_config,
    normed_tokens=_normed_tokens,
)
