"""Exports: what other programs open, what is refused and why, and nothing half-written."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor

from blindspot import load
from blindspot.errors import UserError
from blindspot.model.load import export

FAMILIES = ("clip", "siglip", "aimv2")
Make = Callable[..., Any]

ALONE = """
import sys
sys.modules["blindspot"] = None  # every import of it fails
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
folder, file = sys.argv[1:]
inputs, image, expected, ids = torch.load(file, weights_only=True)
model = AutoModelForImageTextToText.from_pretrained(folder)
assert type(model).__name__ == "LlavaForConditionalGeneration"
with torch.no_grad():
    assert torch.equal(model(**inputs).logits, expected)
made = AutoProcessor.from_pretrained(folder)(images=image, text="w3 <image> w4", return_tensors="pt")
assert made["input_ids"].tolist() == ids, made["input_ids"]
print("same")
"""


def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return model(**inputs).logits


def the_message(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


@pytest.fixture
def released(reference: Make, write: Any, tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint of a family in the original format."""

    def make(family: str, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
        source = reference(family, dtype)
        write.tower(tmp_path / "tower", source)
        return write.original(tmp_path / "model", source, str(tmp_path / "tower"), **options)

    return make


def test_a_clip_arm_opens_without_blindspot(reference: Make, released: Make, tmp_path: Path) -> None:
    export(released("clip"), tmp_path / "out", "llava-hf")
    model, processor = load(tmp_path / "out")
    inputs = reference("clip").inputs("left")
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    ids = processor(images=image, text="w3 <image> w4", return_tensors="pt")["input_ids"].tolist()
    assert ids[0].count(40) == 4
    torch.save((inputs, image, logits(model, inputs), ids), tmp_path / "expected.pt")
    command = [sys.executable, "-c", ALONE, str(tmp_path / "out"), str(tmp_path / "expected.pt")]
    result = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (result.returncode, result.stdout) == (0, "same\n"), result.stderr


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("form", ["llava-hf", "llava", "blindspot"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_format_keeps_the_function_and_the_processor(
    reference: Make, released: Make, tmp_path: Path, family: str, form: str, dtype: torch.dtype
) -> None:
    before, processor = load(released(family, dtype))
    export(tmp_path / "model", tmp_path / "deep" / "out", form)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    after, same = load(tmp_path / "deep" / "out")
    assert after.dtype == dtype
    inputs = reference(family, dtype).inputs("left")
    assert torch.equal(logits(after, inputs), logits(before, inputs))
    image = Image.effect_noise((30, 20), 90)
    made, again = (it(images=image, text="w3 <image> w4", return_tensors="pt") for it in (processor, same))
    assert made.keys() == again.keys()
    assert all(torch.equal(made[key], again[key]) for key in made)


def test_llava_hf_and_original_turn_into_each_other(reference: Make, write: Any, tmp_path: Path) -> None:
    source = reference("clip")
    published = write.llava_hf(tmp_path / "published", source)
    export(published, tmp_path / "llava", "llava")
    export(tmp_path / "llava", tmp_path / "back", "llava-hf")
    inputs = source.inputs("left")
    assert torch.equal(logits(load(tmp_path / "back")[0], inputs), logits(source.model, inputs))


def test_how_it_generates_is_kept(released: Make, tmp_path: Path) -> None:
    """Vicuna's odd temperature without sampling too."""
    folder = released("clip")
    values = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "max_length": 99, "temperature": 0.9}
    (folder / "generation_config.json").write_text(json.dumps(values))
    export(folder, tmp_path / "out", "llava-hf")
    kept = load(tmp_path / "out")[0].generation_config.to_dict()
    assert {key: kept[key] for key in values} == values


def test_the_original_layout_is_written_name_for_name(reference: Make, write: Any, tmp_path: Path) -> None:
    """Names, shapes and config keys against a checkpoint that other code wrote in that format."""
    source = reference("clip")
    inside = {f"vision_tower.vision_model.{row}": tensor for row, tensor in source.tower().items()}
    tower = str(write.tower(tmp_path / "tower", source))
    expected = write.original(tmp_path / "expected", source, tower, inside, shards=0)
    export(expected, tmp_path / "out", "llava")

    def held(folder: Path) -> dict[str, Tensor]:
        with safe_open(folder / "model.safetensors", "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if "inv_freq" not in name}  # noqa: SIM118

    ours, theirs = held(tmp_path / "out"), held(expected)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    written, wanted = (json.loads((folder / "config.json").read_text()) for folder in (tmp_path / "out", expected))
    changed = {"model_type": "llava_llama", "mm_vision_tower": "vision_tower", "tokenizer_model_max_length": 128}
    assert {key: written[key] for key in wanted} == wanted | changed
    with safe_open(tmp_path / "out" / "vision_tower" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == {f"vision_model.{row}" for row in source.tower()}


def test_what_a_format_cannot_express_is_named(reference: Make, released: Make, tmp_path: Path) -> None:
    folder = tmp_path / "special"
    model, processor = load(released("clip"))
    model.config.encoder_positions = {"scheme": "axial", "base": 100.0, "table": "keep"}
    model.config.language_positions = {"scheme": "bapa"}
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    for form in ("llava-hf", "llava"):
        message = the_message(lambda form=form: export(folder, tmp_path / "out", form))
        assert message.startswith(f"{folder} cannot become a {form} checkpoint, because Llava has no encoder positions")
        assert "axial" in message and "and no language positions" in message and "bapa" in message
        assert message.endswith("export it with --format blindspot")
        assert not (tmp_path / "out").exists()
    export(folder, tmp_path / "out", "blindspot")
    inputs = reference("clip").inputs("left")
    assert torch.equal(logits(load(tmp_path / "out")[0], inputs), logits(load(folder)[0], inputs))


def test_a_connector_without_biases_has_no_place_in_the_original_layout(
    reference: Make, write: Any, tmp_path: Path
) -> None:
    folder = write.llava_hf(tmp_path / "model", reference("clip"))
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"projector_hidden_act": "relu"}))
    assert "only a connector with GELU and biases" in the_message(lambda: export(folder, tmp_path / "out", "llava"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_nothing_is_overwritten_and_nothing_half_written(
    released: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = released("clip")
    (tmp_path / "out").mkdir()
    assert (
        the_message(lambda: export(folder, tmp_path / "out", "llava"))
        == f"{tmp_path / 'out'} exists; name a new folder"
    )
    assert "known are llava-hf, llava, blindspot" in the_message(lambda: export(folder, tmp_path / "new", "gguf"))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("blindspot.model.formats.llava.write_json", full)
    message = the_message(lambda: export(folder, tmp_path / "new", "llava"))
    assert message.startswith(f"cannot write {tmp_path / 'new'}: No space left on device")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out", "tower"]
