"""DINOv2's objective (Oquab et al. 2024): views and masked patches imitate a slowly moving teacher. No captions.

DINO (Caron et al. 2021) compares whole images over crops, iBOT (Zhou et al. 2022) masked patches, KoLeo (Sablayrolles
et al. 2019) keeps images apart. Weights 1, 1 and 0.1; one prototype head for images and patches, as in the default
configuration. Smaller here: `PROTOTYPES` instead of 65,536, `LOCAL_VIEWS` instead of 8, and local crops are resized to
full size because the towers take one size. It learns slowly: on drawn scenes, at the miniature's 300 steps, the
cross-entropies have hardly fallen below log(`PROTOTYPES`), and nothing in them asks for what captions name.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blindspot.encoders import normed_tokens
from blindspot.training.objectives import base
from blindspot.training.objectives.base import Objective, full_precision

GLOBAL_VIEWS = 2
LOCAL_VIEWS = 2
KOLEO_WEIGHT = 0.1
MASKED_IMAGES = 0.5
MASKED_FRACTION = (0.1, 0.5)
FIRST_MOMENTUM = 0.992
TEMPERATURES = (0.04, 0.07)
TEMPERATURE_WARMUP = 0.3  # share of the steps, as 30 of the default configuration's 100 epochs
KOLEO_EPSILON = 1e-8


def dino_loss(student_vbk: Tensor, teacher_gbk: Tensor, centre_k: Tensor, temperature: float) -> Tensor:
    """Mean cross-entropy over all pairs of a student's view and a teacher's crop that are not the same crop.

    The student's views are the teacher's crops first; see `base.cross_entropies`.
    """
    pairs = [(view, crop) for crop in range(len(teacher_gbk)) for view in range(len(student_vbk)) if view != crop]
    views, crops = (list(side) for side in zip(*pairs, strict=True))
    return base.cross_entropies(student_vbk[views], teacher_gbk[crops], centre_k, temperature).mean()


def ibot_loss(student_mk: Tensor, teacher_mk: Tensor, mask_vn: Tensor, centre_k: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of masked patches, averaged per view and then over all views, those without a mask included.

    Rows m are the true entries of the mask, view by view; the teacher saw these patches.
    """
    share_vn = mask_vn / mask_vn.sum(dim=1, keepdim=True).clamp(min=1)
    loss_m = base.cross_entropies(student_mk, teacher_mk, centre_k, temperature)
    return (loss_m * share_vn[mask_vn]).sum() / len(mask_vn)


def koleo_loss(features_bd: Tensor) -> Tensor:
    """-(1/B) sum_i log(min_{j != i} |z_i - z_j| + 1e-8) with z = features / |features|."""
    unit_bd = F.normalize(features_bd, dim=-1)
    with torch.no_grad():
        nearest_b = (unit_bd @ unit_bd.T).fill_diagonal_(-math.inf).argmax(dim=1)
    return -(F.pairwise_distance(unit_bd, unit_bd[nearest_b], eps=0.0) + KOLEO_EPSILON).log().mean()


def teacher_temperature(step: int, total_steps: int) -> float:
    """Rises linearly from 0.04 to 0.07 over the first `TEMPERATURE_WARMUP` of the steps."""
    first, last = TEMPERATURES
    return first + (last - first) * min(1.0, step / max(1.0, TEMPERATURE_WARMUP * total_steps))


def teacher_momentum(step: int, total_steps: int) -> float:
    """Rises from `FIRST_MOMENTUM` to 1 along half a cosine."""
    return 1 - (1 - FIRST_MOMENTUM) * (math.cos(math.pi * step / total_steps) + 1) / 2


def draw_masks(views: int, patches: int, device: torch.device) -> Tensor:
    """Half of the views get a mask over 10 to 50 % of their patches (at least one), shape (views, patches)."""
    low, high = MASKED_FRACTION
    count_v = ((low + (high - low) * torch.rand(views, device=device)) * patches).long().clamp(min=1)
    count_v = count_v * (torch.rand(views, device=device) < MASKED_IMAGES)
    rank_vn = torch.rand(views, patches, device=device).argsort(dim=1).argsort(dim=1)
    return rank_vn < count_v[:, None]


