"""Image processors of the families: shapes, numbers, and that transformers loads them again."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, BitImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

from blindspot.encoders import ENCODERS, normalise_pixels
from blindspot.encoders.variable_resolution import NativeImageProcessor, patch_grid, patchify

families = pytest.mark.parametrize("family", list(ENCODERS))
SQUARE = [name for name, encoder in ENCODERS.items() if not encoder.variable_resolution]


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def run(processor: Any, *pictures: Image.Image) -> Any:
    return processor(list(pictures), return_tensors="pt")


@pytest.mark.parametrize("family", [name for name in SQUARE if name != "dinov2"])
def test_a_picture_of_the_right_size_is_only_normalised(family: str) -> None:
    image = picture(64, 64)
    pixels_bchw = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
    found = run(ENCODERS[family].image_processor(64), image)["pixel_values"]
    torch.testing.assert_close(found, normalise_pixels(ENCODERS[family], pixels_bchw), atol=1e-5, rtol=0)


def test_crop_keeps_the_aspect_ratio_and_warp_does_not() -> None:
    image = picture(128, 64)
    halves = {
        "clip": np.array(image)[:, 32:96],
        "siglip": np.array(image.resize((64, 64), Image.Resampling.BICUBIC)),
        "siglip2": np.array(image.resize((64, 64), Image.Resampling.BILINEAR)),
    }
    for family, expected in halves.items():
        pixels_bchw = torch.from_numpy(expected).permute(2, 0, 1)[None] / 255
        found = run(ENCODERS[family].image_processor(64), image)["pixel_values"]
        torch.testing.assert_close(found, normalise_pixels(ENCODERS[family], pixels_bchw), atol=1e-5, rtol=0)


def test_dinov2_does_as_its_released_processor() -> None:
    released = BitImageProcessor(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    image = picture(300, 270)
    found, expected = (run(processor, image)["pixel_values"] for processor in (dinov2(), released))
    assert torch.equal(found, expected)


def dinov2() -> Any:
    return ENCODERS["dinov2"].image_processor()


@families
def test_the_default_is_the_first_checkpoints(family: str) -> None:
    encoder, shape = ENCODERS[family], run(ENCODERS[family].image_processor(), picture(300, 200))["pixel_values"].shape
    size = encoder.checkpoints[0].size
    ragged = {"siglip2_naflex": (1, 256, 768), "aimv2_native": (1, (300 // 14) * (200 // 14), 588)}
    assert shape == ragged.get(family, (1, 3, size, size))


@pytest.mark.parametrize("where", ["alone", "in a processor"])
@families
def test_transformers_loads_what_was_saved(family: str, where: str, tmp_path: Path) -> None:
    processor: Any = ENCODERS[family].image_processor(64, 8)
    if where == "alone":
        processor.save_pretrained(tmp_path)
        loaded: Any = AutoImageProcessor.from_pretrained(tmp_path)
    else:
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel

        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0, "<image>": 1}, "a")))
        LlavaProcessor(image_processor=processor, tokenizer=tokenizer, patch_size=8).save_pretrained(tmp_path)
        loaded = LlavaProcessor.from_pretrained(tmp_path).image_processor
    assert type(loaded) is type(processor)
    images = (picture(100, 40), picture(30, 90))
    for key, value in run(processor, *images).items():
        assert torch.equal(run(loaded, *images)[key], value), key


def test_native_pictures_keep_their_size_less_the_rest_of_a_patch() -> None:
    wide, tall = picture(50, 25), picture(17, 40)
    found = run(NativeImageProcessor(patch_size=8, max_num_patches=64), wide, tall)
    assert found["spatial_shapes"].tolist() == [[3, 6], [5, 2]]
    assert found["pixel_attention_mask"].sum(1).tolist() == [18, 10]
    assert found["pixel_values"].shape == (2, 18, 192)
    raw_bchw = torch.from_numpy(np.array(tall)).permute(2, 0, 1)[None] / 255
    expected_np = patchify((raw_bchw - 0.5) / 0.5, 8)[0][0]
    torch.testing.assert_close(found["pixel_values"][1, :10], expected_np, atol=1e-5, rtol=0)
    assert not found["pixel_values"][1, 10:].any()


@pytest.mark.parametrize("size", [(1, 1), (20_000, 10), (10, 20_000), (3, 200)])
def test_native_pictures_of_any_shape_become_some_patches(size: tuple[int, int]) -> None:
    found = run(ENCODERS["aimv2_native"].image_processor(64, 8), picture(*size))
    rows, columns = found["spatial_shapes"][0].tolist()
    assert found["pixel_values"].shape == (1, rows * columns, 192)
    assert 1 <= rows * columns <= 64


@settings(max_examples=50)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 16), st.integers(1, 4096))
def test_native_grids_stay_within_their_bound(height: int, width: int, patch: int, most: int) -> None:
    rows, columns = patch_grid(height, width, patch, most)
    whole = max(1, height // patch), max(1, width // patch)
    assert 1 <= rows <= whole[0]
    assert 1 <= columns <= whole[1]
    assert rows * columns <= most
    if whole[0] * whole[1] <= most:
        assert (rows, columns) == whole
