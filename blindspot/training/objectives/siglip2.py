"""SigLIP2's objective (Tschannen et al. 2025, sections 2.2-2.4).

Sigmoid loss and captioning decoder with equal weight all along; in the last fifth of the steps also self-distillation
and masked prediction, with weights 1 and 0.25, both multiplied by a factor of model size.
"""

import math

import torch
from torch import Tensor, nn

from blindspot.encoders import TowerShape, normed_tokens
from blindspot.training.objectives.base import CaptionShape, Objective, caption_loss, causal_mask
from blindspot.training.objectives.distillation import SelfDistillation
from blindspot.training.objectives.siglip import SigmoidMatching, pooling_head

PARALLEL_PROBABILITY = 0.5
SECOND_PHASE = 0.8
DISTILLATION_WEIGHT = 1.0
MASKED_WEIGHT = 0.25
SIZE_FACTOR = 0.25  # the paper's for B, the smallest it trains (0.5 for L, 1 for So400m)


class _Attention(nn.Module):
    """Multi-head attention of x over a context, written out because SDPA's backward is slow on a CPU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x_bld: Tensor, context_bnd: Tensor, mask: Tensor | None = None) -> Tensor:
        split = (self.heads, x_bld.shape[-1] // self.heads)
        q_bhld = self.query(x_bld).unflatten(-1, split).transpose(1, 2)
        k_bnd, v_bnd = self.key_value(context_bnd).chunk(2, dim=-1)
        k_bhdn = k_bnd.unflatten(-1, split).permute(0, 2, 3, 1)
        v_bhnd = v_bnd.unflatten(-1, split).transpose(1, 2)
        scores_bhln = (q_bhld * split[1] ** -0.5) @ k_bhdn
        if mask is not None:
            scores_bhln = scores_bhln + mask
        weights_bhln = scores_bhln.float().softmax(dim=-1).to(v_bhnd.dtype)
        return self.out((weights_bhln @ v_bhnd).transpose(1, 2).flatten(2))


class Captioner(nn.Module):
    """One block that reads un-pooled image tokens (LocCa, Wan et al. 2024): the caption word by word or all at once.

    Per example, with probability one half, the inputs are all mask tokens and attention is not causal (CapPa's
    parallel prediction); otherwise the caption is shifted right and attention is causal. Half the layers of the text
    tower. LocCa's two further targets, boxes for region text and text for boxes, are left out: captions of the
    default study say nothing about places.
    """

    def __init__(self, shape: TowerShape, captions: CaptionShape) -> None:
        super().__init__()
        width = shape.width
        self.pad_id = captions.pad_id
        self.embedding = nn.Embedding(captions.vocab_size, width)
        self.positions_ld = nn.Parameter(torch.randn(captions.length, width) * 0.02)
        self.start_d = nn.Parameter(torch.randn(width) * 0.02)
        self.mask_d = nn.Parameter(torch.randn(width) * 0.02)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.self_attention = _Attention(width, shape.heads)
        self.cross_attention = _Attention(width, shape.heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU("tanh"), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, captions.vocab_size)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, image_bnd: Tensor, captions_bl: Tensor) -> Tensor:
        """Mean cross-entropy of the captions given the image tokens."""
        parallel_b = torch.rand(len(captions_bl), device=captions_bl.device) < PARALLEL_PROBABILITY
        return caption_loss(self.logits(image_bnd, captions_bl, parallel_b), captions_bl, self.pad_id)

    def logits(self, image_bnd: Tensor, captions_bl: Tensor, parallel_b: Tensor) -> Tensor:
        """Scores of every caption token, shape (batch, length, vocabulary).

        Args:
            image_bnd: un-pooled image tokens.
            captions_bl: captions; word l is predicted from the words before it, or from none of them.
            parallel_b: true for the examples whose words are all predicted at once.
        """
        length = captions_bl.shape[1]
        parallel_b11 = parallel_b[:, None, None]
        shifted_bld = torch.cat(
            [self.start_d.expand(len(captions_bl), 1, -1), self.embedding(captions_bl[:, :-1])], dim=1
        )
        x_bld = torch.where(parallel_b11, self.mask_d, shifted_bld) + self.positions_ld[:length]
        mask_b1ll = torch.where(parallel_b11[:, None], 0.0, causal_mask(length, image_bnd))

        normed_bld = self.norms[0](x_bld)
        x_bld = x_bld + self.self_attention(normed_bld, normed_bld, mask_b1ll)
        x_bld = x_bld + self.cross_attention(self.norms[1](x_bld), image_bnd)
        x_bld = x_bld + self.mlp(self.norms[2](x_bld))
        return self.head(self.norms[3](x_bld))


class Siglip2Objective(Objective):
    """SigLIP, plus a captioner that reads un-pooled tokens, plus a second phase with a teacher."""

    def build(self) -> None:
        self.second_phase_start = math.ceil(SECOND_PHASE * self.total_steps)
        self.pool = pooling_head(self.shape)
        self.matching = SigmoidMatching(self.shape, self.captions)
        self.captioner = Captioner(self.shape, self.captions)
        self.distillation = SelfDistillation(self.tower, self.pool, self.encoder, self.shape.width)

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
