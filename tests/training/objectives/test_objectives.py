"""Every objective on every tower: it trains, sees what it may see, and SigLIP2's second phase is the last fifth."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blindspot.encoders import ENCODERS, TowerShape, build_tower, normed_tokens
from blindspot.positions import EncoderPositions
from blindspot.training.objectives import OBJECTIVES
from blindspot.training.objectives.aimv2 import Aimv2Objective
from blindspot.training.objectives.base import CaptionShape, Objective, masked_patches, random_views
from blindspot.training.objectives.clip import ClipObjective
from blindspot.training.objectives.siglip2 import Captioner, Siglip2Objective

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


SHORT = CaptionShape(vocab_size=20, length=6, pad_id=0, eos_id=2)


def words(rows: int) -> Tensor:
    return torch.randint(3, 20, (rows, 6))


def changed(before: Tensor, after: Tensor) -> list[bool]:
    """Whether position n differs, for (batch, n, channels)."""
    return ((before - after).abs().amax(dim=(0, 2)) > 1e-5).tolist()


def test_aimv2_predicts_patches_and_words_from_what_comes_before() -> None:
    for family in ("aimv2", "clip"):  # without and with a CLS token
        torch.manual_seed(0)
        encoder = ENCODERS[family]
        positions = EncoderPositions("axial", 100.0, "keep")
        objective = Aimv2Objective(build_tower(encoder, SHAPE, positions), encoder, SHAPE, SHORT, 1).eval()
        for parameter in objective.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        pixels_bchw, captions_bl, prefixes_b = torch.randn(2, 3, 32, 32), words(2), torch.tensor([5, 5])
        patches, scores = objective.predict(pixels_bchw, captions_bl, prefixes_b)

        moved_bchw = pixels_bchw.clone()
        moved_bchw[:, :, 16:24, 8:16] += 1  # patch 9 of the 4 x 4 grid
        moved_patches, moved_scores = objective.predict(moved_bchw, captions_bl, prefixes_b)
        assert changed(patches, moved_patches) == [k > 9 for k in range(1, 16)]
        assert all(changed(scores, moved_scores))

        # A patch inside the prefix is seen by the whole image.
        moved_bchw = pixels_bchw.clone()
        moved_bchw[:, :, 8:16, 0:8] += 1  # patch 4
        assert all(changed(patches, objective.predict(moved_bchw, captions_bl, prefixes_b)[0]))

        other_bl = captions_bl.clone()
        other_bl[:, 3] = (other_bl[:, 3] - 2) % 17 + 3
        same_patches, other_scores = objective.predict(pixels_bchw, other_bl, prefixes_b)
        assert torch.equal(patches, same_patches)
        assert changed(scores, other_scores) == [False, False, False, False, True, True]


def test_captioner_sees_earlier_words_or_none() -> None:
    torch.manual_seed(0)
    captioner = Captioner(SHAPE, SHORT).eval()
    image_bnd, captions_bl, parallel_b = torch.randn(2, 16, 32), words(2), torch.tensor([False, True])
    scores = captioner.logits(image_bnd, captions_bl, parallel_b)
    for place in range(6):
        other_bl = captions_bl.clone()
        other_bl[:, place] = (other_bl[:, place] - 2) % 17 + 3
        other = captioner.logits(image_bnd, other_bl, parallel_b)
        assert changed(scores[:1], other[:1]) == [place < later for later in range(6)]
        assert changed(scores[1:], other[1:]) == [False] * 6
    assert all(changed(scores, captioner.logits(image_bnd + torch.randn(16, 32), captions_bl, parallel_b)))


def test_captioner_mixes_both_ways_of_prediction_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    captioner = Captioner(SHAPE, SHORT)
    drawn: list[Tensor] = []
    logits = captioner.logits

    def record(image_bnd: Tensor, captions_bl: Tensor, parallel_b: Tensor) -> Tensor:
        drawn.append(parallel_b)
        return logits(image_bnd, captions_bl, parallel_b)

    monkeypatch.setattr(captioner, "logits", record)
    captioner(torch.randn(400, 16, 32), words(400))
    assert 150 < int(drawn[0].sum()) < 250


def test_clip_reads_the_first_end_token_and_clamps_its_scale() -> None:
    torch.manual_seed(0)
    encoder = ENCODERS["clip"]
    objective = ClipObjective(build_tower(encoder, SHAPE, EncoderPositions()), encoder, SHAPE, SHORT, 1)
    assert math.isclose(objective.log_scale.exp().item(), 1 / 0.07, rel_tol=1e-5)
    pixels_bchw = torch.randn(3, 3, 32, 32)
    captions_bl = torch.tensor([[4, 5, 2, 0, 0, 0], [6, 7, 8, 2, 0, 0], [9, 2, 0, 0, 0, 0]])
    padded_otherwise_bl = captions_bl.masked_fill(captions_bl == 0, 19)
    before = objective(pixels_bchw, captions_bl, 0)["loss"]
    torch.testing.assert_close(objective(pixels_bchw, padded_otherwise_bl, 0)["loss"], before)
    with torch.no_grad():
        objective.log_scale.fill_(9.0)
    objective.after_step(0)
    assert objective.log_scale.item() <= math.log(100.0) + 1e-6


def objective_of(total_steps: int) -> Siglip2Objective:
    torch.manual_seed(0)
    encoder = ENCODERS["siglip2"]
    tower = build_tower(encoder, SHAPE, EncoderPositions("axial", 100.0, "replace"))
    return Siglip2Objective(tower, encoder, SHAPE, SHORT, total_steps)


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
