"""What attaching positions does to a tower, on every family, also to the positions that it has by itself."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    PreTrainedModel,
)

from blindspot.encoders import ENCODERS, TowerShape, build_tower, normed_tokens
from blindspot.encoders import features as patch_features
from blindspot.errors import UserError
from blindspot.positions.encoder import SCHEMES, EncoderPositions, Scheme
from blindspot.positions.encoder.attach import attach, computes, silenced, start_table, table_of, table_side
from blindspot.positions.encoder.rotary import attention_modules
from blindspot.positions.encoder.schemes import axial_angles, sincos_table
from tests.positions.encoder.towers import SHAPE, tower_of

LEARNED = EncoderPositions()
AXIAL = EncoderPositions("axial", 100.0, "replace")
NOWHERE = EncoderPositions("learned", 100.0, "replace")
families = pytest.mark.parametrize("family", list(ENCODERS))
implementations = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def features(tower: Any, family: str, pixels_bchw: Tensor) -> Tensor:
    with torch.no_grad():
        return patch_features(tower, ENCODERS[family], pixels_bchw)


def pixels() -> Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@families
def test_learned_positions_change_nothing(family: str) -> None:
    torch.manual_seed(0)
    config = ENCODERS[family].vision_config(SHAPE)
    config._attn_implementation = "eager"
    plain = ENCODERS[family].model_class(config).eval()
    ours = build_tower(ENCODERS[family], SHAPE, LEARNED).eval()
    ours.load_state_dict(plain.state_dict())
    assert torch.equal(features(plain, family, pixels()), features(ours, family, pixels()))


@families
@implementations
def test_axial_changes_the_features_and_agrees_between_implementations(family: str, attention: str) -> None:
    axial = features(tower_of(family, AXIAL, attention), family, pixels())
    nowhere = features(tower_of(family, NOWHERE, attention), family, pixels())
    assert (axial - nowhere).abs().max() > 0.05
    torch.testing.assert_close(axial, features(tower_of(family, AXIAL), family, pixels()), rtol=1e-3, atol=1e-4)


@families
@implementations
def test_zero_angles_are_no_positions(family: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    still_scheme = Scheme(100.0, lambda height, width, dim, base: torch.zeros(height * width, dim // 2))
    monkeypatch.setitem(SCHEMES, "still", still_scheme)
    still = features(tower_of(family, EncoderPositions("still", table="replace"), attention), family, pixels())
    torch.testing.assert_close(still, features(tower_of(family, NOWHERE, attention), family, pixels()))


@families
@implementations
def test_attention_turns_both_queries_and_keys_as_complex_numbers(family: str, attention: str) -> None:
    """The definition, in complex numbers: score = Re(q e^(i a_q) conj(k e^(i a_k))) / sqrt(D), CLS at angle 0."""
    prefix = ENCODERS[family].prefix_tokens
    module = attention_modules(tower_of(family, AXIAL, attention))[0]
    angles_np = torch.cat([torch.zeros(prefix, 8), axial_angles(4, 4, 16, 100.0)])
    x_bnd = torch.randn(2, prefix + 16, 32, generator=torch.Generator().manual_seed(4))
    own_turn = {"position_embeddings": (torch.ones(16, 16), torch.zeros(16, 16))} if family == "dinov3" else {}
    with torch.no_grad():
        ours_bnd = module(x_bnd, **own_turn)[0]
        heads = [projection(x_bnd).unflatten(-1, (2, 16)) for projection in (module.q_proj, module.k_proj)]
        q_bnhp, k_bnhp = (
            torch.complex(x_bnhd[..., :8].double(), x_bnhd[..., 8:].double())
            * torch.polar(torch.ones_like(angles_np), angles_np)[:, None]
            for x_bnhd in heads
        )
        scores_bhnm = torch.einsum("bnhp,bmhp->bhnm", q_bnhp, k_bnhp.conj()).real / 4
        values_bnhd = module.v_proj(x_bnd).unflatten(-1, (2, 16)).double()
        mixed_bnhd = torch.einsum("bhnm,bmhd->bnhd", scores_bhnm.softmax(dim=-1), values_bnhd)
        last = module.out_proj if hasattr(module, "out_proj") else module.o_proj
        torch.testing.assert_close(ours_bnd, last(mixed_bnhd.flatten(2).float()), rtol=1e-4, atol=1e-5)


@families
@implementations
def test_additive_masks_reach_the_attention(family: str, attention: str) -> None:
    """With every token seeing only itself, rotation cancels: the masked tower equals one without positions."""
    tokens = 16 + ENCODERS[family].prefix_tokens
    mask_11nn = torch.full((tokens, tokens), float("-inf")).fill_diagonal_(0.0)[None, None]
    with torch.no_grad():
        axial, nowhere = (
            normed_tokens(tower_of(family, positions, attention), ENCODERS[family], pixels(), mask_11nn)
            for positions in (AXIAL, NOWHERE)
        )
    torch.testing.assert_close(axial, nowhere, rtol=1e-4, atol=1e-5)


@families
def test_only_positions_tell_a_tower_the_order_of_patches(family: str) -> None:
    order = torch.randperm(16, generator=torch.Generator().manual_seed(2))
    patches_bnd = nn.functional.unfold(pixels(), 8, stride=8)
    shuffled_bchw = nn.functional.fold(patches_bnd[:, :, order], (32, 32), 8, stride=8)
    nowhere, axial = tower_of(family, NOWHERE), tower_of(family, AXIAL)
    torch.testing.assert_close(
        features(nowhere, family, shuffled_bchw), features(nowhere, family, pixels())[:, order], rtol=1e-3, atol=1e-4
    )
    moved = features(axial, family, shuffled_bchw) - features(axial, family, pixels())[:, order]
    assert moved.abs().max() > 0.05


@families
def test_attaching_again_is_harmless(family: str) -> None:
    tower = tower_of(family, AXIAL)
    before = features(tower, family, pixels())
    attach(tower, AXIAL, SHAPE.grid, ENCODERS[family].prefix_tokens)
    assert torch.equal(features(tower, family, pixels()), before)
    attach(copied := copy.deepcopy(tower), LEARNED, SHAPE.grid, ENCODERS[family].prefix_tokens)
    assert copied.config._attn_implementation == "eager"
    assert torch.equal(features(tower, family, pixels()), before)
    # A table that was replaced stays zero; what a family computes comes back.
    expected = LEARNED if computes(tower) else NOWHERE
    assert torch.equal(features(copied, family, pixels()), features(tower_of(family, expected), family, pixels()))


@families
def test_a_dropped_rotation_is_noticed_and_can_be_attached_again(family: str) -> None:
    tower = tower_of(family, AXIAL)
    before = features(tower, family, pixels())
    tower.set_attn_implementation("sdpa")
    with pytest.raises(RuntimeError, match="attach again"):
        features(tower, family, pixels())
    attach(tower, AXIAL, SHAPE.grid, ENCODERS[family].prefix_tokens)
    torch.testing.assert_close(features(tower, family, pixels()), before, rtol=1e-3, atol=1e-4)


@families
def test_the_replaced_table_is_zero_and_frozen(family: str) -> None:
    tower = tower_of(family, AXIAL)
    frozen = [p for p in tower.parameters() if not p.requires_grad]
    table = table_of(tower)
    assert len(frozen) == (0 if computes(tower) else 1)
    assert all(p is table and not p.any() for p in frozen)
    kept = tower_of(family, EncoderPositions("axial", 100.0, "keep"))
    assert all(parameter.requires_grad for parameter in kept.parameters())


def test_towers_that_cannot_be_rotated_are_refused() -> None:
    with pytest.raises(ValueError, match="no attention module"):
        attention_modules(nn.Linear(2, 2))
    shape = TowerShape(width=36, layers=1, heads=6, mlp_width=64, image_size=32, patch_size=8)
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        build_tower(ENCODERS["siglip"], shape, AXIAL)


TABLES = [name for name, encoder in ENCODERS.items() if encoder.table == "learned"]
COMPUTED = [name for name, encoder in ENCODERS.items() if encoder.table != "learned"]


def run(tower: Any, family: str, order_n: Tensor | None = None) -> Tensor:
    pixels_bchw = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    if order_n is not None:
        patches_bnp = nn.functional.unfold(pixels_bchw, 8, stride=8)
        pixels_bchw = nn.functional.fold(patches_bnp[:, :, order_n], (32, 32), 8, stride=8)
    return features(tower, family, pixels_bchw)


@families
def test_families_say_themselves_where_their_positions_are(family: str) -> None:
    encoder, tower = ENCODERS[family], tower_of(family, EncoderPositions())
    table = table_of(tower)
    assert (table is not None) == (encoder.table == "learned")
    assert computes(tower) == (encoder.table != "learned")
    if table is not None:
        assert any(table is p for p in tower.get_submodule(encoder.table_at.rpartition(".")[0]).parameters())


def registered() -> PreTrainedModel:
    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8, num_register_tokens=3
    )
    return Dinov2WithRegistersModel(config).eval()


@pytest.mark.parametrize("family", TABLES)
def test_tables_are_started_with_a_zero_row_for_cls(family: str) -> None:
    tower = tower_of(family, EncoderPositions())
    start_table(tower, 4, ENCODERS[family].prefix_tokens)
    table = table_of(tower)
    assert table is not None
    rows_nd = table.view(-1, 32)
    assert not rows_nd[:-16].any()
    assert torch.equal(rows_nd[-16:], sincos_table(4, 4, 32, 100.0))
    with pytest.raises(ValueError, match="not for 3 x 4 patches"):
        start_table(tower, (3, 4), ENCODERS[family].prefix_tokens)


def test_registers_have_no_row_in_the_table_and_are_not_turned() -> None:
    tower = registered()
    start_table(tower, 4, 4)
    table = table_of(tower)
    assert table is not None and table.shape == (1, 17, 32)
    attach(tower, EncoderPositions("axial", table="replace"), 4, 4)
    assert not table.any() and not table.requires_grad
    pixels_bchw = torch.randn(1, 3, 32, 32)
    assert tower(pixel_values=pixels_bchw).last_hidden_state.shape == (1, 20, 32)


@pytest.mark.parametrize("family", TABLES)
def test_sincos_stands_in_the_table_and_is_frozen(family: str) -> None:
    positions = EncoderPositions("sincos", 50.0, "replace")
    tower = tower_of(family, positions)
    table = table_of(tower)
    assert table is not None and not table.requires_grad
    rows_nd = table.view(-1, 32)
    assert torch.equal(rows_nd[-16:], sincos_table(4, 4, 32, 50.0)) and not rows_nd[:-16].any()
    before_bnd = run(tower, family)
    half = copy.deepcopy(tower).bfloat16()
    half_nd = table_of(half)
    assert half_nd is not None
    written_nd = half_nd.clone()
    attach(half, positions, 4, ENCODERS[family].prefix_tokens)
    assert torch.equal(half_nd, written_nd)
    attach(tower, NOWHERE, 4, ENCODERS[family].prefix_tokens)
    assert (run(tower, family) - before_bnd).abs().max() > 1e-2


@pytest.mark.parametrize("family", COMPUTED)
def test_sincos_without_a_table_is_refused(family: str) -> None:
    with pytest.raises(UserError, match="sincos needs a position table to stand in"):
        tower_of(family, EncoderPositions("sincos", table="replace"))


@pytest.mark.parametrize("family", COMPUTED)
def test_computed_positions_are_switched_off_and_on_again(family: str) -> None:
    encoder, order_n = ENCODERS[family], torch.randperm(16, generator=torch.Generator().manual_seed(2))
    tower = tower_of(family, EncoderPositions())
    plain_bnd = run(tower, family)
    assert not silenced(tower)
    attach(tower, NOWHERE, 4, encoder.prefix_tokens)
    assert silenced(tower)
    nowhere_bnd = run(tower, family)
    torch.testing.assert_close(run(tower, family, order_n), nowhere_bnd[:, order_n], rtol=1e-3, atol=1e-4)
    assert (nowhere_bnd - plain_bnd).abs().max() > 1e-2
    teacher = copy.deepcopy(tower)
    attach(teacher, EncoderPositions(), 4, encoder.prefix_tokens)
    assert torch.equal(run(teacher, family), plain_bnd)
    assert torch.equal(run(tower, family), nowhere_bnd)


def test_aimv2_native_is_switched_off_in_its_own_forward_pass() -> None:
    tower = tower_of("aimv2_native", NOWHERE)
    pixels_bchw = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        theirs_bnd = tower(pixel_values=pixels_bchw, output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(run(tower, "aimv2_native"), theirs_bnd, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("table", ["keep", "replace"])
def test_dinov3_turns_once(table: str) -> None:
    """Our rotation under its convention is its own; under another it takes its place."""
    theirs_bnd = run(tower_of("dinov3", EncoderPositions()), "dinov3")
    ours = tower_of("dinov3", EncoderPositions("axial", table=table, convention="dinov3"))
    torch.testing.assert_close(run(ours, "dinov3"), theirs_bnd, rtol=1e-4, atol=1e-5)
    other = run(tower_of("dinov3", EncoderPositions("axial", table=table)), "dinov3")
    assert (other - theirs_bnd).abs().max() > 1e-2


def test_aimv2_native_keeps_its_sines_beside_a_rotation() -> None:
    kept, dropped = (tower_of("aimv2_native", EncoderPositions("axial", table=table)) for table in ("keep", "replace"))
    assert (run(kept, "aimv2_native") - run(dropped, "aimv2_native")).abs().max() > 1e-2
    assert (silenced(kept), silenced(dropped)) == (False, True)


def test_released_zeroes_the_table_as_replace_does() -> None:
    towers = [tower_of("clip", EncoderPositions("axial", table=table)) for table in ("released", "replace")]
    for name, parameter in towers[0].named_parameters():
        other = towers[1].get_parameter(name)
        assert torch.equal(parameter, other) and parameter.requires_grad == other.requires_grad
    assert EncoderPositions("axial", table="released").frozen_encoder
    assert not EncoderPositions("axial", table="replace").frozen_encoder


def test_towers_that_are_not_known_are_refused() -> None:
    with pytest.raises(UserError, match="has no position table that Blindspot knows; use table 'keep'"):
        attach(nn.Linear(2, 2), NOWHERE, 4, 0)  # pyright: ignore
    attach(nn.Linear(2, 2), EncoderPositions(), 4, 0)  # pyright: ignore
    config = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8
    )
    config.patch_size = 4
    two = nn.ModuleList([CLIPVisionModel(config), CLIPVisionModel(config)])
    with pytest.raises(ValueError, match="expected one learned position table, found 2"):
        table_of(two)
    small = Dinov2Config(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
    table = table_of(Dinov2Model(small))
    assert table is not None and table_side(table) == 2
    with pytest.raises(ValueError, match="belongs to no square grid"):
        table_side(nn.Parameter(torch.zeros(7, 8)))
