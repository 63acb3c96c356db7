"""Processors that transformers hides without torchvision give torchvision's pixels."""

from importlib import import_module
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import image_processing_backends as backends
from transformers.utils.import_utils import is_torchvision_available

from blindspot.model import pixels

HIDDEN = {
    "Molmo2ImageProcessor": {"size": {"height": 84, "width": 84}, "overlap_margins": [1, 1], "max_crops": 4},
    "Llama4ImageProcessor": {"size": {"height": 56, "width": 56}, "max_patches": 4},
    "Lfm2VlImageProcessor": {"tile_size": 64, "max_tiles": 4, "min_image_tokens": 4, "max_image_tokens": 8},
    "PerceptionLMImageProcessor": {"tile_size": 56, "max_num_tiles": 4},
    "Gemma4UnifiedImageProcessor": {"max_soft_tokens": 70},
    "Kimi_K25ImageProcessor": {"size": {"max_height": 8, "max_width": 8}, "max_patches": 64},
}
PICTURES = [
    Image.fromarray(np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8))
    for width, height in ((90, 60), (50, 120), (301, 77))
]


def bytes_of(picture: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)


@pytest.mark.parametrize("size", [(60, 90), (31, 45), (120, 171)])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_bytes_are_resized_as_pillow_does_but_for_its_rounding(size: tuple[int, int], mode: str) -> None:
    for picture in PICTURES:
        ours = pixels.resize(bytes_of(picture), size, mode)
        assert ours.dtype == torch.uint8
        pillows = bytes_of(picture.resize(size[::-1], Image.Resampling[mode.upper()]))
        assert ((ours.int() - pillows.int()).abs() > 1).float().mean() < 0.02  # where noise leaves the range half-way


def test_fractions_where_torch_interpolates_no_bytes_are_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = pixels.resize(bytes_of(PICTURES[0]), (31, 45))
    monkeypatch.setattr(pixels, "NATIVE", False)
    assert (exact.int() - pixels.resize(bytes_of(PICTURES[0]), (31, 45)).int()).abs().max() <= 1


@pytest.mark.skipif(not is_torchvision_available(), reason="torchvision, which is compared with, is not installed")
@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_processors_give_torchvisions_pixels_to_the_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = getattr(transformers, name)
    theirs = [kind(**HIDDEN[name])(picture, return_tensors="pt") for picture in PICTURES]
    for module in (backends, import_module(kind.__module__)):
        if hasattr(module, "tvF"):
            for function in ("resize", "pad", "normalize"):
                monkeypatch.setattr(module.tvF, function, getattr(pixels, function))
    monkeypatch.setattr(backends, "pil_torch_interpolation_mapping", pixels.MODES)
    for picture, expected in zip(PICTURES, theirs, strict=True):
        ours = kind(**HIDDEN[name])(picture, return_tensors="pt")
        assert ours.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(ours[key])), key
