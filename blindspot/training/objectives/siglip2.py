"""SigLIP2's objective (Tschannen et al. 2025, sections 2.2-2.4).

Sigmoid loss and captioning decoder with equal weight all along; in the last fifth of the steps also self-distillation
and masked prediction, with weights 1 and 0.25, both multiplied by a factor of model size.
"""

import math

from torch import Tensor
from transformers import PreTrainedModel

from blindspot.encoders import Encoder, TowerShape, normed_tokens
from blindspot.training.objectives.base import CaptionShape, Objective
from blindspot.training.objectives.captioner import Captioner
from blindspot.training.objectives.distillation import SelfDistillation
from blindspot.training.objectives.siglip import SigmoidMatching, pooling_head

SECOND_PHASE = 0.8
DISTILLATION_WEIGHT = 1.0
MASKED_WEIGHT = 0.25
SIZE_FACTOR = 0.25  # the paper's for B, the smallest it trains (0.5 for L, 1 for So400m)


class Siglip2Objective(Objective):
    """SigLIP, plus a captioner that reads un-pooled tokens, plus a second phase with a teacher."""

    def __init__(
        self, tower: PreTrainedModel, encoder: Encoder, shape: TowerShape, captions: CaptionShape, total_steps: int
    ) -> None:
        super().__init__(tower, encoder, shape, captions, total_steps)
        self.second_phase_start = math.ceil(SECOND_PHASE * total_steps)
        self.pool = pooling_head(shape)
        self.matching = SigmoidMatching(shape, captions)
        self.captioner = Captioner(shape, captions)
        self.distillation = SelfDistillation(tower, self.pool, encoder, shape.width)

    def forward(self, pixels_bchw: Tensor, captions_bl: Tensor, step: int) -> dict[str, Tensor]:
        tokens_bnd = normed_tokens(self.tower, self.encoder, pixels_bchw)
        sigmoid = self.matching(self.pool(tokens_bnd), captions_bl)
        caption = self.captioner(tokens_bnd[:, self.encoder.prefix_tokens :], captions_bl)
        loss = sigmoid + caption
        parts = {"sigmoid": sigmoid.detach(), "caption": caption.detach()}
        if step >= self.second_phase_start:
            if step == self.second_phase_start:
                self.distillation.update_teacher(self.tower, self.pool, momentum=0.0)
            distilled, masked = self.distillation(self.tower, self.pool, pixels_bchw)
            loss = loss + SIZE_FACTOR * (DISTILLATION_WEIGHT * distilled + MASKED_WEIGHT * masked)
            parts |= {"distillation": distilled.detach(), "masked": masked.detach()}
        return {"loss": loss} | parts

    def after_step(self, step: int) -> None:
        if step >= self.second_phase_start:
            self.distillation.update_teacher(self.tower, self.pool)
