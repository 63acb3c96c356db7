"""Every objective: it learns, repeats, resumes, runs in bf16, and reaches every weight of the tower."""

import pytest
import torch
from torch import Tensor

from blindspot.encoders import ENCODERS, TowerShape, build_tower
from blindspot.positions import EncoderPositions
from blindspot.training.objectives import OBJECTIVES
from blindspot.training.objectives.base import CaptionShape, Objective

SHAPE = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
CAPTIONS = CaptionShape(vocab_size=20, length=8, pad_id=0, eos_id=2)
STEPS = 30
LEARNED, AXIAL = EncoderPositions(), EncoderPositions("axial", 100.0, "replace")
PARTS = {
    "clip": {"contrastive"},
    "siglip": {"sigmoid"},
    "siglip2": {"sigmoid", "caption", "distillation", "masked"},
    "aimv2": {"caption", "pixels"},
    "dinov2": {"dino", "ibot", "koleo"},
}
objectives = pytest.mark.parametrize("name", list(OBJECTIVES))
schemes = pytest.mark.parametrize("positions", [LEARNED, AXIAL], ids=lambda positions: positions.scheme)


def build(name: str, positions: EncoderPositions = LEARNED, family: str | None = None) -> Objective:
    torch.manual_seed(0)
    encoder = ENCODERS[family or name]
    return OBJECTIVES[name].load()(build_tower(encoder, SHAPE, positions), encoder, SHAPE, CAPTIONS, STEPS)


def batch(size: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    captions_bl = torch.randint(3, 20, (size, 8), generator=generator)
    captions_bl[:, 6], captions_bl[:, 7] = 2, 0
    return torch.randn(size, 3, 32, 32, generator=generator), captions_bl


def train(objective: Objective, steps: range, bf16: bool = False) -> list[dict[str, float]]:
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    history = []
    for step in steps:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            parts = objective(*batch(), step)
        assert all(part.dtype == torch.float32 for part in parts.values())
        parts["loss"].backward()
        optimiser.step()
        objective.after_step(step)
        history.append({part: value.item() for part, value in parts.items()})
    return history


@objectives
@schemes
def test_losses_fall_on_a_fixed_batch(name: str, positions: EncoderPositions) -> None:
    history = train(build(name, positions), range(STEPS))
    assert set(history[-1]) == {"loss"} | PARTS[name]
    for part in PARTS[name] & {"contrastive", "sigmoid", "caption"}:
        assert history[-1][part] < 0.8 * history[0][part]
    assert all(value == value for parts in history for value in parts.values())


@objectives
def test_bf16_autocast_follows_float32(name: str) -> None:
    exact, rounded = train(build(name), range(22, 26)), train(build(name), range(22, 26), bf16=True)
    assert rounded[0]["loss"] == pytest.approx(exact[0]["loss"], rel=0.02)
    assert rounded != exact


@objectives
@schemes
def test_every_weight_gets_a_gradient(name: str, positions: EncoderPositions) -> None:
    objective = build(name, positions)
    last = STEPS - 1
    objective(*batch(), last)["loss"].backward()
    without = [
        key
        for key, parameter in objective.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]
    # The key bias shifts all scores of a query alike, so its gradient is zero up to rounding, or exactly. DINOv2's
    # tower has a mask token of its own, which only transformers' own pretraining would use.
    idle = ("k_proj.bias", "key.bias", "tower.embeddings.mask_token")
    assert [key for key in without if not key.endswith(idle)] == []
    frozen = [key for key, parameter in objective.tower.named_parameters() if not parameter.requires_grad]
    assert len(frozen) == (positions.table == "replace")


@objectives
@pytest.mark.parametrize("family", ["clip", "siglip", "aimv2", "dinov2"])
def test_any_objective_trains_any_tower(name: str, family: str) -> None:
    objective = build(name, family=family)
    parts = objective(*batch(4), STEPS - 1)
    parts["loss"].backward()
    assert torch.isfinite(parts["loss"])


def test_dinov2_reads_no_captions_and_its_teacher_follows() -> None:
    objective = build("dinov2", family="siglip")
    pixels_bchw, captions_bl = batch(4)
    losses = []
    for captions in (captions_bl, captions_bl.flip(0)):
        torch.manual_seed(1)
        losses.append(objective(pixels_bchw, captions, 0)["dino"].item())
        objective.centre_image_k.zero_()
    assert losses[0] == losses[1]
    teacher, student = objective.teacher[0], objective.tower
    with torch.no_grad():
        student.post_layernorm.weight.fill_(2.0)
    objective.after_step(0)
    assert teacher.post_layernorm.weight[0].item() == pytest.approx(1.008)
