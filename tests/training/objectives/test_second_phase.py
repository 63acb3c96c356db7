"""SigLIP2's last fifth: views, masked patches and the teacher."""

from typing import Any

import pytest
import torch

from blindspot.encoders import ENCODERS, TowerShape, build_tower, normed_tokens
from blindspot.positions import EncoderPositions
from blindspot.training.objectives.base import CaptionShape, masked_patches, random_views
from blindspot.training.objectives.siglip2 import Siglip2Objective

SHAPE = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
CAPTIONS = CaptionShape(vocab_size=20, length=6, pad_id=0, eos_id=2)


def objective_of(total_steps: int) -> Siglip2Objective:
    torch.manual_seed(0)
    encoder = ENCODERS["siglip2"]
    tower = build_tower(encoder, SHAPE, EncoderPositions("axial", 100.0, "replace"))
    return Siglip2Objective(tower, encoder, SHAPE, CAPTIONS, total_steps)


def test_views_are_crops() -> None:
    torch.manual_seed(0)
    ramp_w = torch.linspace(0, 1, 32)
    images = torch.stack([ramp_w.expand(32, 32), ramp_w[:, None].expand(32, 32), torch.full((32, 32), 0.5)])[None]
    torch.testing.assert_close(random_views(images, (1.0, 1.0), 2), images.repeat(2, 1, 1, 1), rtol=0, atol=1e-5)
    views = random_views(images, (0.25, 0.5), 50)
    assert views.shape == (50, 3, 32, 32)
    torch.testing.assert_close(views[:, 2], torch.full((50, 32, 32), 0.5))
    extent = views[:, 0, 0, -1] - views[:, 0, 0, 0]  # a crop of side s spans s of the horizontal ramp
    assert 0.2 < extent.min() < 0.3 and 0.45 < extent.max() < 0.52
    # Crops are square; at the image's border the outermost half pixel of the ramp is flat.
    torch.testing.assert_close(views[:, 1, -1, 0] - views[:, 1, 0, 0], extent, rtol=0, atol=0.02)
    assert views[:, 0].min() < 0.1 and views[:, 0].max() > 0.9


@pytest.mark.parametrize("family", list(ENCODERS))
def test_masked_patches_hide_their_pixels_and_nothing_else(family: str) -> None:
    torch.manual_seed(0)
    encoder = ENCODERS[family]
    tower = build_tower(encoder, SHAPE, EncoderPositions()).eval()
    pixels_bchw, token_d = torch.randn(2, 3, 32, 32), torch.randn(32)
    mask_bn = torch.zeros(2, 16, dtype=torch.bool)
    mask_bn[:, 6] = True
    hidden_bchw, seen_bchw = pixels_bchw.clone(), pixels_bchw.clone()
    hidden_bchw[:, :, 8:16, 16:24] += 1  # patch 6
    seen_bchw[:, :, 8:16, 24:32] += 1  # patch 7
    with torch.no_grad(), masked_patches(tower, mask_bn, token_d):
        before, hidden, seen = (
            normed_tokens(tower, encoder, pixels) for pixels in (pixels_bchw, hidden_bchw, seen_bchw)
        )
    assert torch.equal(before, hidden)
    assert not torch.equal(before, seen)
    assert not torch.equal(normed_tokens(tower, encoder, pixels_bchw), before)


@pytest.mark.parametrize(("total", "start"), [(10, 8), (100, 80), (7, 6), (1, 1)])
def test_the_phase_is_the_last_fifth(total: int, start: int) -> None:
    objective = objective_of(total)
    captions_bl = torch.tensor([[4, 5, 2, 0, 0, 0]] * 4)
    with_teacher = [
        step for step in range(total) if "masked" in objective(torch.randn(4, 3, 32, 32), captions_bl, step)
    ]
    assert with_teacher == list(range(start, total))


def test_the_teacher_starts_as_the_student_and_follows_slowly() -> None:
    objective = objective_of(10)
    pixels_bchw, captions_bl = torch.randn(4, 3, 32, 32), torch.tensor([[4, 5, 2, 0, 0, 0]] * 4)
    student: Any = objective.tower
    teacher: Any = objective.distillation.teacher[0]
    with torch.no_grad():
        student.post_layernorm.weight.fill_(2.0)
    objective.after_step(3)
    assert teacher.post_layernorm.weight[0] == 1.0
    objective(pixels_bchw, captions_bl, 8)["loss"].backward()
    assert teacher.post_layernorm.weight[0] == 2.0
    assert all(parameter.grad is None for parameter in objective.distillation.teacher.parameters())
    with torch.no_grad():
        student.post_layernorm.weight.fill_(3.0)
    objective.after_step(8)
    assert teacher.post_layernorm.weight[0].item() == pytest.approx(2.01)
    objective(pixels_bchw, captions_bl, 9)
    assert teacher.post_layernorm.weight[0].item() == pytest.approx(2.01)