class Dinov2Objective(Objective):
    """DINO + iBOT + 0.1 KoLeo on the CLS token, or on the mean of the patches of a tower without one."""

    centre_image_k: Tensor
    centre_patch_k: Tensor

    def build(self) -> None:
        self.head = base.PrototypeHead(self.shape.width, unit=True)
        self.mask_d = nn.Parameter(torch.randn(self.shape.width) * 0.02)
        self.teacher = nn.ModuleList([copy.deepcopy(self.tower), copy.deepcopy(self.head)])
        self.teacher.requires_grad_(False)
        self.register_buffer("centre_image_k", torch.zeros(base.PROTOTYPES))
        self.register_buffer("centre_patch_k", torch.zeros(base.PROTOTYPES))

    def forward(self, pixels_bchw: Tensor, captions_bl: Tensor, step: int) -> dict[str, Tensor]:
        batch, patches = len(pixels_bchw), self.shape.grid**2
        crops = base.random_views(pixels_bchw, base.GLOBAL_SIDE, GLOBAL_VIEWS)
        views = torch.cat([crops, base.random_views(pixels_bchw, base.LOCAL_SIDE, LOCAL_VIEWS)])
        mask_vn = torch.zeros(len(views), patches, dtype=torch.bool, device=views.device)
        mask_gn = mask_vn[: len(crops)]
        mask_gn.copy_(draw_masks(len(crops), patches, views.device))
        teacher_tower, teacher_head = self.teacher
        with torch.no_grad():
            pooled_gd, tokens_gnd = self._read(teacher_tower, crops)
            teacher_gbk = teacher_head(pooled_gd).unflatten(0, (GLOBAL_VIEWS, batch))
            teacher_mk = teacher_head(tokens_gnd[mask_gn])
        with base.masked_patches(self.tower, mask_vn, self.mask_d):
            pooled_vd, tokens_vnd = self._read(self.tower, views)
        student_vbk = self.head(pooled_vd).unflatten(0, (GLOBAL_VIEWS + LOCAL_VIEWS, batch))
        student_mk = self.head(tokens_vnd[: len(crops)][mask_gn])
        temperature = teacher_temperature(step, self.total_steps)
        with full_precision(pixels_bchw):
            parts = {
                "dino": dino_loss(student_vbk, teacher_gbk, self.centre_image_k, temperature),
                "ibot": ibot_loss(student_mk, teacher_mk, mask_gn, self.centre_patch_k, temperature),
                "koleo": torch.stack(
                    [koleo_loss(crop_bd.float()) for crop_bd in pooled_vd[: len(crops)].split(batch)]
                ).sum(),
            }
            self.centre_image_k.lerp_(teacher_gbk.mean(dim=(0, 1)), 1 - base.CENTRE_MOMENTUM)
            if len(teacher_mk):
                self.centre_patch_k.lerp_(teacher_mk.mean(dim=0), 1 - base.CENTRE_MOMENTUM)
        loss = parts["dino"] + parts["ibot"] + KOLEO_WEIGHT * parts["koleo"]
        return {"loss": loss} | {name: part.detach() for name, part in parts.items()}

    def after_step(self, step: int) -> None:
        student = [*self.tower.parameters(), *self.head.parameters()]
        base.follow(self.teacher.parameters(), student, teacher_momentum(step, self.total_steps))

    def _read(self, tower: nn.Module, views_vchw: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled views (views, width), and their patches (views, patches, width)."""
        tokens_vnd = normed_tokens(tower, self.encoder, views_vchw)  # pyright: ignore[reportArgumentType]
        prefix = self.encoder.prefix_tokens
        patches_vnd = tokens_vnd[:, prefix:]
        return tokens_vnd[:, 0] if prefix else patches_vnd.mean(dim=1), patches_vnd
