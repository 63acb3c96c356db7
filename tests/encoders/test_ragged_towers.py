"""Images of several shapes in one batch: NaFlex and AIMv2-native."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from blindspot.encoders import ENCODERS, features
from blindspot.encoders.variable_resolution import pack, patchify
from blindspot.positions import EncoderPositions
from blindspot.positions.encoder.attach import attach

GRIDS = [(6, 6), (2, 9), (5, 1), (1, 1)]
ragged = pytest.mark.parametrize("family", ["siglip2_naflex", "aimv2_native"])
implementations = pytest.mark.parametrize("attention", ["eager", "sdpa"])
Make = Callable[..., Any]


def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(1, 3, 8 * rows, 8 * columns, generator=generator) for rows, columns in GRIDS]


def batch(fill: float = 0.0, extra: int = 4) -> tuple[Tensor, Tensor]:
    """All images in Siglip2's layout, with padding even behind the largest."""
    most = max(rows * columns for rows, columns in GRIDS) + extra
    patches_bnp = torch.full((len(GRIDS), most, 3 * 8 * 8), fill)
    for row, image in enumerate(images()):
        own_np = patchify(image, 8)[0][0]
        patches_bnp[row, : len(own_np)] = own_np
    return patches_bnp, torch.tensor(GRIDS)


@ragged
@implementations
@pytest.mark.parametrize("rotary", [False, True])
def test_an_image_is_read_alike_alone_and_among_others(
    make_tower: Make, family: str, attention: str, rotary: bool
) -> None:
    tower, encoder = make_tower(family, attention), ENCODERS[family]
    if rotary:
        attach(tower, EncoderPositions("axial", 100.0, "replace"), (6, 6), encoder.prefix_tokens)
    patches_bnp, grids_b2 = batch()
    with torch.no_grad():
        together_bnd = features(tower, encoder, patches_bnp, -1, grids_b2)
        for row, (image, (height, width)) in enumerate(zip(images(), GRIDS, strict=True)):
            alone_bnd = features(tower, encoder, image)
            assert alone_bnd.shape == (1, height * width, 32)
            torch.testing.assert_close(together_bnd[row, : height * width], alone_bnd[0], atol=1e-5, rtol=1e-5)
    assert together_bnd.shape == (4, 36, 32)
    assert together_bnd.isfinite().all()


@ragged
@implementations
@pytest.mark.parametrize("fill", [1e4, float("nan"), float("inf")])
def test_what_stands_in_the_padding_changes_nothing(make_tower: Make, family: str, attention: str, fill: float) -> None:
    tower, encoder = make_tower(family, attention), ENCODERS[family]
    clean_bnp, grids_b2 = batch()
    with torch.no_grad():
        assert torch.equal(
            features(tower, encoder, batch(fill)[0], -1, grids_b2), features(tower, encoder, clean_bnp, -1, grids_b2)
        )


def test_aimv2_native_equals_transformers_on_one_image(make_tower: Make) -> None:
    tower = make_tower("aimv2_native")
    with torch.no_grad():
        for image in [*images(), torch.randn(3, 3, 41, 23)]:
            expected_bnd = tower(pixel_values=image, output_hidden_states=True).hidden_states[-2]
            assert torch.equal(features(tower, ENCODERS["aimv2_native"], image, -2), expected_bnd)
            patches_bnp, grid = patchify(image, 8)
            grids_b2 = torch.tensor([grid] * len(image))
            found_bnd = features(tower, ENCODERS["aimv2_native"], patches_bnp, -2, grids_b2)
            torch.testing.assert_close(found_bnd, expected_bnd, atol=1e-5, rtol=1e-5)


def test_naflex_equals_transformers_on_a_batch(make_tower: Make) -> None:
    tower, (patches_bnp, grids_b2) = make_tower("siglip2_naflex"), batch()
    mask_bn = torch.arange(patches_bnp.shape[1]) < grids_b2.prod(1, keepdim=True)
    with torch.no_grad():
        states = tower(patches_bnp, mask_bn, grids_b2, output_hidden_states=True).hidden_states[-1]
        found_bnd = features(tower, ENCODERS["siglip2_naflex"], patches_bnp, -1, grids_b2)
    for row, (height, width) in enumerate(GRIDS):
        own = slice(0, height * width)
        torch.testing.assert_close(found_bnd[row, own], states[row, own], atol=1e-5, rtol=1e-5)


@ragged
def test_no_gradient_comes_from_the_padding(make_tower: Make, family: str) -> None:
    tower, (patches_bnp, grids_b2) = make_tower(family).train(), batch()
    patches_bnp.requires_grad_()
    found_bnd = features(tower, ENCODERS[family], patches_bnp, -1, grids_b2)
    mask_bn = torch.arange(found_bnd.shape[1]) < grids_b2.prod(1, keepdim=True)
    found_bnd[mask_bn].square().sum().backward()
    assert patches_bnp.grad is not None
    real_bn = torch.arange(patches_bnp.shape[1]) < grids_b2.prod(1, keepdim=True)
    assert patches_bnp.grad[real_bn].abs().sum(1).min() > 0
    assert not patches_bnp.grad[~real_bn].any()


@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_patches_lie_as_siglip2_lays_them(rows: int, columns: int, patch: int, rest: int) -> None:
    image = np.random.default_rng(0).random((3, rows * patch, columns * patch), dtype=np.float32)
    wanted = convert_image_to_patches(image, patch)
    larger = np.pad(image, ((0, 0), (0, rest % patch), (0, rest % patch)))
    patches_bnp, grid = patchify(torch.from_numpy(larger)[None], patch)
    assert grid == (rows, columns)
    assert np.array_equal(patches_bnp[0].numpy(), wanted)


def test_batches_that_contradict_themselves_are_refused() -> None:
    patches_bnp, grids_b2 = batch(extra=0)
    with pytest.raises(ValueError, match="need the grid"):
        pack(patches_bnp, None, 8)
    with pytest.raises(ValueError, match="must come without"):
        pack(images()[0], grids_b2[:1], 8)
    with pytest.raises(ValueError, match="has 49 patches by its grid, and the batch holds 36"):
        pack(patches_bnp, torch.tensor([[7, 7]] * 4), 8)
