"""SigLIP (Zhai et al. 2023): a ViT without CLS, trained with a pairwise sigmoid loss."""

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, SiglipVisionConfig, SiglipVisionModel

from blindspot.encoders.base import Encoder, TowerShape, shape_arguments


def vision_config(shape: TowerShape) -> SiglipVisionConfig:
    """The tower without its attention-pooling head, which belongs to the objective."""
    return SiglipVisionConfig(**shape_arguments(shape), vision_use_head=False)


def normed_tokens(tower: PreTrainedModel, output: Any) -> Tensor:
    """SiglipVisionModel's own output is already normed."""
    return output.last_hidden_state


SIGLIP = Encoder(
    name="siglip",
    label="SigLIP",
    prefix_tokens=0,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    model_class=SiglipVisionModel,
    vision_config=vision_config,
    normed_tokens=normed_tokens,
)
