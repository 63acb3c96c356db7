"""The algebra that axial rotary positions claim: T2-T5 of the specification, in float64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blindspot.positions.encoder.rotary import rotate, tables_of
from blindspot.positions.encoder.schemes import axial_angles

head_dims = st.sampled_from([4, 8, 16, 32, 64])
grids = st.integers(2, 9)
bases = st.sampled_from([10.0, 100.0, 10000.0])
seeds = st.integers(0, 2**31)


def rotated(x_d: Tensor, grid: int, base: float) -> Tensor:
    """One vector at every place of the grid, shape (grid, grid, D)."""
    tables = tables_of(axial_angles(grid, grid, len(x_d), base))
    return rotate(x_d.expand(1, 1, grid * grid, -1), tables).view(grid, grid, -1)


def vectors(seed: int, dim: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q_d, k_d = torch.randn(2, dim, generator=generator, dtype=torch.float64)
    return q_d, k_d


@given(head_dims, grids, bases, seeds)
def test_rotation_matches_a_loop_over_pairs(dim: int, grid: int, base: float, seed: int) -> None:
    x_d = vectors(seed, dim)[0].numpy()
    expected = np.empty((grid, grid, dim))
    quarter, half = dim // 4, dim // 2
    for i in range(grid):
        for j in range(grid):
            for pair in range(half):
                place = i if pair < quarter else j
                angle = place * base ** (-4 * (pair % quarter) / dim)
                a, b = x_d[pair], x_d[pair + half]
                expected[i, j, pair] = a * np.cos(angle) - b * np.sin(angle)
                expected[i, j, pair + half] = a * np.sin(angle) + b * np.cos(angle)
    np.testing.assert_allclose(rotated(torch.from_numpy(x_d), grid, base).numpy(), expected, atol=1e-12)


@given(head_dims, grids, bases, seeds)
def test_norms_are_preserved(dim: int, grid: int, base: float, seed: int) -> None:
    q_d, _ = vectors(seed, dim)
    torch.testing.assert_close(rotated(q_d, grid, base).norm(dim=-1), q_d.norm().expand(grid, grid))


@given(head_dims, grids, bases, seeds, st.data())
def test_scores_depend_on_offsets_only(dim: int, grid: int, base: float, seed: int, data: st.DataObject) -> None:
    q_d, k_d = vectors(seed, dim)
    q_ijd, k_ijd = rotated(q_d, 2 * grid, base), rotated(k_d, 2 * grid, base)
    i, j, row, column = (data.draw(st.integers(0, grid - 1)) for _ in range(4))
    down, right = (data.draw(st.integers(0, grid)) for _ in range(2))
    score = q_ijd[i, j] @ k_ijd[row, column]
    shifted = q_ijd[i + down, j + right] @ k_ijd[row + down, column + right]
    torch.testing.assert_close(score, shifted, rtol=1e-9, atol=1e-9)


@given(head_dims, grids, bases, seeds)
def test_swapping_the_axes_is_a_permutation_of_channels(dim: int, grid: int, base: float, seed: int) -> None:
    q_d, k_d = vectors(seed, dim)
    quarter = dim // 4
    swap = torch.arange(dim).view(2, 2, quarter).flip(1).flatten()
    q_ijd, k_ijd = rotated(q_d, grid, base), rotated(k_d, grid, base)
    q_jid, k_jid = (rotated(x_d[swap], grid, base).transpose(0, 1) for x_d in (q_d, k_d))
    scores = torch.einsum("ijd,abd->ijab", q_ijd, k_ijd)
    torch.testing.assert_close(scores, torch.einsum("ijd,abd->ijab", q_jid, k_jid))


@given(head_dims, st.integers(2, 24), bases)
def test_no_two_places_share_a_rotation(dim: int, grid: int, base: float) -> None:
    tables = tables_of(axial_angles(grid, grid, dim, base))
    codes_nc = torch.cat([tables.cos, tables.sin], dim=1)
    distances_nn = torch.cdist(codes_nc, codes_nc) + 9 * torch.eye(grid * grid)
    assert distances_nn.min() > 1e-3


def test_prefix_tokens_are_not_rotated() -> None:
    tables = tables_of(axial_angles(4, 4, 8, 100.0), heads=2, prefix_tokens=2)
    x_bhnd = torch.randn(3, 2, 18, 8, dtype=torch.float64)
    turned_bhnd = rotate(x_bhnd, tables)
    assert torch.equal(turned_bhnd[:, :, :2], x_bhnd[:, :, :2])
    assert torch.equal(turned_bhnd[:, :, 2], x_bhnd[:, :, 2])  # row 0, column 0
    assert (turned_bhnd[:, :, 3:] != x_bhnd[:, :, 3:]).any(dim=-1).all()


def test_head_dimensions_that_are_no_multiple_of_four_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        axial_angles(4, 4, 6, 100.0)
