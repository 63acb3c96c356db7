"""Learnable rotary positions: their start, their gradients, and that nothing loses them."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from blindspot.positions.encoder import EncoderPositions
from blindspot.positions.encoder.attach import attach
from blindspot.positions.encoder.rotary import attention_modules, rotate, tables_of
from blindspot.positions.encoder.schemes import axis_frequencies, mixed_frequencies
from tests.positions.encoder.towers import tower_of

MIXED = EncoderPositions("mixed", table="replace")


def features(tower: Any) -> Tensor:
    pixels_bchw = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return tower(pixel_values=pixels_bchw).last_hidden_state


@given(st.integers(1, 4), st.sampled_from([4, 8, 32]), st.sampled_from([10.0, 100.0]))
def test_heads_start_as_axial_in_a_turned_frame(heads: int, dim: int, base: float) -> None:
    row_hp, column_hp = mixed_frequencies(heads, dim, base)
    lengths_hp = torch.hypot(row_hp, column_hp)
    expected_p = axis_frequencies(dim, base).float().repeat(2)
    torch.testing.assert_close(lengths_hp, expected_p.expand(heads, -1))
    phi_hp = torch.atan2(row_hp, column_hp)
    first_hm, second_hm = phi_hp.chunk(2, dim=1)
    torch.testing.assert_close((second_hm - first_hm) % (2 * math.pi), torch.full_like(first_hm, math.pi / 2))
    torch.testing.assert_close(phi_hp.cos()[:, : dim // 4], phi_hp.cos()[:, :1].expand(-1, dim // 4))


def test_axial_frequencies_make_it_axial() -> None:
    tower = tower_of("clip", EncoderPositions("mixed", base=100.0))
    plain = tower_of("clip", EncoderPositions("axial"))
    frequencies_m = axis_frequencies(16, 100.0).float()
    zero_m = torch.zeros(4)
    axial_ap = torch.stack([torch.cat([frequencies_m, zero_m]), torch.cat([zero_m, frequencies_m])])
    with torch.no_grad():
        for module in attention_modules(tower):
            module.rotation.frequencies.copy_(axial_ap[:, None].expand(-1, 2, -1))
        torch.testing.assert_close(features(tower), features(plain), rtol=1e-4, atol=1e-5)


def test_every_head_turns_by_its_own_frequencies() -> None:
    module = attention_modules(tower_of("clip", MIXED))[0]
    frequencies_ahp = module.rotation.frequencies.detach()
    x_bhnd = torch.randn(1, 2, 17, 16)
    turned_bhnd = rotate(x_bhnd, module.rotation.tables(x_bhnd, False)).detach()
    assert torch.equal(turned_bhnd[:, :, 0], x_bhnd[:, :, 0])  # CLS
    rows_n, columns_n = torch.arange(4).repeat_interleave(4), torch.arange(4).repeat(4)
    for head in range(2):
        row_p, column_p = frequencies_ahp[:, head]
        by_hand = tables_of(rows_n[:, None] * row_p + columns_n[:, None] * column_p, prefix_tokens=1)
        expected_1nd = rotate(x_bhnd[:, head : head + 1], by_hand)[:, 0]
        torch.testing.assert_close(turned_bhnd[:, head], expected_1nd)


def test_frequencies_are_trained_saved_and_not_drawn_again(tmp_path: Path) -> None:
    tower = tower_of("clip", MIXED)
    names = [name for name, _ in tower.named_parameters() if name.endswith("rotation.frequencies")]
    assert len(names) == 2 and set(names) <= set(tower.state_dict())
    features(tower).square().sum().backward()
    gradients = [tower.get_parameter(name).grad for name in names]
    assert all(gradient.abs().min() > 0 for gradient in gradients)

    parameters = [tower.get_parameter(name) for name in names]
    before = features(tower)
    attach(tower, MIXED, 4, 1)
    assert all(tower.get_parameter(name) is parameter for name, parameter in zip(names, parameters, strict=True))
    assert torch.equal(features(tower), before)
    tower.set_attn_implementation("sdpa")
    attach(tower, MIXED, 4, 1)
    torch.testing.assert_close(features(tower), before, rtol=1e-4, atol=1e-5)
    tower.set_attn_implementation("eager")
    attach(tower, MIXED, 4, 1)

    fresh = tower_of("clip", MIXED)
    with torch.no_grad():
        for name in names:
            fresh.get_parameter(name).zero_()
    fresh.load_state_dict(tower.state_dict())
    attach(fresh, MIXED, 4, 1)
    assert torch.equal(features(fresh), before)

    attach(tower, EncoderPositions("axial", table="replace"), 4, 1)
    assert not any("rotation" in name for name in tower.state_dict())


def test_a_copy_trains_apart() -> None:
    tower = tower_of("clip", MIXED)
    teacher = copy.deepcopy(tower)
    before = features(teacher)
    with torch.no_grad():
        attention_modules(tower)[0].rotation.frequencies.mul_(2)
    assert torch.equal(features(teacher), before)
    assert not torch.equal(features(tower), before)


def test_angles_stay_precise_under_autocast_and_in_bfloat16() -> None:
    module = attention_modules(tower_of("clip", MIXED))[0]
    x_bhnd = torch.randn(1, 2, 17, 16, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tables = module.rotation.tables(x_bhnd, False)
    exact = module.rotation.tables(x_bhnd.float(), False)
    assert tables.cos.dtype == torch.bfloat16
    assert torch.equal(tables.cos, exact.cos.bfloat16()) and torch.equal(tables.sin, exact.sin.bfloat16())


def test_head_dimensions_are_checked() -> None:
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        mixed_frequencies(2, 6, 10.0)
