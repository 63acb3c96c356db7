"""Every family's tokens against transformers' own: at any layer and size, in batches of several shapes, in LLaVA."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches

from blindspot.encoders import ENCODERS, TowerShape, build_tower, detect, features, grid_of, native_grid, normed_tokens
from blindspot.encoders.variable_resolution import pack, patchify
from blindspot.errors import UserError
from blindspot.positions import EncoderPositions
from blindspot.positions.encoder.attach import attach

ONE_SIZE = [name for name, encoder in ENCODERS.items() if not encoder.variable_resolution]
RESIZED_BY_TRANSFORMERS = ["clip", "siglip", "siglip2"]
families = pytest.mark.parametrize("family", list(ENCODERS))
one_size = pytest.mark.parametrize("family", ONE_SIZE)
Make = Callable[..., Any]


def pixels(height: int = 48, width: int = 48, count: int = 2) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@one_size
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("layer", [-1, -2, 0, 1])
def test_features_are_transformers_hidden_states(make_tower: Make, family: str, attention: str, layer: int) -> None:
    tower, encoder = make_tower(family, attention), ENCODERS[family]
    with torch.no_grad():
        states_bnd = tower(pixel_values=pixels(), output_hidden_states=True).hidden_states[layer]
        assert torch.equal(features(tower, encoder, pixels(), layer), states_bnd[:, encoder.prefix_tokens :])


@one_size
def test_normed_tokens_are_transformers_output_and_so_are_their_gradients(make_tower: Make, family: str) -> None:
    gradients = []
    for read in (lambda tower: normed_tokens(tower, ENCODERS[family], pixels()), lambda tower: _output(tower, family)):
        tower = make_tower(family)
        tokens_bnd = read(tower)
        tokens_bnd.square().sum().backward()
        gradients.append([tokens_bnd, *(p.grad for p in tower.parameters() if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 10
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def _output(tower: Any, family: str) -> Tensor:
    states_bnd = tower(pixel_values=pixels()).last_hidden_state
    return tower.post_layernorm(states_bnd) if family == "clip" else states_bnd  # CLIPVisionModel norms only CLS


@families
@pytest.mark.parametrize(("layer", "blocks"), [(-1, 3), (-2, 2), (1, 1), (0, 0)])
def test_blocks_beyond_the_layer_do_not_run(make_tower: Make, family: str, layer: int, blocks: int) -> None:
    tower, encoder, ran = make_tower(family), ENCODERS[family], []
    for index, block in enumerate(tower.get_submodule(encoder.blocks)):
        block.register_forward_hook(lambda module, args, output, index=index: ran.append(index))
    features(tower, encoder, pixels(), layer)
    assert ran == list(range(blocks))


@families
@pytest.mark.parametrize("layer", [3 + 1, -5])
def test_a_layer_that_is_not_there_is_refused(make_tower: Make, family: str, layer: int) -> None:
    with pytest.raises(UserError, match="has 3 blocks; give one of -4 to 3"):
        features(make_tower(family), ENCODERS[family], pixels(), layer)


@families
@settings(max_examples=8)
@given(height=st.integers(8, 80), width=st.integers(8, 80))
def test_there_is_one_token_per_patch_at_any_size(family: str, height: int, width: int) -> None:
    tower, encoder = _tower(family), ENCODERS[family]
    with torch.no_grad():
        features_bnd = features(tower, encoder, pixels(height, width))
    rows, columns = grid_of(encoder, tower.config, pixels(height, width))
    assert features_bnd.shape == (2, rows * columns, 32)
    assert (rows, columns) == (height // 8, width // 8)


_TOWERS: dict[str, Any] = {}


def _tower(family: str) -> Any:  # hypothesis refuses fixtures that are made anew for every test
    shape = TowerShape(width=32, layers=1, heads=2, mlp_width=64, image_size=48, patch_size=8)
    encoder = ENCODERS[family]
    return _TOWERS.setdefault(family, encoder.model_class(encoder.vision_config(shape)).eval())


@pytest.mark.parametrize("family", RESIZED_BY_TRANSFORMERS)
def test_another_size_takes_the_familys_interpolation(make_tower: Make, family: str) -> None:
    tower, encoder, images = make_tower(family), ENCODERS[family], pixels(32, 64)
    states = tower(pixel_values=images, interpolate_pos_encoding=True, output_hidden_states=True).hidden_states
    assert torch.equal(features(tower, encoder, images), states[-1][:, encoder.prefix_tokens :])


@pytest.mark.parametrize("family", ["dinov2", "dinov3"])
def test_dino_takes_any_size_by_itself(make_tower: Make, family: str) -> None:
    tower, encoder, images = make_tower(family), ENCODERS[family], pixels(32, 64)
    states = tower(pixel_values=images, output_hidden_states=True).hidden_states
    assert torch.equal(features(tower, encoder, images), states[-1][:, encoder.prefix_tokens :])


def test_aimv2_resizes_its_table_as_clip_does(make_tower: Make) -> None:
    tower, images = make_tower("aimv2"), pixels(32, 64)
    table_1dhw = tower.embeddings.position_embedding.weight.view(1, 6, 6, 32).permute(0, 3, 1, 2)
    resized_1dhw = F.interpolate(table_1dhw, size=(4, 8), mode="bicubic", align_corners=False)
    embedded_bnd = tower.embeddings.rms_norm(tower.embeddings.patch_embed(images).flatten(2).transpose(1, 2))
    expected_bnd = embedded_bnd + resized_1dhw.permute(0, 2, 3, 1).reshape(1, 32, 32)
    assert torch.equal(features(tower, ENCODERS["aimv2"], images, layer=0), expected_bnd)


@pytest.mark.parametrize("family", ["siglip", "siglip2"])
def test_siglip_keeps_its_first_patch(make_tower: Make, family: str) -> None:
    tower, images = make_tower(family), pixels()
    changed = images.clone()
    changed[:, :, :8, :8] += 1
    before_bnd, after_bnd = (features(tower, ENCODERS[family], x, layer=0) for x in (images, changed))
    assert (before_bnd != after_bnd).any(dim=2).nonzero()[:, 1].unique().tolist() == [0]


def test_registers_are_left_out_with_cls() -> None:
    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=48, patch_size=8, num_register_tokens=3
    )
    tower = Dinov2WithRegistersModel(config).eval()
    states_bnd = tower(pixel_values=pixels(), output_hidden_states=True).hidden_states[-2]
    assert detect(config).prefix_tokens_in(config) == 4
    assert torch.equal(features(tower, ENCODERS["dinov2"], pixels(), -2), states_bnd[:, 4:])


@families
def test_gradients_reach_every_weight_that_features_depend_on(make_tower: Make, family: str) -> None:
    tower, encoder = make_tower(family).train(), ENCODERS[family]
    features(tower, encoder, pixels()).square().sum().backward()
    unused = {name for name, weight in tower.named_parameters() if weight.grad is None or not weight.grad.any()}
    expected = {f"{encoder.final_norm}.weight", f"{encoder.final_norm}.bias", "embeddings.mask_token"}
    keys = {name for name in unused if name.endswith("k_proj.bias")}  # softmax does not see them: zero up to rounding
    assert unused - keys <= expected


@families
def test_gradient_checkpointing_changes_no_gradient(make_tower: Make, family: str) -> None:
    gradients = []
    for checkpointed in (False, True):
        tower = make_tower(family).train()
        if checkpointed:
            tower.activation_checkpointing_enable()
        torch.manual_seed(2)  # DINOv3 scales its coordinates at random in training
        features(tower, ENCODERS[family], pixels(), -2).square().sum().backward()
        gradients.append([p.grad for p in tower.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@families
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_half_precision_runs_and_stays_close(make_tower: Make, family: str, attention: str) -> None:
    tower, encoder, images = make_tower(family, attention), ENCODERS[family], pixels(40, 64)
    with torch.no_grad():
        exact_bnd = features(tower, encoder, images)
        half_bnd = features(tower.to(torch.bfloat16), encoder, images.to(torch.bfloat16))
    assert half_bnd.dtype == torch.bfloat16
    torch.testing.assert_close(half_bnd.float(), exact_bnd, atol=0.1 * exact_bnd.abs().max().item(), rtol=0.0)


@families
def test_rotation_follows_the_size_of_the_image(make_tower: Make, family: str) -> None:
    encoder, images, found = ENCODERS[family], pixels(32, 64), []
    for grid in ((6, 6), (4, 8)):
        tower = make_tower(family)
        attach(tower, EncoderPositions("axial", 100.0, "replace"), grid, encoder.prefix_tokens)
        found.append(features(tower, encoder, images))
    assert torch.equal(*found)
    assert not torch.equal(features(make_tower(family), encoder, images), found[0])


@families
def test_images_below_one_patch_are_refused(make_tower: Make, family: str) -> None:
    with pytest.raises(UserError, match="smaller than a patch"):
        features(make_tower(family), ENCODERS[family], pixels(7, 48))


@one_size
def test_rows_of_patches_need_a_family_that_takes_them(make_tower: Make, family: str) -> None:
    with pytest.raises(ValueError, match="one size"):
        features(make_tower(family), ENCODERS[family], torch.randn(1, 4, 192), grids_n2=torch.tensor([[2, 2]]))


@families
def test_the_native_grid_is_that_of_the_shape(make_tower: Make, family: str) -> None:
    assert native_grid(make_tower(family).config) == (6, 6)


SHAPE = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=48, patch_size=8)
POSITIONS = [EncoderPositions(), EncoderPositions("axial", 100.0, "replace")]
plain = pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "aimv2", "dinov2"])  # as Llava can express
schemes = pytest.mark.parametrize("positions", POSITIONS, ids=lambda positions: positions.scheme)


def tower_of(family: str, positions: EncoderPositions) -> Any:
    torch.manual_seed(0)
    return build_tower(ENCODERS[family], SHAPE, positions).eval()


@families
def test_features_are_the_last_block_before_the_final_norm(family: str) -> None:
    tower, encoder, pixels_bchw = tower_of(family, POSITIONS[0]), ENCODERS[family], torch.randn(2, 3, 48, 48)
    blocks: list[torch.Tensor] = []
    tower.get_submodule(encoder.blocks)[-1].register_forward_hook(lambda module, args, output: blocks.append(output))
    features_bnd = features(tower, encoder, pixels_bchw)
    assert torch.equal(features_bnd, blocks[0][:, encoder.prefix_tokens :])
    norm = tower.get_submodule(encoder.final_norm)
    assert torch.equal(normed_tokens(tower, encoder, pixels_bchw), norm(blocks[0]))


@families
def test_the_tower_owns_no_pooling_head(family: str) -> None:
    names = [name for name, _ in tower_of(family, POSITIONS[0]).named_parameters()]
    assert not [name for name in names if name.startswith("head")]


@plain
@schemes
def test_llava_reads_the_same_features(family: str, positions: EncoderPositions) -> None:
    encoder, tower = ENCODERS[family], tower_of(family, positions)
    text = LlamaConfig(
        vocab_size=16, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=1,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=encoder.vision_config(SHAPE),
        text_config=text,
        image_token_index=3,
        vision_feature_layer=-1,
        vision_feature_select_strategy=encoder.feature_select_strategy,
    )
    llava = LlavaForConditionalGeneration(config).eval()
    llava.set_attn_implementation("eager")
    carried: Any = llava.model.vision_tower
    assert isinstance(carried, encoder.model_class)
    carried.load_state_dict(tower.state_dict())
    attach(carried, positions, SHAPE.grid, encoder.prefix_tokens)
    pixels_bchw = torch.randn(2, 3, 48, 48)
    with torch.no_grad():
        output: Any = llava.model.get_image_features(
            pixels_bchw,
            vision_feature_layer=-1,
            vision_feature_select_strategy=encoder.feature_select_strategy,
            output_hidden_states=True,
        )
        expected_bnd = llava.model.multi_modal_projector(features(tower, encoder, pixels_bchw))
    assert torch.equal(torch.stack(list(output.pooler_output)), expected_bnd)


def test_families_are_named_as_registered_and_differ() -> None:
    assert all(name == encoder.name for name, encoder in ENCODERS.items())
    assert [encoder.label for encoder in ENCODERS.values()][:3] == ["CLIP", "SigLIP", "SigLIP2"]
    assert len({encoder.label for encoder in ENCODERS.values()}) == len(ENCODERS)
    prefixes = {name: encoder.prefix_tokens for name, encoder in ENCODERS.items() if encoder.prefix_tokens}
    assert prefixes == {"clip": 1, "dinov2": 1, "dinov3": 5}


@pytest.mark.parametrize(("image", "width", "message"), [(50, 32, "do not tile"), (48, 33, "do not divide")])
def test_impossible_shapes_are_refused(image: int, width: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TowerShape(width=width, layers=1, heads=2, mlp_width=64, image_size=image, patch_size=8)


GRIDS = [(6, 6), (2, 9), (5, 1), (1, 1)]
ragged = pytest.mark.parametrize("family", ["siglip2_naflex", "aimv2_native"])
implementations = pytest.mark.parametrize("attention", ["eager", "sdpa"])


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
