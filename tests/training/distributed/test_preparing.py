"""Pictures are prepared as transformers' image processors prepare them, within their rounding."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot.encoders import ENCODERS
from blindspot.model.formats.llava_original import padded
from blindspot.training.distributed import preparing
from blindspot.training.distributed.preparing import Preparation, way_of

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def _picture(width: int, height: int) -> Image.Image:
    """Smooth and noisy parts, black and white ones, and edges, so that bicubic filters overshoot."""
    draw = np.random.default_rng([width, height])
    ramp_hw = np.add.outer(np.arange(height), np.arange(width)) % 256
    pixels_hwc = np.stack(
        [ramp_hw, ramp_hw.T[::-1].copy().reshape(-1)[: ramp_hw.size].reshape(ramp_hw.shape), ramp_hw], 2
    )
    pixels_hwc[: height // 2, : width // 2] = draw.integers(0, 256, (height // 2, width // 2, 3))
    pixels_hwc[height // 2 :, : width // 3] = 255 * draw.integers(0, 2, (height - height // 2, width // 3, 3))
    return Image.fromarray(pixels_hwc.astype(np.uint8))


def _levels_apart(processor: Any, picture: Image.Image) -> torch.Tensor:
    theirs_chw = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    ours_chw = Preparation(processor)(picture)["pixel_values"]
    assert ours_chw.shape == theirs_chw.shape and ours_chw.dtype == theirs_chw.dtype
    levels_chw = (ours_chw - theirs_chw).abs() * torch.tensor(processor.image_std)[:, None, None] * 255
    assert (levels_chw - levels_chw.round()).abs().max() < 1e-3, "but for levels they are the same numbers"
    return levels_chw.round()


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "dinov2"])
@settings(max_examples=8, deadline=None)
@given(width=st.integers(8, 90), height=st.integers(8, 90))
def test_levels_are_those_of_the_processor(family: str, pad: bool, width: int, height: int) -> None:
    processor: Any = ENCODERS[family].image_processor(48)
    levels_chw = _levels_apart(padded(processor) if pad else processor, _picture(width, height))
    assert levels_chw.max() <= 2 and (levels_chw > 1).float().mean() < 1e-3
    assert levels_chw.bool().float().mean() < 0.03


@pytest.mark.parametrize("size", [(640, 427), (427, 640), (500, 375), (375, 500), (1000, 336)])
def test_pictures_of_usual_sizes_need_no_pillow(size: tuple[int, int]) -> None:
    assert way_of(size, (336, 336), BICUBIC) != "pillow" and way_of(size, (256, 256), BILINEAR) != "pillow"
    assert _levels_apart(ENCODERS["clip"].image_processor(336), _picture(*size)).max() <= 2


def test_pillow_resizes_where_the_kernel_does_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    def blurred(pixels: torch.Tensor, size: tuple[int, int], **_: Any) -> torch.Tensor:
        return torch.full((*pixels.shape[:2], *size), 127, dtype=torch.uint8)

    monkeypatch.setattr(preparing.F, "interpolate", blurred)
    way_of.cache_clear()
    try:
        processor = ENCODERS["siglip"].image_processor(48)
        assert way_of((60, 70), (48, 48), BICUBIC) == "pillow"
        assert not _levels_apart(processor, _picture(60, 70)).any()
    finally:
        way_of.cache_clear()


@pytest.mark.parametrize(
    "processor",
    [
        ENCODERS["aimv2_native"].image_processor(64),
        ENCODERS["siglip2_naflex"].image_processor(64),
        CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 48, "width": 48}),
        CLIPImageProcessorPil(do_normalize=False),
        CLIPImageProcessorPil(resample=Image.Resampling.LANCZOS),
    ],
    ids=["native", "naflex", "larger crop", "not normalised", "lanczos"],
)
def test_what_it_does_not_know_it_leaves_to_the_processor(processor: Any) -> None:
    picture = _picture(70, 50)
    theirs, ours = processor(images=picture, return_tensors="pt"), Preparation(processor)(picture)
    assert "pixel_attention_mask" not in ours
    assert all(torch.equal(tensor, theirs[name][0]) for name, tensor in ours.items())
