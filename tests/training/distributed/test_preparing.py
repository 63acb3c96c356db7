"""Pictures are prepared as transformers' image processors prepare them, to the bit."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot.encoders import ENCODERS
from blindspot.model.formats.llava import padded
from blindspot.training.llava.samples import Preparation


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


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "dinov2"])
@settings(max_examples=8)
@given(width=st.integers(8, 90), height=st.integers(8, 90))
def test_a_picture_is_trained_on_as_it_is_asked_about(family: str, pad: bool, width: int, height: int) -> None:
    processor: Any = ENCODERS[family].image_processor(48)
    processor = padded(processor) if pad else processor
    picture = _picture(width, height)
    theirs_chw = processor(images=picture, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(Preparation(processor)(picture)["pixel_values"], theirs_chw)


@pytest.mark.parametrize(
    "processor",
    [
        ENCODERS["aimv2_native"].image_processor(64),
        ENCODERS["siglip2_naflex"].image_processor(64),
        CLIPImageProcessorPil(size={"shortest_edge": 30}, crop_size={"height": 48, "width": 48}),
        CLIPImageProcessorPil(do_normalize=False),
    ],
    ids=["native", "naflex", "larger crop", "not normalised"],
)
def test_what_it_does_not_know_it_leaves_to_the_processor(processor: Any) -> None:
    picture = _picture(70, 50)
    theirs, ours = processor(images=picture, return_tensors="pt"), Preparation(processor)(picture)
    assert "pixel_attention_mask" not in ours
    assert all(torch.equal(tensor, theirs[name][0]) for name, tensor in ours.items())
