"""Which patches an encoder sees: one grid, one per image, padded batches, and what happens to tables in between."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from blindspot.positions.encoder import EncoderPositions
from blindspot.positions.encoder.attach import attach, set_grids
from blindspot.positions.encoder.rotary import attention_modules, patch_grid_of, rotate, tables_of
from blindspot.positions.encoder.schemes import axial_angles
from tests.positions.encoder.towers import tower_of

SCHEMES = {
    "axial": EncoderPositions("axial", table="replace"),
    "dinov3": EncoderPositions("axial", table="keep", convention="dinov3"),
    "mixed": EncoderPositions("mixed", table="keep"),
    "released_concat": EncoderPositions("released_concat", table="released"),
    "released_sqfreq": EncoderPositions("released_sqfreq", table="released"),
}
schemes = pytest.mark.parametrize("scheme", SCHEMES)


def run(tower: Any, patches_bnp: Tensor, grids: list[tuple[int, int]], told: bool = True) -> Tensor:
    """Features of a padded batch, shape (batch, most patches, 32)."""
    if told:
        set_grids(tower, grids)
    counts_b1 = torch.tensor([[h * w] for h, w in grids])
    mask_bn = torch.arange(patches_bnp.shape[1]) < counts_b1
    return tower(
        pixel_values=patches_bnp, pixel_attention_mask=mask_bn, spatial_shapes=torch.tensor(grids)
    ).last_hidden_state


def images(*counts: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    patches = [torch.randn(count, 192, generator=generator) for count in counts]
    return torch.nn.utils.rnn.pad_sequence(patches, batch_first=True)


@schemes
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_images_of_several_sizes_do_as_each_alone(scheme: str, attention: str) -> None:
    tower = tower_of("siglip2_naflex", SCHEMES[scheme], attention)
    grids = [(3, 5), (4, 2), (5, 3), (1, 1)]
    batch_bnp = images(*(h * w for h, w in grids))
    together_bnd = run(tower, batch_bnp, grids)
    assert together_bnd.isfinite().all()
    for image, (height, width) in enumerate(grids):
        count = height * width
        alone_1nd = run(tower, batch_bnp[image : image + 1, :count], [(height, width)])
        torch.testing.assert_close(together_bnd[image : image + 1, :count], alone_1nd, rtol=1e-4, atol=1e-5)
    # The first and third have as many patches: only their grids tell them apart.
    wrong_bnd = run(tower, batch_bnp, [grids[2], grids[1], grids[0], grids[3]])
    assert (wrong_bnd[0] - together_bnd[0]).abs().max() > 1e-2


@schemes
@torch.no_grad()
def test_padding_beyond_the_largest_image_changes_nothing(scheme: str) -> None:
    tower = tower_of("siglip2_naflex", SCHEMES[scheme])
    patches_1np = images(6)
    padded_1np = torch.nn.functional.pad(patches_1np, (0, 0, 0, 10))
    torch.testing.assert_close(run(tower, padded_1np, [(2, 3)])[:, :6], run(tower, patches_1np, [(2, 3)]))


@torch.no_grad()
def test_without_a_call_the_grid_of_attach_holds_and_wrong_ones_are_noticed() -> None:
    tower = tower_of("siglip2_naflex", SCHEMES["axial"])
    told_bnd = run(tower, images(16, 16), [(4, 4)] * 2)
    fresh = tower_of("siglip2_naflex", SCHEMES["axial"])
    assert torch.equal(run(fresh, images(16, 16), [(4, 4)] * 2, told=False), told_bnd)
    with pytest.raises(ValueError, match="given 12 tokens, but positions are set for patches of 4 x 4"):
        run(fresh, images(12), [(3, 4)], told=False)
    with pytest.raises(ValueError, match="given 25 tokens"):
        run(fresh, images(25), [(5, 5)], told=False)
    set_grids(fresh, [(4, 4), (2, 8)])
    with pytest.raises(ValueError, match="set for 2 images, but the encoder is given 3"):
        run(fresh, images(16, 16, 16), [(4, 4)] * 3, told=False)
    for nonsense in ([], [(0, 4)]):
        with pytest.raises(ValueError, match="at least one patch"):
            set_grids(fresh, nonsense)


def test_attach_takes_a_grid_that_is_not_square() -> None:
    tower = tower_of("siglip2_naflex", SCHEMES["axial"])
    attach(tower, SCHEMES["axial"], (2, 8), 0)
    x_bhnd = torch.randn(1, 2, 16, 16)
    tables = attention_modules(tower)[0].rotation.tables(x_bhnd, False)
    by_hand = tables_of(axial_angles(2, 8, 16, 100.0).float(), heads=2)
    torch.testing.assert_close(rotate(x_bhnd, tables), rotate(x_bhnd, by_hand))


def test_set_grids_leaves_a_tower_without_rotation_alone() -> None:
    tower = tower_of("siglip2_naflex", EncoderPositions())
    set_grids(tower, [(3, 3)])
    assert patch_grid_of(tower) is None


def test_tables_are_made_once_per_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    tower = tower_of("siglip2_naflex", SCHEMES["axial"])
    places = patch_grid_of(tower)
    assert places is not None
    made = type(places)._of_grid
    monkeypatch.setattr(type(places), "_of_grid", lambda self, *args: calls.append(args) or made(self, *args))
    for grids in ([(3, 5), (5, 3)], [(3, 5), (5, 3)], [(5, 3), (3, 5)], [(3, 5)]):
        run(tower, images(*[15] * len(grids)), grids)
    assert calls == [((3, 5), 16), ((5, 3), 16)]


@schemes
def test_a_copy_has_its_own_grids(scheme: str) -> None:
    tower = tower_of("siglip2_naflex", SCHEMES[scheme])
    before_bnd = run(tower, images(15), [(3, 5)])
    teacher = copy.deepcopy(tower)
    other_bnd = run(teacher, images(15), [(5, 3)])
    assert torch.equal(run(tower, images(15), [(3, 5)], told=False), before_bnd)
    assert not torch.equal(other_bnd, before_bnd)
    assert torch.equal(run(teacher, images(15), [(3, 5)]), before_bnd)


@schemes
def test_training_works_after_inference_mode_and_casts(scheme: str) -> None:
    tower = tower_of("siglip2_naflex", SCHEMES[scheme])
    with torch.inference_mode():
        run(tower, images(15, 8), [(3, 5), (4, 2)])
    trained_bnd = run(tower, images(15, 8), [(3, 5), (4, 2)])
    trained_bnd.sum().backward()
    assert attention_modules(tower)[0].q_proj.weight.grad.abs().sum() > 0
    with torch.no_grad():
        half_bnd = run(copy.deepcopy(tower).bfloat16(), images(15, 8), [(3, 5), (4, 2)])
        assert half_bnd.dtype == torch.bfloat16
        double_bnd = run(copy.deepcopy(tower).double(), images(15, 8), [(3, 5), (4, 2)])
    torch.testing.assert_close(double_bnd[0].float(), trained_bnd[0].detach(), rtol=1e-3, atol=1e-4)
    assert (half_bnd[0].float() - trained_bnd[0]).abs().mean() < 0.1


@schemes
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing_enable` is deprecated")
def test_gradient_checkpointing_gives_the_same_gradients(scheme: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        tower = tower_of("siglip2_naflex", SCHEMES[scheme]).train()
        if checkpointing:
            tower.gradient_checkpointing_enable()
        run(tower, images(15, 8), [(3, 5), (4, 2)])[:, :8].square().sum().backward()
        gradients.append([p.grad for p in tower.parameters() if p.grad is not None])
    assert len(gradients[0]) > 20
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, checkpointed)
