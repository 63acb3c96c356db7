"""SigLIP2's second phase: local views and masked patches imitate a slowly moving teacher.

Self-distillation is SILC's (Naeem et al. 2023), masked prediction is TIPS's (Maninis et al. 2024); both compare
distributions over learned prototypes, as DINO (Caron et al. 2021) and iBOT do.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from blindspot.encoders import Encoder, normed_tokens
from blindspot.training.objectives.base import GLOBAL_SIDE, LOCAL_SIDE, full_precision, random_views

PROTOTYPES = 256
STUDENT_TEMPERATURE = 0.1
TEACHER_TEMPERATURE = 0.04
CENTRE_MOMENTUM = 0.9
TEACHER_MOMENTUM = 0.99
MASKED_FRACTION = 0.5
# SigLIP2 uses every image and 8 local views; a quarter of the images and 4 views keep a step short on a CPU.
IMAGE_FRACTION = 0.25
LOCAL_VIEWS = 4


def distillation_loss(student_nk: Tensor, teacher_nk: Tensor, centre_k: Tensor) -> Tensor:
    """Mean of `cross_entropies` over the rows."""
    return cross_entropies(student_nk, teacher_nk, centre_k).mean()


def cross_entropies(
    student_nk: Tensor, teacher_nk: Tensor, centre_k: Tensor, temperature: float = TEACHER_TEMPERATURE
) -> Tensor:
    """-sum_k softmax((teacher - centre) / temperature)_k log softmax(student / 0.1)_k of every row.

    Args:
        student_nk: student's prototype scores.
        teacher_nk: teacher's scores of the same rows.
        centre_k: running mean of the teacher's scores, which keeps it from collapsing to one prototype.
        temperature: of the teacher.
    """
    targets_nk = ((teacher_nk - centre_k) / temperature).softmax(dim=-1)
    return -(targets_nk * F.log_softmax(student_nk / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)


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
    """An MLP, then products of its normalised output with learned prototypes; float32.

    Args:
        width: of what it reads.
        unit: whether prototypes count as of length 1, as in DINO and DINOv2.
    """

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


class SelfDistillation(nn.Module):
    """Teacher, heads and losses of the second phase. The student's tower and pooling head are passed in.

    The teacher exists from the start, so that a checkpoint has the same keys in both phases.
    """

    centre_image_k: Tensor
    centre_patch_k: Tensor

    def __init__(self, tower: PreTrainedModel, pool: nn.Module, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.mask_d = nn.Parameter(torch.randn(width) * 0.02)
        self.image_head = PrototypeHead(width)
        self.patch_head = PrototypeHead(width)
        self.teacher = nn.ModuleList(copy.deepcopy(module) for module in self._student(tower, pool))
        self.teacher.requires_grad_(False)
        self.register_buffer("centre_image_k", torch.zeros(PROTOTYPES))
        self.register_buffer("centre_patch_k", torch.zeros(PROTOTYPES))

    def _student(self, tower: PreTrainedModel, pool: nn.Module) -> tuple[nn.Module, ...]:
        return tower, pool, self.image_head, self.patch_head

    @torch.no_grad()
    def update_teacher(self, tower: PreTrainedModel, pool: nn.Module, momentum: float = TEACHER_MOMENTUM) -> None:
        """Move the teacher towards the student; momentum 0 copies it."""
        student = [parameter for module in self._student(tower, pool) for parameter in module.parameters()]
        for mine, theirs in zip(self.teacher.parameters(), student, strict=True):
            mine.lerp_(theirs, 1 - momentum)

    def forward(self, tower: PreTrainedModel, pool: nn.Module, pixels_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Self-distillation loss and masked-prediction loss, on augmented views of a part of the batch."""
        images = pixels_bchw[: max(1, int(len(pixels_bchw) * IMAGE_FRACTION))]
        global_views = random_views(images, GLOBAL_SIDE)
        local_views = random_views(images, LOCAL_SIDE, LOCAL_VIEWS)
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
        with masked_patches(tower, mask_vn, self.mask_d):
            student_vnd = normed_tokens(tower, self.encoder, torch.cat([global_views, local_views]))
        student_image_vk = self.image_head(pool(student_vnd[batch:]))
        rows_b1 = torch.arange(batch, device=images.device)[:, None]
        student_patch_bmk = self.patch_head(student_vnd[:batch, prefix:][rows_b1, chosen_bm])

        with full_precision(images):
            distilled = distillation_loss(
                student_image_vk, teacher_image_bk.repeat(LOCAL_VIEWS, 1), self.centre_image_k
            )
            masked = distillation_loss(student_patch_bmk, teacher_patch_bnk[rows_b1, chosen_bm], self.centre_patch_k)
            self.centre_image_k.lerp_(teacher_image_bk.mean(dim=0), 1 - CENTRE_MOMENTUM)
            self.centre_patch_k.lerp_(teacher_patch_bnk.mean(dim=(0, 1)), 1 - CENTRE_MOMENTUM)
        return distilled, masked
