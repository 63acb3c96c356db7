"""Damaged and foreign checkpoints: one line that says what is wrong, and never code that runs."""

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
)
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from blindspot import load
from blindspot.errors import UserError

Make = Callable[..., Any]
SHARD = "pytorch_model-00002-of-00002.bin"


def the_reason(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load(folder)
    message, start = str(caught.value), f"cannot open the model in {folder}: "
    assert message.startswith(start) and "\n" not in message
    return message.removeprefix(start)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.fixture
def original(reference: Make, write: Any, tmp_path: Path) -> Path:
    write.tower(tmp_path / "tower", reference("clip"))
    return write.original(tmp_path / "model", reference("clip"), str(tmp_path / "tower"))


@pytest.fixture
def published(reference: Make, write: Any, tmp_path: Path) -> Path:
    return write.llava_hf(tmp_path / "published", reference("clip"))


def test_a_missing_shard(original: Path) -> None:
    (original / SHARD).unlink()
    assert the_reason(original) == f"it lacks shards that pytorch_model.bin.index.json names: {SHARD}; copy them too"


@pytest.mark.parametrize("place", ["../{name}", "{folder}/{name}", 3])
def test_a_shard_outside_the_folder_is_not_opened(original: Path, place: Any) -> None:
    moved = (original / SHARD).rename(original.parent / SHARD)
    index = original / "pytorch_model.bin.index.json"
    where = place.format(folder=moved.parent, name=SHARD) if isinstance(place, str) else place
    said = json.loads(index.read_text())["weight_map"]
    edit(index, weight_map={name: where if shard == SHARD else shard for name, shard in said.items()})
    assert the_reason(original) == f"{index.name} names {where!r}, which is no file in its folder; get it anew"


def test_a_truncated_shard(original: Path) -> None:
    path = original / SHARD
    path.write_bytes(path.read_bytes()[:5000])
    assert the_reason(original) == f"{SHARD} is damaged or no file of tensors; get the checkpoint anew"


def test_a_truncated_safetensors_file(published: Path) -> None:
    path = published / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert the_reason(published).startswith("model-00001-of-00002.safetensors is damaged (")


@pytest.mark.parametrize("index", [b"{", b"[]", b'{"metadata": {}}', b'{"weight_map": 3}', b"[" * 10**5])
def test_a_broken_index(original: Path, index: bytes) -> None:
    (original / "pytorch_model.bin.index.json").write_bytes(index)
    assert the_reason(original).startswith("pytorch_model.bin.index.json is no index of weights (")


def test_an_index_that_names_absent_tensors(original: Path) -> None:
    path = original / "pytorch_model.bin.index.json"
    places = json.loads(path.read_text())["weight_map"] | {f"model.layers.9.x{number}": SHARD for number in range(7)}
    edit(path, weight_map=places)
    names = ", ".join(f"model.layers.9.x{number}" for number in range(5))
    expected = f"pytorch_model.bin.index.json names tensors that no shard holds: {names} (7 in all)"
    assert the_reason(original).startswith(expected)


class Planted:
    """What an attacker pickles: opening it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("archive", [True, False])
def test_code_in_a_pickle_never_runs(original: Path, tmp_path: Path, archive: bool) -> None:
    planted = {"model.norm.weight": Planted(tmp_path / "ran")}
    if archive:
        torch.save(planted, original / SHARD)
    else:
        (original / SHARD).write_bytes(pickle.dumps(planted, protocol=2))
    reason = the_reason(original)
    assert reason.startswith(f"{SHARD} holds pickled code (") and "never run" in reason
    assert not (tmp_path / "ran").exists()


def test_a_bin_file_without_tensors(original: Path) -> None:
    torch.save({"model.norm.weight": "one"}, original / SHARD)
    assert the_reason(original) == f"{SHARD} is no file of tensors by name"


def test_no_weights_at_all_and_a_connector_of_stage_1(original: Path) -> None:
    for path in original.glob("pytorch_model*"):
        path.unlink()
    assert the_reason(original).startswith("it has no weights: none of model.safetensors, pytorch_model.bin, ")
    torch.save({}, original / "mm_projector.bin")
    assert the_reason(original).endswith("; mm_projector.bin alone is a connector of stage 1")


def test_missing_unexpected_and_misshapen_tensors_are_listed(published: Path) -> None:
    index, gone = published / "model.safetensors.index.json", "language_model.model.embed_tokens.weight"
    places = json.loads(index.read_text())["weight_map"]
    path = published / places.pop(gone)
    edit(index, weight_map=places)
    whole = load_file(path)
    kept = {name: tensor for name, tensor in whole.items() if name != gone}
    save_file(kept, path, metadata={"format": "pt"})
    assert the_reason(published).startswith("it lacks weights: model.language_model.embed_tokens.weight; ")
    save_file(whole | {"lora.a": torch.ones(2)}, path, metadata={"format": "pt"})
    assert the_reason(published) == "it has weights that its config has no place for: lora.a"
    narrow = whole | {gone: whole[gone][:, :30].contiguous()}
    save_file(narrow, path, metadata={"format": "pt"})
    shapes = "model.language_model.embed_tokens.weight (64 x 30, not 64 x 32)"
    assert the_reason(published) == f"its weights have other shapes than its config says: {shapes}"


def test_a_tower_of_another_width_than_the_connector_reads(original: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "tower")
    size: dict[str, Any] = {"intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2}
    CLIPVisionModel(CLIPVisionConfig(**size, hidden_size=24, image_size=16, patch_size=8)).save_pretrained(
        tmp_path / "tower"
    )
    assert the_reason(original).startswith("its connector reads features of width 16, and its image encoder gives 24")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe"])
def test_a_broken_config(original: Path, content: bytes) -> None:
    (original / "config.json").write_bytes(content)
    assert the_reason(original).startswith("config.json ")


def test_unknown_kinds(original: Path, published: Path) -> None:
    edit(original / "config.json", model_type="llava_mamba")
    assert the_reason(original).startswith("unknown model_type 'llava_mamba'; of this format are known: llava, ")


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("image_aspect_ratio", "anyres", "image_aspect_ratio 'anyres' is not supported"),
        ("mm_projector_type", "mlp3x_gelu", "unknown mm_projector_type 'mlp3x_gelu'; known are linear, mlp2x_gelu"),
        ("mm_vision_select_feature", "cls", "unknown mm_vision_select_feature 'cls'"),
        ("mm_vision_select_feature", "cls_patch", 'vision_feature_select_strategy "full" would keep the 1 prefix'),
        ("mm_vision_tower", None, "its config.json names no image encoder (mm_vision_tower)"),
        ("mm_vision_tower", "nobody/nothing", "its config.json names the image encoder nobody/nothing"),
        ("mm_vision_tower", "/no/such/folder", "its config.json names the image encoder /no/such/folder"),
        ("vocab_size", 39, "model.embed_tokens.weight has 40 rows, and config.json says vocab_size 39"),
        ("hidden_size", "wide", ""),
        ("num_hidden_layers", 1, "it has weights that its config has no place for: model.language_model.layers.1."),
        ("num_hidden_layers", 3, "it lacks weights: model.language_model.layers.2."),
    ],
)
def test_values_of_the_original_config(original: Path, key: str, value: Any, reason: str) -> None:
    edit(original / "config.json", **{key: value})
    assert the_reason(original).replace("model.language_model.embed", "model.embed").startswith(reason)


def test_an_original_without_tokenizer_connector_or_tower_weights(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    (tmp_path / "tower" / "model.safetensors").unlink()
    assert the_reason(original).startswith(f"its image encoder, in {tmp_path / 'tower'}: it has no weights")
    shutil.copy(original / SHARD, tmp_path / "tower" / "pytorch_model.bin")
    assert "lacks weights: model.vision_tower." in the_reason(original)
    (original / "tokenizer.json").rename(original / "tokenizer.model")
    assert the_reason(original) == "reading tokenizer.model takes two packages: pip install sentencepiece protobuf"
    (original / "tokenizer.model").unlink()
    assert the_reason(original).startswith("it has no tokenizer (neither tokenizer.json nor tokenizer.model)")


def test_two_towers_inside_are_not_guessed_between(reference: Make, write: Any, tmp_path: Path) -> None:
    source = reference("aimv2")
    write.tower(tmp_path / "tower", source)
    inside = {
        f"{level}.{row}": tensor for level in ("vision_tower", "image_tower") for row, tensor in source.tower().items()
    }
    folder = write.original(tmp_path / "model", source, str(tmp_path / "tower"), inside)
    assert the_reason(folder).startswith("it holds more than one image encoder, or one under unknown names: ")


def test_a_llava_hf_folder_without_tokenizer_or_with_another_ones(published: Path) -> None:
    edit(published / "config.json", image_token_index=41)
    assert the_reason(published).startswith("its tokenizer gives <image> the id 40, and its config.json says ")
    edit(published / "config.json", image_token_index=40)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (published / name).unlink()
    assert the_reason(published)


def next_model() -> LlavaNextForConditionalGeneration:
    size: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return LlavaNextForConditionalGeneration(
        LlavaNextConfig(
            vision_config=CLIPVisionConfig(**size, image_size=16, patch_size=8),
            text_config=LlamaConfig(**size, vocab_size=64),
            image_token_index=40,
            image_grid_pinpoints=[[16, 32]],
        )
    )


def test_any_other_image_text_model_is_returned_as_it_is(published: Path, tmp_path: Path) -> None:
    _, llava = load(published)
    folder, model = tmp_path / "next", next_model()
    model.save_pretrained(folder)
    LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(), tokenizer=llava.tokenizer, patch_size=8
    ).save_pretrained(folder)
    opened, processor = load(folder)
    assert type(opened) is LlavaNextForConditionalGeneration and type(processor) is LlavaNextProcessor
    assert all(
        torch.equal(a, b) for a, b in zip(opened.state_dict().values(), model.state_dict().values(), strict=True)
    )


def test_code_of_a_checkpoint_only_runs_when_allowed(published: Path, tmp_path: Path) -> None:
    module = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    (published / "configuration_mine.py").write_text(module)
    edit(published / "config.json", model_type="mine", auto_map={"AutoConfig": "configuration_mine.Mine"})
    assert the_reason(published).startswith("unknown model_type 'mine': no format of Blindspot, no image-text model")
    assert "only runs with trust_remote_code" in the_reason(published)
    assert not (tmp_path / "ran").exists()


def test_an_id_is_taken_from_the_cache_and_offline_is_one_line(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--lab--llava"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    (repository / "snapshots").mkdir()
    shutil.copytree(published, repository / "snapshots" / "abc")
    model, _ = load("lab/llava")
    assert model.config.image_token_index == 40
    for name, reason in [
        ("lab/other", "lab/other is no folder here, is not in the local cache and cannot be had: Cannot reach "),
        ("a/b/c", "a/b/c is neither a folder here nor a Hugging Face id"),
        ("./gone", "gone is not a model folder (it has no config.json)"),
    ]:
        with pytest.raises(UserError) as caught:
            load(name)
        assert str(caught.value).startswith(reason)
