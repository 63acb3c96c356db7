"""A variant is the same function after it was saved: in this process, in another, with and without Blindspot."""

import copy
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.positions import EncoderPositions
from blindspot.positions.encoder.attach import attach

ROOT = Path(__file__).parents[2]
GRID = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8).grid
AXIAL = ("axial-replace", "axial-keep")
Saved = Callable[[str, str], Any]
FAMILIES = [
    name for name, encoder in ENCODERS.items() if not encoder.variable_resolution
]  # the others: test_product.py
PLAIN = [name for name in FAMILIES if ENCODERS[name].prefix_tokens < 2]
families = pytest.mark.parametrize("family", FAMILIES)
positions = pytest.mark.parametrize("positions", ["learned", *AXIAL])

OTHER_PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration
root, out = Path(sys.argv[1]), Path(sys.argv[2])
inputs = torch.load(out / "inputs.pt")

def answer(loader, name):
    model = loader.from_pretrained(root / name, attn_implementation="eager").eval()
    with torch.no_grad():
        torch.save(model(**inputs).logits, out / f"{name}.pt")

for family in sys.argv[3].split():
    answer(LlavaForConditionalGeneration, f"{family}-learned")
assert not [name for name in sys.modules if name.split(".")[0] == "blindspot"]
import blindspot.model.variant
answer(AutoModelForImageTextToText, "clip-axial-replace")
"""


def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model.eval()(**inputs).logits


def table(model: Any) -> Any:
    (found,) = (part for name, part in model.named_modules() if name.endswith("position_embedding"))
    return found.weight


def edited(folder: Path, copied: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    shutil.copytree(folder, copied)
    config = json.loads((copied / "config.json").read_text())
    edit(config)
    (copied / "config.json").write_text(json.dumps(config))
    return copied


@families
@positions
def test_the_reloaded_model_gives_the_same_bits(saved: Saved, family: str, positions: str) -> None:
    variant = saved(family, positions)
    loaded = AutoModelForImageTextToText.from_pretrained(variant.folder, attn_implementation="eager")
    plain = positions == "learned" and family in PLAIN
    assert type(loaded) is (LlavaForConditionalGeneration if plain else BlindspotForConditionalGeneration)
    assert torch.equal(logits(loaded, variant.inputs()), logits(variant.model, variant.inputs()))
    ours = BlindspotForConditionalGeneration.from_pretrained(variant.folder, attn_implementation="eager")
    assert torch.equal(logits(ours, variant.inputs()), logits(variant.model, variant.inputs()))


def test_another_process_gets_the_same_bits_and_learned_arms_need_no_blindspot(saved: Saved, tmp_path: Path) -> None:
    learned = {f"{family}-learned": saved(family, "learned") for family in PLAIN}
    axial = saved("clip", "axial-replace")
    torch.save(axial.inputs(), tmp_path / "inputs.pt")
    arguments = [str(axial.folder.parent), str(tmp_path), " ".join(PLAIN)]
    subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=120,
    )
    for name, variant in {**learned, "clip-axial-replace": axial}.items():
        theirs = torch.load(tmp_path / f"{name}.pt")
        assert torch.equal(theirs, logits(variant.model, variant.inputs())), name


@families
def test_the_config_alone_says_what_the_encoder_knows_of_places(saved: Saved, family: str) -> None:
    plain = json.loads((saved(family, "learned").folder / "config.json").read_text())
    assert (plain["model_type"] == "llava") == ("encoder_positions" not in plain) == (family in PLAIN)
    for name in AXIAL:
        config = json.loads((saved(family, name).folder / "config.json").read_text())
        assert config["model_type"] == "blindspot"
        wanted = {"scheme": "axial", "base": 100.0, "table": name.removeprefix("axial-")}
        assert wanted.items() <= config["encoder_positions"].items()
        assert config["language_positions"] == {"scheme": "rope1d"}
        assert config["connector"]["name"] == "mlp"


@pytest.mark.parametrize("family", ["clip", "siglip", "siglip2", "aimv2"])
def test_a_replaced_table_is_zero_and_frozen_after_loading_and_a_kept_one_is_not(saved: Saved, family: str) -> None:
    for name, replaced in {"axial-replace": True, "axial-keep": False}.items():
        weight = table(AutoModelForImageTextToText.from_pretrained(saved(family, name).folder))
        assert bool((weight == 0).all()) == replaced
        assert weight.requires_grad != replaced


@pytest.mark.parametrize("key", ["encoder_positions", "language_positions", "connector"])
def test_a_config_that_lost_its_positions_is_refused(saved: Saved, tmp_path: Path, key: str) -> None:
    broken = edited(saved("clip", "axial-replace").folder, tmp_path / "broken", lambda config: config.pop(key))
    with pytest.raises(ValueError, match=f"model_type blindspot needs {key}"):
        AutoModelForImageTextToText.from_pretrained(broken)


@families
@pytest.mark.parametrize("positions", AXIAL)
def test_another_attention_implementation_keeps_the_rotation(saved: Saved, family: str, positions: str) -> None:
    variant = saved(family, positions)
    eager = logits(variant.model, variant.inputs())
    sdpa = AutoModelForImageTextToText.from_pretrained(variant.folder, attn_implementation="eager")
    sdpa.set_attn_implementation("sdpa")
    torch.testing.assert_close(logits(sdpa, variant.inputs()), eager, rtol=1e-4, atol=1e-4)
    loaded_so = AutoModelForImageTextToText.from_pretrained(variant.folder, attn_implementation="sdpa")
    assert torch.equal(logits(loaded_so, variant.inputs()), logits(sdpa, variant.inputs()))
    unrotated = copy.deepcopy(variant.model)
    attach(unrotated.model.vision_tower, EncoderPositions(), GRID, ENCODERS[family].prefix_tokens)
    assert (logits(unrotated, variant.inputs()) - eager).abs().max() > 0.1


@families
def test_an_image_takes_as_many_tokens_as_it_has_features(saved: Saved, family: str) -> None:
    variant = saved(family, "learned")
    image = Image.new("RGB", (32, 32), "red")
    inputs = variant.processor(images=[image], text=["<image> red"], return_tensors="pt")
    tokens = int((inputs["input_ids"] == variant.model.config.image_token_index).sum())
    with torch.no_grad():
        features = variant.model.get_image_features(inputs["pixel_values"]).pooler_output
    assert tokens == GRID**2 == variant.model.config.image_seq_length == sum(len(one) for one in features)
