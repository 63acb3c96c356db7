"""The catalogue's numbers against the ones of the model cards, and what it says differs."""

from dataclasses import replace

import pytest
from rich.console import Console
from transformers import CLIPVisionConfig, LlamaConfig

from blindspot.encoders import ENCODERS, TowerShape, detect
from blindspot.encoders.catalogue import as_conventions, as_table, describe, difference, rows
from blindspot.errors import UserError

ROWS = {entry["checkpoint"]: entry for entry in rows()}
MATCHED = [name for name, entry in ROWS.items() if "matched" in entry["roles"]]


@pytest.mark.parametrize(
    ("checkpoint", "tokens", "millions", "gflop"),
    [
        ("openai/clip-vit-large-patch14", 256, 302, 162),
        ("openai/clip-vit-large-patch14-336", 576, 302, 381),
        ("google/siglip-base-patch16-256", 256, 85, 46),
        ("google/siglip-large-patch16-256", 256, 302, 161),
        ("google/siglip2-large-patch16-256", 256, 302, 161),
        ("google/siglip2-so400m-patch16-256", 256, 411, 219),
        ("google/siglip2-so400m-patch16-naflex", 256, 411, 219),
        ("apple/aimv2-large-patch14-224", 256, 308, 164),
        ("facebook/dinov2-large", 256, 302, 162),
    ],
)
def test_sizes_and_costs_are_the_known_ones(checkpoint: str, tokens: int, millions: int, gflop: int) -> None:
    entry = ROWS[checkpoint]
    assert entry["tokens"] == tokens
    assert entry["blocks_mparams"] == pytest.approx(millions, rel=0.005)
    assert entry["gflop"] == pytest.approx(gflop, rel=0.01)
    assert entry["tower_mparams"] > entry["blocks_mparams"]


def test_each_family_of_the_study_has_the_checkpoint_of_its_public_code() -> None:
    public = {entry["family"]: name for name, entry in ROWS.items() if "public code" in entry["roles"]}
    assert public == {
        "clip": "openai/clip-vit-large-patch14-336",
        "siglip": "google/siglip-base-patch16-256",
        "siglip2": "google/siglip2-base-patch16-256",
        "aimv2": "apple/aimv2-large-patch14-224",
    }


def test_tokens_at_other_sizes() -> None:
    assert ROWS["openai/clip-vit-large-patch14"]["tokens_at"] == {"224": 256, "256": 324, "336": 576}
    assert ROWS["google/siglip-large-patch16-256"]["tokens_at"] == {"224": 196, "256": 256, "336": 441}
    assert ROWS["google/siglip2-so400m-patch16-naflex"]["tokens_at"] == {"224": 256, "256": 256, "336": 256}


def test_prefixes_and_heads() -> None:
    found = {name: (entry["cls_token"], entry["registers"], entry["head_dim"]) for name, entry in ROWS.items()}
    assert found["facebook/dinov2-with-registers-large"] == (True, 4, 64)
    assert found["facebook/dinov3-vitl16-pretrain-lvd1689m"] == (True, 4, 64)
    assert found["google/siglip2-so400m-patch16-256"] == (False, 0, 72)
    assert found["apple/aimv2-large-patch14-native"] == (False, 0, 128)
    assert ROWS["facebook/dinov2-large"]["table_grid"] == [37, 37]
    assert ROWS["facebook/dinov3-vitl16-pretrain-lvd1689m"]["table_grid"] is None


def test_the_class_is_the_one_that_transformers_loads() -> None:
    found = {name: entry["transformers_class"] for name, entry in ROWS.items()}
    assert found["google/siglip2-large-patch16-256"] == "SiglipVisionModel"
    assert found["google/siglip2-so400m-patch16-naflex"] == "Siglip2VisionModel"
    assert found["facebook/dinov2-with-registers-large"] == "Dinov2WithRegistersModel"


def test_differences_in_words() -> None:
    names = ("google/siglip-large-patch16-256", "google/siglip2-large-patch16-256")
    siglip, siglip2 = (ROWS[name] for name in names)
    assert difference(siglip, siglip) == []
    assert difference(siglip, siglip2) == [
        "resizing of pictures: warped to a square, bicubic against warped to a square, bilinear"
    ]
    clip, aimv2 = ROWS["openai/clip-vit-large-patch14"], ROWS["apple/aimv2-large-patch14-224"]
    assert difference(clip, aimv2) == [
        "heads: 16 against 8",
        "channels of a head: 64 against 128",
        "MLP: quick_gelu 4096 against gated silu 2816",
        "norm: LayerNorm against RMSNorm",
        "CLS token: yes against no",
    ]
    larger = difference(clip, ROWS["openai/clip-vit-large-patch14-336"])
    assert larger == [
        "image side in pixels: 224 against 336",
        "patch tokens: 256 against 576",
        "grid of the position table: 16 x 16 against 24 x 24",
    ]
    rotary = difference(ROWS["facebook/dinov2-large"], ROWS["facebook/dinov3-vitl16-pretrain-lvd1689m"])
    assert "positions: learned against rotary" in rotary
    assert not [words for words in rotary if "grid of the position table" in words]


def test_a_tower_of_a_study_can_be_described() -> None:
    shape = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=48, patch_size=8)
    entries = {name: describe(encoder, encoder.vision_config(shape)) for name, encoder in ENCODERS.items()}
    assert {entry["tokens"] for entry in entries.values()} == {36}
    assert difference(entries["siglip"], entries["aimv2"])
    wider = describe(ENCODERS["clip"], ENCODERS["clip"].vision_config(replace(shape, width=64)))
    assert difference(entries["clip"], wider) == ["width: 32 against 64", "channels of a head: 16 against 32"]


def test_the_tables_name_every_checkpoint_and_family() -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(as_table(list(ROWS.values())))
    console.print(as_conventions())
    shown = console.export_text()
    assert all(name.split("/")[1] in shown for name in ROWS)
    assert all(name in shown for name in ENCODERS)


@pytest.mark.parametrize("family", list(ENCODERS))
def test_every_configuration_is_recognised(family: str) -> None:
    shape = TowerShape(width=32, layers=1, heads=2, mlp_width=64, image_size=48, patch_size=8)
    encoder = ENCODERS[family]
    configs = [encoder.vision_config(shape), *(checkpoint.config() for checkpoint in encoder.checkpoints)]
    expected = ENCODERS["siglip"] if family == "siglip2" else encoder  # one class, one configuration
    assert all(detect(config) is expected for config in configs)
    assert detect(configs[0]).prefix_tokens_in(configs[0]) == encoder.prefix_tokens
    assert isinstance(configs[0], encoder.model_class.config_class)


def test_an_unknown_configuration_is_refused_with_the_known_ones() -> None:
    assert detect(CLIPVisionConfig()) is ENCODERS["clip"]
    with pytest.raises(UserError, match="unknown model_type 'llama'; known are aimv2_vision_model, clip_vision_model"):
        detect(LlamaConfig())
