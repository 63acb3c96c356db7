"""What a cache remembers of images: right after it was reset or cut, refused where it cannot be right."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, StaticCache

from blindspot.connectors import ConnectorSpec
from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.build import LanguageShape, build_variant
from blindspot.positions import EncoderPositions, LanguagePositions

TOWER = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
IMAGE = 49
KINDS = {
    "mrope": (LanguagePositions("mrope"), ConnectorSpec()),
    "reset": (LanguagePositions("mrope", spatial_reset=True), ConnectorSpec()),
    "concentric": (LanguagePositions("concentric"), ConnectorSpec()),
    "gated": (LanguagePositions(), ConnectorSpec("gated_cross_attention")),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def variant(kind: str, positions: EncoderPositions = EncoderPositions()) -> Any:  # noqa: B008  (frozen)
    torch.manual_seed(0)
    language = LanguageShape(32, 2, 2, 64, 100.0, IMAGE + 1).config(0, 1, 2)
    place, connector = KINDS[kind]
    model = build_variant(
        ENCODERS["clip"], TOWER, positions, language, IMAGE, language_positions=place, connector=connector
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1 or "gate" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def row(model: Any, *words: int) -> Tensor:
    return torch.tensor([[1, *[IMAGE] * model.tokens_per_image, *words]])


def picture(seed: int = 0) -> Tensor:
    return torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: Any, **inputs: Any) -> Tensor:
    return model(**inputs).logits


@kinds
def test_a_cache_that_was_reset_begins_anew(kind: str) -> None:
    if kind == "concentric":
        pytest.skip("needs a cache that grows, see below")
    model = variant(kind)
    cache = StaticCache(config=model.config.text_config, max_cache_len=64)
    logits(model, input_ids=row(model, 5, 6), pixel_values=picture(), past_key_values=cache)
    cache.reset()
    text = torch.tensor([[1, 7, 8, 9]])
    again = logits(model, input_ids=text, past_key_values=cache)
    torch.testing.assert_close(again, logits(model, input_ids=text), rtol=1e-4, atol=1e-4)


@kinds
def test_a_cache_may_be_cut_behind_its_images_but_not_before(kind: str) -> None:
    model, inputs = variant(kind), {"pixel_values": picture()}
    ids = row(model, 5, 6)
    cache = DynamicCache(config=model.config.text_config)
    logits(model, input_ids=ids, past_key_values=cache, **inputs)
    logits(model, input_ids=torch.tensor([[7, 8]]), past_key_values=cache)
    cache.crop(-2)
    step = logits(model, input_ids=torch.tensor([[9]]), past_key_values=cache)
    whole = logits(model, input_ids=torch.cat([ids, torch.tensor([[9]])], dim=1), **inputs)
    torch.testing.assert_close(step[:, -1], whole[:, -1], rtol=1e-4, atol=1e-4)
    cache.crop(1 - cache.get_seq_length())
    with pytest.raises(ValueError, match="begin with an empty one"):
        logits(model, input_ids=torch.tensor([[9]]), past_key_values=cache)


@kinds
@pytest.mark.parametrize("use_cache", [None, True])
def test_what_transformers_calls_the_default_keeps_the_images(kind: str, use_cache: bool | None) -> None:
    model, inputs = variant(kind), {"pixel_values": picture()}
    ids = row(model, 5, 6)
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=use_cache, **inputs).past_key_values
    step = logits(model, input_ids=torch.tensor([[9]]), past_key_values=cache)
    whole = logits(model, input_ids=torch.cat([ids, torch.tensor([[9]])], dim=1), **inputs)
    torch.testing.assert_close(step[:, -1], whole[:, -1], rtol=1e-4, atol=1e-4)


def test_another_models_cache_is_refused() -> None:
    model = variant("mrope")
    cache = DynamicCache(config=model.config.text_config)
    with torch.no_grad():
        model.model.language_model(
            input_ids=torch.tensor([[1, 5]]), attention_mask=torch.ones(1, 2), past_key_values=cache
        )
    with pytest.raises(ValueError, match="without the variant's forward pass"):
        logits(model, input_ids=torch.tensor([[6]]), past_key_values=cache)


def test_rings_need_a_cache_that_grows() -> None:
    model = variant("concentric")
    with pytest.raises(ValueError, match="a cache that grows"):
        model.generate(input_ids=row(model, 5), pixel_values=picture(), cache_implementation="static", max_new_tokens=2)


@kinds
def test_a_placeholder_that_the_model_writes_is_a_word(kind: str) -> None:
    model = variant(kind)
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[IMAGE] = 1
        model.model.language_model.norm.weight.abs_()
    ids = row(model, 5, 6)
    forced = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        pixel_values=picture(),
        max_new_tokens=3,
        prefix_allowed_tokens_fn=lambda batch, sequence: [IMAGE],
    )
    assert forced[0, ids.shape[1] :].tolist() == [IMAGE] * 3


@kinds
def test_images_and_placeholders_must_agree(kind: str) -> None:
    model = variant(kind)
    two = torch.cat([picture(1), picture(2)])
    for ids in (row(model, 5), torch.tensor([[1, 5, 6]])):
        with pytest.raises(ValueError, match="placeholders"):
            logits(model, input_ids=ids, pixel_values=two)


def test_gated_documents_packed_into_one_row_do_not_see_each_others_image() -> None:
    model = variant("gated")
    documents = [torch.tensor([[1, IMAGE, 5, 6]]), torch.tensor([[1, 7, 8, 9]]), torch.tensor([[1, 4, IMAGE, 3]])]
    pictures = torch.cat([picture(1), picture(2)])
    number = torch.arange(12) // 4
    causal = torch.ones(12, 12, dtype=torch.bool).tril() & (number[:, None] == number)
    mask = torch.zeros(1, 1, 12, 12).masked_fill(~causal, torch.finfo(torch.float32).min)
    packed = logits(
        model,
        input_ids=torch.cat(documents, dim=1),
        pixel_values=pictures,
        position_ids=torch.arange(4).repeat(3)[None],
        attention_mask=mask,
    )
    alone = [
        logits(model, input_ids=documents[0], pixel_values=pictures[:1]),
        logits(model, input_ids=documents[1]),
        logits(model, input_ids=documents[2], pixel_values=pictures[1:]),
    ]
    torch.testing.assert_close(packed, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-4)


def test_the_released_table_freezes_the_encoder() -> None:
    model = variant("mrope", EncoderPositions("released_concat", table="released"))
    assert not any(parameter.requires_grad for parameter in model.model.vision_tower.parameters())
