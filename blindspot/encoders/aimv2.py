"""AIMv2 (Fini et al. 2024): RMSNorm, SwiGLU, no CLS, trained autoregressively on pixels and caption."""

from typing import Any

from torch import Tensor
from transformers import Aimv2VisionConfig, Aimv2VisionModel, PreTrainedModel

from blindspot.encoders.base import Encoder, TowerShape, shape_arguments


def _config(shape: TowerShape) -> Aimv2VisionConfig:
    return Aimv2VisionConfig(**shape_arguments(shape), use_head=False)


def _normed_tokens(tower: PreTrainedModel, output: Any) -> Tensor:
    return output.last_hidden_state


AIMV2 = Encoder(
    name="aimv2",
    label="AIMv2",
    prefix_tokens=0,
    mean=(0.48145466, 0.4578275, 0.40821073),  # AIMv2 checkpoints name CLIP's image processor
    std=(0.26862954, 0.26130258, 0.27577711),
    model_class=Aimv2VisionModel,
    vision_config=_config,
    normed_tokens=_normed_tokens,
)
