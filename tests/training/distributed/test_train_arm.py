"""A stage from a LLaVA JSON and pictures to a file that the next stage starts from."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import SMALL, WORDS, toy_parts, toy_variant, write_rows

import blindspot
from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.model.conversation import RowError, plain, v1
from blindspot.model.encoding import IGNORE
from blindspot.model.formats.llava import padded
from blindspot.model.tokenizer import word_tokenizer, words_of
from blindspot.positions import LanguagePositions
from blindspot.training.llava.rows import LlavaRows, index_rows
from blindspot.training.llava.samples import LlavaSamples
from blindspot.training.parts import load_parts, save_parts
from blindspot.training.variant import train_arm


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    return write_rows(tmp_path)


def _samples(data: tuple[Path, Path], tmp_path: Path, template: Any, **parts: Any) -> LlavaSamples:
    index_rows(data[0], tmp_path / "index")
    processor = toy_parts(**parts)[1]
    processor.image_processor = padded(processor.image_processor)
    return LlavaSamples(LlavaRows(tmp_path / "index", data[1]), processor, template)


def test_rows_become_samples(data: tuple[Path, Path], tmp_path: Path) -> None:
    samples = _samples(data, tmp_path, v1)
    assert len(samples) == 14
    picture, text = samples[0], samples[12]
    image = words_of(word_tokenizer(WORDS)).image
    assert picture.id == "r0" and list(picture.ids).count(image) == 16 == len(samples.filler.ids)
    assert not text.pictures and image not in text.ids
    assert sum(label != IGNORE for label in picture.labels) == 7  # the answer and the token that closes it
    [pixels] = samples.pixels(picture)
    assert pixels["pixel_values"].shape == (3, 32, 32)
    assert not torch.equal(pixels["pixel_values"], samples.pixels(picture, blank=True)[0]["pixel_values"])
    for row, words in ((3, "no image at"), (4, "not an image"), (5, "'..'")):
        with pytest.raises(UserError, match=words):
            samples.pixels(samples[row])
    words_r, pictured_r = samples.lengths()
    assert words_r[12] == 3 and pictured_r.tolist() == [True] * 12 + [False] * 2
    with pytest.raises(RowError, match="caption"):
        _samples(data, tmp_path, plain)[12]


def test_an_encoder_that_keeps_the_aspect_ratio(data: tuple[Path, Path], tmp_path: Path) -> None:
    index_rows(data[0], tmp_path / "index")
    model, processor = toy_parts("aimv2_native")
    samples = LlavaSamples(LlavaRows(tmp_path / "index", data[1]), processor, v1)
    image = words_of(word_tokenizer(WORDS)).image
    for row in (0, 1):
        sample = samples[row]
        [pixels] = samples.pixels(sample)
        rows, columns = pixels["spatial_shapes"].tolist()
        assert list(sample.ids).count(image) == rows * columns == model.model.parts.image_tokens((rows, columns))
    with pytest.raises(RowError, match="header"):
        samples[4]
    state = train_arm((model, processor), *data, tmp_path / "run", "instruct", **SMALL)
    assert state.is_dir()


def test_both_stages_and_the_model_they_leave(data: tuple[Path, Path], tmp_path: Path) -> None:
    parts = toy_parts(language=LanguagePositions("row_break"))
    connector = train_arm(parts, *data, tmp_path / "first", "connector", **{**SMALL, "steps": None})
    assert connector == tmp_path / "first" / "connector.safetensors"
    rows = [json.loads(line) for line in (tmp_path / "first" / "log.jsonl").read_text().splitlines()]
    skipped = {one["row"]: one["why"] for row in rows for one in row.get("skipped", [])}
    assert len(rows) == 4 and set(skipped) == {3, 4, 5, 12, 13}
    fresh, processor = toy_parts(language=LanguagePositions("row_break"))
    model = train_arm((fresh, processor), *data, tmp_path / "second", "instruct", connector=connector, **SMALL)
    loaded, _ = blindspot.load(model)
    assert loaded.config.language_positions == parts[0].config.language_positions
    again = train_arm((fresh, processor), *data, tmp_path / "second", "instruct", **SMALL)
    assert again == model and blindspot.load(again)[0].num_parameters() == fresh.num_parameters()


def test_a_model_is_saved_in_the_precision_it_was_trained_in(data: tuple[Path, Path], tmp_path: Path) -> None:
    model = train_arm(toy_parts(), *data, tmp_path / "run", "instruct", **{**SMALL, "precision": "bf16"})
    loaded, _ = blindspot.load(model)
    assert loaded.dtype == torch.bfloat16
    assert json.loads((model / "config.json").read_text())["model_type"] == "llava"


def test_a_run_of_other_rows_or_another_model_is_not_continued(data: tuple[Path, Path], tmp_path: Path) -> None:
    small = {**SMALL, "steps": 1}
    models = [train_arm(toy_parts(), *data, tmp_path / name, "instruct", **small) for name in ("a", "b")]
    train_arm(models[0], *data, tmp_path / "run", "instruct", **small)
    with pytest.raises(UserError, match=r"is another \(model was .*/a/model and is .*/b/model\)"):
        train_arm(models[1], *data, tmp_path / "run", "instruct", **small)
    with pytest.raises(UserError, match=r"is another \(template was v1 and is plain\)"):
        train_arm(models[0], *data, tmp_path / "run", "instruct", template="plain", **small)
    data[0].write_text(data[0].read_text().replace("red", "blue"))
    with pytest.raises(UserError, match=r"is another \(rows was \w+ and is \w+\)"):
        train_arm(models[0], *data, tmp_path / "run", "instruct", **small)


def test_a_connector_goes_where_it_fits(tmp_path: Path) -> None:
    giver, taker = toy_variant(), toy_variant(language=LanguagePositions("mrope", sections=(4, 4, 4)))
    for parameter in giver.model.multi_modal_projector.parameters():
        parameter.data.fill_(0.25)
    path = tmp_path / "connector.safetensors"
    save_parts(giver.state_dict(), giver.config, (), tmp_path)
    load_parts(taker, path)
    assert all((parameter == 0.25).all() for parameter in taker.model.multi_modal_projector.parameters())
    with pytest.raises(UserError, match=r"its connector is .*mlp.*, the model's is .*linear"):
        load_parts(toy_variant(connector=ConnectorSpec("linear")), path)
    with pytest.raises(UserError, match="its row breaks is False, the model's is True"):
        load_parts(toy_variant(language=LanguagePositions("row_break")), path)
    with pytest.raises(UserError, match="width of the encoder is 32"):
        wide = toy_variant()
        wide.config.vision_config.hidden_size = 64
        load_parts(wide, path)
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot read the connector"):
        load_parts(taker, path)


def test_what_does_not_go_together_is_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not fit a pack of pack_tokens 100"):
        train_arm(toy_parts(), *data, tmp_path / "a", "instruct", **{**SMALL, "max_length": 101})
    with pytest.raises(UserError, match="unknown template 'v2'"):
        train_arm(toy_parts(), *data, tmp_path / "b", "instruct", template="v2", **SMALL)
    with pytest.raises(UserError, match=r"nowhere\.json"):
        train_arm(toy_parts(), tmp_path / "nowhere.json", data[1], tmp_path / "c", "instruct", **SMALL)
