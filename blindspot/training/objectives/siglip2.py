"""SigLIP2's objective (Tschannen et al. 2025, sections 2.2-2.4).

Sigmoid loss and captioning decoder with equal weight all along; in the last fifth of the steps also self-distillation
and masked prediction, with weights 1 and 0.25, both multiplied by a factor of model size.
"""

import copy
import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from blindspot.encoders import Encoder, TowerShape, normed_tokens
from blindspot.training.objectives import base
from blindspot.training.objectives.base import CaptionShape, Objective, caption_loss, causal_mask, full_precision
from blindspot.training.objectives.siglip import SigmoidMatching, pooling_head

PARALLEL_PROBABILITY = 0.5
SECOND_PHASE = 0.8
DISTILLATION_WEIGHT = 1.0
MASKED_WEIGHT = 0.25
TEACHER_MOMENTUM = 0.99
MASKED_FRACTION = 0.5
# SigLIP2 uses every image and 8 local views; a quarter of the images and 4 views keep a step short on a CPU.
IMAGE_FRACTION = 0.25
LOCAL_VIEWS = 4
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
        """Scores of every caption token, shape (batch, length, vocabulary), from the words before it.

        Where ``parallel_b`` is true, the words of an example are all predicted at once, from none of them.
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


class SelfDistillation(nn.Module):
    """Teacher, heads and losses of the second phase. The student's tower and pooling head are passed in.

    Self-distillation is SILC's (Naeem et al. 2023), masked prediction is TIPS's (Maninis et al. 2024).

    The teacher exists from the start, so that a checkpoint has the same keys in both phases.
    """

    centre_image_k: Tensor
    centre_patch_k: Tensor

    def __init__(self, tower: PreTrainedModel, pool: nn.Module, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask_d = nn.Parameter(torch.randn(width) * 0.02)
        self.image_head = base.PrototypeHead(width)
        self.patch_head = base.PrototypeHead(width)
        self.teacher = nn.ModuleList(copy.deepcopy(module) for module in self._student(tower, pool))
        self.teacher.requires_grad_(False)
        self.register_buffer("centre_image_k", torch.zeros(base.PROTOTYPES))
        self.register_buffer("centre_patch_k", torch.zeros(base.PROTOTYPES))

    def _student(self, tower: PreTrainedModel, pool: nn.Module) -> tuple[nn.Module, ...]:
        return tower, pool, self.image_head, self.patch_head

    def update_teacher(self, tower: PreTrainedModel, pool: nn.Module, momentum: float = TEACHER_MOMENTUM) -> None:
        """Move the teacher towards the student; momentum 0 copies it."""
        student = (parameter for module in self._student(tower, pool) for parameter in module.parameters())
        base.follow(self.teacher.parameters(), student, momentum)

    def forward(self, tower: PreTrainedModel, pool: nn.Module, pixels_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Self-distillation loss and masked-prediction loss, on augmented views of a part of the batch."""
        images = pixels_bchw[: max(1, int(len(pixels_bchw) * IMAGE_FRACTION))]
        global_views = base.random_views(images, base.GLOBAL_SIDE)
        local_views = base.random_views(images, base.LOCAL_SIDE, LOCAL_VIEWS)
        batch, prefix = len(images), self.encoder.prefix_tokens

        teacher_tower, teacher_pool, teacher_image_head, teacher_patch_head = self.teacher
        with torch.no_grad():
            tokens_bnd = normed_tokens(teacher_tower, self.encoder, global_views)  # pyright: ignore
            patches_bnd = tokens_bnd[:, prefix:]
            teacher_image_bk = teacher_image_head(teacher_pool(tokens_bnd))
            teacher_patch_bnk = teacher_patch_head(patches_bnd)

        count = patches_bnd.shape[1]
        chosen_bm = torch.rand(batch, count, device=images.device).argsort(dim=1)[:, : int(count * MASKED_FRACTION)]
        mask_vn = torch.zeros(batch * (1 + LOCAL_VIEWS), count, dtype=torch.bool, device=images.device)
        mask_vn[:batch].scatter_(1, chosen_bm, True)
        with base.masked_patches(tower, mask_vn, self.mask_d):
            student_vnd = normed_tokens(tower, self.encoder, torch.cat([global_views, local_views]))
        student_image_vk = self.image_head(pool(student_vnd[batch:]))
        rows_b1 = torch.arange(batch, device=images.device)[:, None]
        student_patch_bmk = self.patch_head(student_vnd[:batch, prefix:][rows_b1, chosen_bm])

        with full_precision(images):
            teacher_image_vk = teacher_image_bk.repeat(LOCAL_VIEWS, 1)
            distilled = base.cross_entropies(student_image_vk, teacher_image_vk, self.centre_image_k).mean()
            teacher_patch_bmk = teacher_patch_bnk[rows_b1, chosen_bm]
            masked = base.cross_entropies(student_patch_bmk, teacher_patch_bmk, self.centre_patch_k).mean()
            self.centre_image_k.lerp_(teacher_image_bk.mean(dim=0), 1 - base.CENTRE_MOMENTUM)
            self.centre_patch_k.lerp_(teacher_patch_bnk.mean(dim=(0, 1)), 1 - base.CENTRE_MOMENTUM)
        return distilled, masked


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
