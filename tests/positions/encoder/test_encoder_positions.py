"""What attaching positions does to a tower, on every family."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blindspot.encoders import ENCODERS, TowerShape, build_tower, normed_tokens
from blindspot.encoders import features as patch_features
from blindspot.positions.encoder import SCHEMES, EncoderPositions, Scheme
from blindspot.positions.encoder.attach import attach, computes, table_of
from blindspot.positions.encoder.rotary import attention_modules
from blindspot.positions.encoder.schemes import axial_angles

SHAPE = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
LEARNED = EncoderPositions()
AXIAL = EncoderPositions("axial", 100.0, "replace")
NOWHERE = EncoderPositions("learned", 100.0, "replace")
families = pytest.mark.parametrize("family", list(ENCODERS))
implementations = pytest.mark.parametrize("attention", ["eager", "sdpa"])


def tower_of(family: str, positions: EncoderPositions, attention: str = "eager") -> Any:
    torch.manual_seed(0)
    tower = build_tower(ENCODERS[family], SHAPE, positions, attention)
    for parameter in tower.parameters():  # the families' small initial weights would hide differences
        if parameter.requires_grad and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    return tower.eval()


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
def test_weights_loaded_into_a_fresh_tower_give_the_same_bits(family: str) -> None:
    tower = tower_of(family, AXIAL)
    config = ENCODERS[family].vision_config(SHAPE)
    config._attn_implementation = "eager"
    fresh = ENCODERS[family].model_class(config)
    fresh.load_state_dict(tower.state_dict())
    attach(fresh, AXIAL, SHAPE.grid, ENCODERS[family].prefix_tokens)
    assert torch.equal(features(fresh, family, pixels()), features(tower, family, pixels()))


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
