"""What a prediction may see: nothing that it is asked to predict."""

import math

import pytest
import torch
from torch import Tensor, nn

from blindspot.encoders import ENCODERS, TowerShape, build_tower
from blindspot.positions import EncoderPositions
from blindspot.training.objectives.aimv2 import Aimv2Objective
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.objectives.captioner import Captioner
from blindspot.training.objectives.clip import ClipObjective

SHAPE = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
CAPTIONS = CaptionShape(vocab_size=20, length=6, pad_id=0, eos_id=2)


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
        objective = Aimv2Objective(build_tower(encoder, SHAPE, positions), encoder, SHAPE, CAPTIONS, 1).eval()
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
    captioner = Captioner(SHAPE, CAPTIONS).eval()
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
    captioner = Captioner(SHAPE, CAPTIONS)
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
    objective = ClipObjective(build_tower(encoder, SHAPE, EncoderPositions()), encoder, SHAPE, CAPTIONS, 1)
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
