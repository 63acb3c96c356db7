"""Every loss formula against an independent computation in numpy, float64."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from blindspot.training.objectives.aimv2 import normalised_patches, pixel_loss, prefix_mask
from blindspot.training.objectives.base import CaptionShape, caption_loss, cross_entropies
from blindspot.training.objectives.clip import clip_loss, eos_positions
from blindspot.training.objectives.dinov2 import (
    dino_loss,
    draw_masks,
    ibot_loss,
    koleo_loss,
    teacher_momentum,
    teacher_temperature,
)
from blindspot.training.objectives.siglip import siglip_loss

Array = NDArray[np.float64]
seeds = st.integers(0, 2**31)
few = settings(max_examples=25)


def tensor(array: Array) -> torch.Tensor:
    return torch.from_numpy(array)


def cosines(image_be: Array, text_be: Array) -> Array:
    out = np.empty((len(image_be), len(text_be)))
    for i, image in enumerate(image_be):
        for j, text in enumerate(text_be):
            out[i, j] = image.dot(text) / np.sqrt(image.dot(image) * text.dot(text))
    return out


def log_softmax(scores: Array) -> Array:
    return scores - np.log(np.exp(scores - scores.max()).sum()) - scores.max()


@few
@given(seeds, st.integers(1, 9), st.floats(1, 100))
def test_clip(seed: int, batch: int, scale: float) -> None:
    image_be, text_be = np.random.default_rng(seed).normal(size=(2, batch, 5))
    scores = scale * cosines(image_be, text_be)
    rows = np.mean([-log_softmax(scores[i])[i] for i in range(batch)])
    columns = np.mean([-log_softmax(scores[:, i])[i] for i in range(batch)])
    ours = clip_loss(tensor(image_be), tensor(text_be), torch.tensor(scale, dtype=torch.float64))
    np.testing.assert_allclose(ours.item(), (rows + columns) / 2, rtol=1e-9, atol=1e-14)


@few
@given(seeds, st.integers(1, 9), st.floats(1, 100), st.floats(-10, 1))
def test_siglip(seed: int, batch: int, scale: float, bias: float) -> None:
    image_be, text_be = np.random.default_rng(seed).normal(size=(2, batch, 5))
    scores = scale * cosines(image_be, text_be) + bias
    total = 0.0
    for i in range(batch):
        for j in range(batch):
            sign = 1 if i == j else -1
            total += np.logaddexp(0.0, -sign * scores[i, j])
    ours = siglip_loss(tensor(image_be), tensor(text_be), torch.tensor(scale).double(), torch.tensor(bias).double())
    np.testing.assert_allclose(ours.item(), total / batch, rtol=1e-5)


def imitation(student_k: Array, teacher_k: Array, centre_k: Array, temperature: float) -> float:
    return -np.exp(log_softmax((teacher_k - centre_k) / temperature)).dot(log_softmax(student_k / 0.1))


@few
@given(seeds, st.integers(1, 6))
def test_distillation(seed: int, rows: int) -> None:
    student_nk, teacher_nk = np.random.default_rng(seed).normal(size=(2, rows, 7))
    centre_k = np.random.default_rng(seed + 1).normal(size=7)
    expected = [imitation(*pair, centre_k, 0.04) for pair in zip(student_nk, teacher_nk, strict=True)]
    ours = cross_entropies(tensor(student_nk), tensor(teacher_nk), tensor(centre_k))
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-6, atol=1e-9)


@few
@given(seeds, st.integers(1, 3), st.integers(0, 3), st.floats(0.04, 0.07))
def test_dino(seed: int, batch: int, local: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    student_vbk, teacher_gbk = rng.normal(size=(2 + local, batch, 7)), rng.normal(size=(2, batch, 7))
    centre_k = rng.normal(size=7)
    expected = np.mean(
        [
            np.mean([imitation(student_vbk[v, b], teacher_gbk[g, b], centre_k, temperature) for b in range(batch)])
            for v in range(2 + local)
            for g in range(2)
            if v != g
        ]
    )
    ours = dino_loss(tensor(student_vbk), tensor(teacher_gbk), tensor(centre_k), temperature)
    np.testing.assert_allclose(ours.item(), expected, rtol=1e-9)


@few
@given(seeds, st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_ibot(seed: int, masked: list[int]) -> None:
    rng = np.random.default_rng(seed)
    student_vnk, teacher_vnk = rng.normal(size=(2, len(masked), 6, 7))
    centre_k = rng.normal(size=7)
    mask_vn = np.stack([rng.permutation(6) < count for count in masked])
    per_view = [
        np.mean([imitation(student_vnk[v, n], teacher_vnk[v, n], centre_k, 0.05) for n in range(6) if mask_vn[v, n]])
        for v, count in enumerate(masked)
        if count
    ]
    ours = ibot_loss(
        tensor(student_vnk[mask_vn]), tensor(teacher_vnk[mask_vn]), torch.from_numpy(mask_vn), tensor(centre_k), 0.05
    )
    np.testing.assert_allclose(ours.item(), sum(per_view) / len(masked), rtol=1e-6)


@few
@given(seeds, st.integers(2, 6))
def test_koleo(seed: int, batch: int) -> None:
    features_bd = np.random.default_rng(seed).normal(size=(batch, 4))
    unit_bd = features_bd / np.sqrt((features_bd**2).sum(axis=1, keepdims=True))
    nearest = [min(np.sqrt(((z - other) ** 2).sum()) for j, other in enumerate(unit_bd) if j != i)
               for i, z in enumerate(unit_bd)]  # fmt: skip
    ours = koleo_loss(tensor(features_bd))
    np.testing.assert_allclose(ours.item(), -np.mean(np.log(np.array(nearest) + 1e-8)), rtol=1e-7)


def test_koleo_of_equal_images_is_finite_and_so_is_its_gradient() -> None:
    features_bd = torch.ones(3, 4, requires_grad=True)
    koleo_loss(features_bd).backward()
    assert features_bd.grad is not None and bool(torch.isfinite(features_bd.grad).all())


def test_dinov2_schedules() -> None:
    assert [teacher_temperature(step, 100) for step in (0, 15, 30, 99)] == pytest.approx([0.04, 0.055, 0.07, 0.07])
    assert [teacher_momentum(step, 100) for step in (0, 50, 100)] == pytest.approx([0.992, 0.996, 1.0])


def test_half_of_the_views_are_masked_over_a_tenth_to_a_half() -> None:
    torch.manual_seed(0)
    counts = draw_masks(2000, 20, torch.device("cpu")).sum(dim=1)
    assert 900 < int((counts > 0).sum()) < 1100
    assert set(counts.tolist()) == {0, *range(2, 10)}


@few
@given(seeds, st.integers(1, 4))
def test_captions(seed: int, batch: int) -> None:
    rng = np.random.default_rng(seed)
    logits_blv = rng.normal(size=(batch, 6, 9))
    targets_bl = rng.integers(1, 9, size=(batch, 6))
    targets_bl[:, 4:] = 0
    terms = [-log_softmax(logits_blv[b, i])[targets_bl[b, i]] for b in range(batch) for i in range(4)]
    ours = caption_loss(tensor(logits_blv), torch.from_numpy(targets_bl), pad_id=0)
    np.testing.assert_allclose(ours.item(), np.mean(terms), rtol=1e-5)


@few
@given(seeds, st.sampled_from([(8, 4), (12, 4), (6, 3)]))
def test_normalised_patches(seed: int, sizes: tuple[int, int]) -> None:
    size, patch = sizes
    pixels_bchw = np.random.default_rng(seed).normal(2.0, 3.0, size=(2, 3, size, size))
    pixels_bchw[:, :, :patch, :patch] = 0.7  # a flat patch has no deviation to divide by
    grid = size // patch
    ours = normalised_patches(tensor(pixels_bchw), patch).numpy()
    for b in range(2):
        for index in range(grid * grid):
            i, j = divmod(index, grid)
            flat = pixels_bchw[b, :, i * patch : (i + 1) * patch, j * patch : (j + 1) * patch].ravel()
            expected = (flat - flat.mean()) / np.sqrt(flat.var(ddof=1) + 1e-6)
            np.testing.assert_allclose(ours[b, index], expected, rtol=1e-3, atol=1e-3)


@few
@given(seeds, st.lists(st.integers(1, 8), min_size=1, max_size=4))
def test_pixels(seed: int, prefixes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    predicted_bin, target_bin = rng.normal(size=(len(prefixes), 8, 5)), rng.normal(size=(len(prefixes), 9, 5))
    terms = [
        np.mean((predicted_bin[b, index - 1] - target_bin[b, index]) ** 2)
        for b, prefix in enumerate(prefixes)
        for index in range(prefix, 9)
    ]
    ours = pixel_loss(tensor(predicted_bin), tensor(target_bin), torch.tensor(prefixes))
    np.testing.assert_allclose(ours.item(), np.mean(terms), rtol=1e-6)


@few
@given(st.lists(st.integers(1, 8), min_size=1, max_size=4), st.integers(2, 9))
def test_prefix_mask(prefixes: list[int], tokens: int) -> None:
    mask_b1nn = prefix_mask(torch.tensor(prefixes), tokens)
    for b, prefix in enumerate(prefixes):
        for query in range(tokens):
            for key in range(tokens):
                assert mask_b1nn[b, 0, query, key] == (0.0 if key <= query or key < prefix else -np.inf)


def test_ends_of_captions() -> None:
    captions_bl = torch.tensor([[5, 2, 0, 0], [5, 6, 7, 2], [2, 2, 0, 0]])
    assert eos_positions(captions_bl, 2).tolist() == [1, 3, 0]
    with pytest.raises(ValueError, match="no end token"):
        eos_positions(torch.tensor([[5, 2, 0], [5, 6, 7]]), 2)
    with pytest.raises(ValueError, match="both 2"):
        CaptionShape(vocab_size=9, length=4, pad_id=2, eos_id=2)
