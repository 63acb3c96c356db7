"""What each scheme claims, in algebra too, how it is configured, and what the released forms fail."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blindspot.errors import UserError
from blindspot.positions.encoder import SCHEMES, TABLES, EncoderPositions
from blindspot.positions.encoder.rotary import PatchGrid, Tables, rotate, tables_of
from blindspot.positions.encoder.schemes import (
    axial_angles,
    released_concat_angles,
    released_sqfreq_angles,
    released_sum_angles,
    sincos_table,
)
from blindspot.positions.properties import OnGrid, encoder_cases, measure

#                 norm, relative, axis swap, injective
CLAIMS = {
    "learned": (False, False, False, True),
    "sincos": (False, False, True, True),
    "rope1d": (True, True, False, True),
    "axial rope_vit": (True, True, True, True),
    "axial qwen2_vl": (True, True, True, True),
    "axial dinov3": (True, True, True, True),
    "mixed": (True, True, False, True),
    "released_concat": (False, False, True, True),
    "released_sum": (True, True, True, False),
    "released_sqfreq": (True, True, True, True),
}


def matrices(angles_np: Tensor, pairing: str = "halves") -> Tensor:
    """The linear map of every patch, shape (patches, D, D)."""
    dim = 2 * angles_np.shape[1]
    units_cd = torch.eye(dim, dtype=torch.float64)
    tables = tables_of(angles_np, pairing=pairing)  # pyright: ignore
    return rotate(units_cd[:, None, None].expand(-1, 1, len(angles_np), -1), tables)[:, 0].permute(1, 2, 0)


def test_every_scheme_has_its_claims() -> None:
    assert list(CLAIMS) == list(encoder_cases())


@pytest.mark.parametrize("case", CLAIMS)
@settings(max_examples=8)
@given(st.tuples(st.integers(3, 9), st.integers(3, 9)), st.sampled_from([8, 16, 32]), st.integers(0, 2**31), st.data())
def test_properties_are_those_claimed(
    case: str, grid: tuple[int, int], dim: int, seed: int, data: st.DataObject
) -> None:
    positions = encoder_cases()[case]
    base = data.draw(st.sampled_from([positions.base, 30.0, 10000.0]))
    positions = EncoderPositions(positions.scheme, base, positions.table, positions.convention)
    found = measure(positions, grid, dim, seed)
    norm, relative, axis_swap, injective = CLAIMS[case]
    assert found["norm_preserved"] == norm
    assert found["relative_invariance"] == relative
    # Places normalised to the image swap only where it is square.
    if not (case == "axial dinov3" and grid[0] != grid[1]):
        assert found["axis_swap"] == axis_swap
    assert found["injective"] == injective


@pytest.mark.parametrize("case", CLAIMS)
def test_only_the_familys_own_positions_leave_a_trained_encoder_unchanged(case: str) -> None:
    assert measure(encoder_cases()[case], (2, 2), 8)["start_unchanged"] == (case == "learned")


def test_turns_over_the_grid_are_those_of_the_frequencies() -> None:
    turns = {case: OnGrid(rule, (24, 24), 64).turns() for case, rule in encoder_cases().items()}
    assert turns["learned"] == turns["sincos"] == (None, None, None)
    assert turns["rope1d"][:2] == (23 * 24, 23)
    # 23 * 10000^(-m/16) < 0.01 from m = 14 on; with squared frequencies from m = 7 on: 9 of 16.
    assert turns["axial rope_vit"] == (23, 23, 0)
    assert turns["axial qwen2_vl"] == turns["released_concat"] == turns["released_sum"] == (23, 23, 2 / 16)
    assert turns["released_sqfreq"] == (23, 23, 9 / 16)
    assert turns["axial dinov3"] == pytest.approx((4 * math.pi * 23 / 24, 4 * math.pi * 23 / 24, 0))


def test_released_concat_is_no_rotation_off_the_diagonal() -> None:
    maps_nde = matrices(released_concat_angles(24, 24, 64, 10000.0))
    stretches_nd = torch.linalg.svdvals(maps_nde)
    assert stretches_nd.min().item() == pytest.approx(0.003, abs=5e-4)
    assert stretches_nd.max().item() == pytest.approx(1.414, abs=5e-4)
    assert torch.linalg.det(maps_nde[5 * 24 + 17]).item() == pytest.approx(0.0066, abs=5e-5)
    diagonal_n = torch.arange(24) * 25
    torch.testing.assert_close(stretches_nd[diagonal_n], torch.ones(24, 64, dtype=torch.float64))


@given(st.integers(0, 23), st.integers(0, 23), st.integers(0, 15))
def test_released_concat_stretches_as_proved(i: int, j: int, pair: int) -> None:
    """Its 2 x 2 blocks have determinant cos(a - b) and squared singular values 1 +- |sin(a - b)|."""
    angles_np2 = released_concat_angles(24, 24, 32, 10000.0)[i * 24 + j, None, pair : pair + 1]
    (block,) = matrices(angles_np2)
    a, b = angles_np2.flatten().tolist()
    frequency = 10000 ** (-4 * (pair % 8) / 32)
    assert (a, b) == (pytest.approx(i * frequency), pytest.approx(j * frequency))
    by_hand = torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(b), math.cos(b)]], dtype=torch.float64)
    torch.testing.assert_close(block, by_hand)
    assert torch.linalg.det(block).item() == pytest.approx(math.cos(a - b))
    squared = sorted((torch.linalg.svdvals(block) ** 2).tolist())
    assert squared == pytest.approx([1 - abs(math.sin(a - b)), 1 + abs(math.sin(a - b))])


@given(st.integers(0, 8), st.integers(0, 8))
def test_released_sum_cannot_tell_anti_diagonals_apart(i: int, j: int) -> None:
    angles_np = released_sum_angles(9, 9, 16, 10000.0).view(9, 9, 8)
    assert torch.equal(angles_np[i, j], angles_np[j, i])
    if i < 8 and j > 0:
        assert torch.equal(angles_np[i, j], angles_np[i + 1, j - 1])
    assert angles_np[i, j].tolist() == pytest.approx([(i + j) * 10000 ** (-m / 4) for m in (0, 1, 2, 3)] * 2)


def test_released_sqfreq_turns_neighbours_in_each_half() -> None:
    """With D = 16: rows turn channels (0, 1), (2, 3), ... of the first half by i 10000^(-2m/4), columns the second."""
    angles_np = released_sqfreq_angles(5, 5, 16, 10000.0)
    x_d = torch.randn(16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    i, j = 3, 2
    turned_d = matrices(angles_np, "neighbours")[i * 5 + j] @ x_d
    for pair in range(8):
        angle = (i if pair < 4 else j) * 10000 ** (-2 * (pair % 4) / 4)
        a, b = x_d[2 * pair].item(), x_d[2 * pair + 1].item()
        assert turned_d[2 * pair].item() == pytest.approx(a * math.cos(angle) - b * math.sin(angle))
        assert turned_d[2 * pair + 1].item() == pytest.approx(a * math.sin(angle) + b * math.cos(angle))
    lowest = released_sqfreq_angles(2, 1, 64, 10000.0).max(dim=0).values[:16].min().item()
    assert lowest == pytest.approx(3e-8, rel=0.1)


@pytest.mark.parametrize("case", ["axial rope_vit", "released_concat", "released_sum", "released_sqfreq"])
@pytest.mark.parametrize("ragged", [False, True])
def test_gradients_are_those_of_the_formula(case: str, ragged: bool) -> None:
    places = PatchGrid(encoder_cases()[case], (2, 3), prefix_tokens=1)
    if ragged:
        places.set([(2, 3), (3, 1)])
    x_bhnd = torch.randn(2, 2, 7, 4, dtype=torch.float64, requires_grad=True)
    tables = places.fixed(x_bhnd, masked=ragged)
    assert tables.is_rotation == (case != "released_concat")
    assert torch.autograd.gradcheck(lambda x: rotate(x, tables), (x_bhnd,), fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: rotate(x, tables), (x_bhnd,), fast_mode=True)


def test_learned_tables_get_gradients() -> None:
    x_bhnd = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    cos_nc, sin_nc = (torch.randn(3, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, cos, sin: rotate(x, Tables(cos, sin)), (x_bhnd, cos_nc, sin_nc))


def test_sincos_table_by_hand() -> None:
    table_ijd = sincos_table(3, 4, 8, 10000.0).view(3, 4, 8)
    i, j = 2, 3
    expected = [math.sin(3), math.sin(0.03), math.cos(3), math.cos(0.03)]
    expected += [math.sin(2), math.sin(0.02), math.cos(2), math.cos(0.02)]
    assert table_ijd[i, j].tolist() == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="multiples of 4"):
        sincos_table(2, 2, 6, 100.0)


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


AXIAL = EncoderPositions("axial", 100.0, "replace")


@given(st.data(), st.sampled_from(list(SCHEMES)), st.floats(1.5, 1e6) | st.just(0))
def test_configuration_survives_json(data: st.DataObject, scheme: str, base: float) -> None:
    table = data.draw(st.sampled_from(SCHEMES[scheme].treatments))
    convention = data.draw(st.sampled_from([*SCHEMES[scheme].conventions, ""]))
    positions = EncoderPositions(scheme, base, table, convention)
    assert EncoderPositions.from_dict(json.loads(json.dumps(positions.to_dict()))) == positions
    assert set(positions.rule.treatments) <= set(TABLES)


def test_configurations_written_before_there_were_conventions_mean_the_same() -> None:
    old = EncoderPositions.from_dict({"scheme": "axial", "base": 100.0, "table": "replace"})
    assert old == AXIAL
    assert (old.convention, old.rule.angles) == ("rope_vit", axial_angles)
    assert EncoderPositions.from_dict({"scheme": "learned", "base": 100.0, "table": "keep"}) == EncoderPositions()


@pytest.mark.parametrize(
    ("values", "base"),
    [
        ({"scheme": "axial"}, 100.0),
        ({"scheme": "axial", "convention": "qwen2_vl"}, 10000.0),
        ({"scheme": "axial", "convention": "dinov3"}, 100.0),
        ({"scheme": "axial", "convention": "qwen2_vl", "base": 50}, 50),
        ({"scheme": "mixed"}, 10.0),
        ({"scheme": "rope1d"}, 10000.0),
        ({"scheme": "sincos", "table": "replace"}, 10000.0),
        ({"scheme": "released_concat", "table": "released"}, 10000.0),
    ],
)
def test_every_scheme_has_its_own_base(values: dict[str, Any], base: float) -> None:
    assert EncoderPositions.from_dict(values).base == base


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheme": "axal"}, 'did you mean "axial"'),
        ({"table": "replaced"}, 'did you mean "replace"'),
        ({"schem": "axial"}, 'unknown key "schem"; did you mean "scheme"'),
        ({"scheme": ["axial"]}, "unknown positional scheme"),
        ({"base": 1.0}, "base must be a number above 1"),
        ({"base": "100"}, "base must be a number above 1"),
        ({"base": float("nan")}, "base must be a number above 1"),
        ({"base": False}, "base must be a number above 1"),
        ({"scheme": "axial", "convention": "dino"}, 'did you mean "dinov3"'),
        ({"scheme": "mixed", "convention": "dinov3"}, "mixed has no conventions"),
        ({"scheme": "sincos"}, "sincos cannot have table 'keep', only 'replace'"),
        ({"scheme": "mixed", "table": "released"}, "mixed cannot have table 'released', only 'keep' or 'replace'"),
        ({"scheme": "learned", "table": "released"}, "learned cannot have table 'released'"),
    ],
)
def test_mistakes_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EncoderPositions.from_dict(values)
