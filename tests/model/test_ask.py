"""Opening a model and asking it: an answer, or one line that says what is wrong."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from blindspot import ask, load
from blindspot.cli import app
from blindspot.errors import UserError

Saved = Callable[[str, str], Any]
IMAGE = Image.new("RGB", (32, 32), "red")


def the_message(call: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture
def copied(saved: Saved, tmp_path: Path) -> Path:
    return shutil.copytree(saved("clip", "axial-replace").folder, tmp_path / "copied")


@pytest.mark.parametrize("positions", ["learned", "axial-replace"])
def test_an_answer_is_what_the_model_generates(saved: Saved, positions: str) -> None:
    variant = saved("clip", positions)
    model, processor = load(variant.folder)
    assert not model.training
    prompt = processor(images=[IMAGE], text=["<image> red left-of blue"], return_tensors="pt")
    generated = variant.model.generate(**prompt, max_new_tokens=4, do_sample=False)
    expected = processor.decode(generated[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    assert expected
    assert ask(model, processor, IMAGE, "red left-of blue", longest=4) == expected
    assert ask(model, processor, IMAGE, "Red LEFT-OF blue", longest=4) == expected


@pytest.mark.parametrize("question", ["red purple", "red <image>", "</s>"])
def test_a_word_outside_the_vocabulary_is_refused_with_the_list(saved: Saved, question: str) -> None:
    variant = saved("clip", "learned")
    message = the_message(lambda: ask(variant.model, variant.processor, IMAGE, question))
    unknown = question.split()[-1]
    listed = "3, blue, box, green, left-of, no, of, red, yes"
    assert message == f"this model does not know the word {unknown!r}; it knows: {listed}"


def test_folders_that_are_no_model_are_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert the_message(lambda: load(nowhere)) == f"{nowhere} is not a model folder (it has no config.json)"
    run = tmp_path / "run"
    (run / "models" / "clip-learned-seed0").mkdir(parents=True)
    (run / "models" / "aimv2-axial-seed0").mkdir()
    hint = f"it is a run folder, name one of its models, e.g. {run / 'models' / 'aimv2-axial-seed0'}"
    assert hint in the_message(lambda: load(run))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"{}"),
        ("config.json", b"\xff\xfe"),
        ("config.json", b'{"model_type": "no_such_type"}'),
        ("config.json", b'{"model_type": "blindspot"}'),
        ("model.safetensors", b""),
        ("model.safetensors", b"\x08\x00\x00\x00\x00\x00\x00\x00{}"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"{"),
        ("processor_config.json", b"{"),
    ],
)
def test_a_damaged_file_is_one_line_with_the_folder(copied: Path, name: str, content: bytes) -> None:
    (copied / name).write_bytes(content)
    assert the_message(lambda: load(copied)).startswith(f"cannot open the model in {copied}: ")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("encoder_positions",), None),
        (("encoder_positions", "scheme"), "axal"),
        (("vision_config", "hidden_size"), "wide"),
        (("vision_config", "hidden_size"), 64),
        (("text_config", "hidden_size"), 64),
    ],
)
def test_a_hand_edited_config_is_one_line_with_the_folder(copied: Path, keys: tuple[str, ...], value: Any) -> None:
    config = section = json.loads((copied / "config.json").read_text())
    for key in keys[:-1]:
        section = section[key]
    section[keys[-1]] = value
    (copied / "config.json").write_text(json.dumps(config))
    assert the_message(lambda: load(copied)).startswith(f"cannot open the model in {copied}: ")


def test_the_command_prints_the_answer_and_nothing_else(saved: Saved, tmp_path: Path) -> None:
    variant = saved("aimv2", "axial-replace")
    IMAGE.save(tmp_path / "red.png")
    result = CliRunner().invoke(app, ["ask", str(variant.folder), str(tmp_path / "red.png"), "red left-of blue"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == ask(variant.model, variant.processor, IMAGE, "red left-of blue") + "\n"
