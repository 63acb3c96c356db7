"""Every family: its tokens, its classes, and that LLaVA reads the same features."""

from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from blindspot.encoders import ENCODERS, TowerShape, build_tower, features, normed_tokens
from blindspot.positions import EncoderPositions
from blindspot.positions.encoder.attach import attach

SHAPE = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=48, patch_size=8)
POSITIONS = [EncoderPositions(), EncoderPositions("axial", 100.0, "replace")]
families = pytest.mark.parametrize("family", list(ENCODERS))
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
