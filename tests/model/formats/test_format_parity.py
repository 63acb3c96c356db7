"""Published formats, written by other code, compute what transformers' own Llava computes, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from blindspot import load
from blindspot.model.formats.llava import read_tokenizer
from blindspot.model.variant import BlindspotForConditionalGeneration

FAMILIES = ("clip", "siglip", "aimv2")
Make = Callable[..., Any]


def logits(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Of the tokens that are no padding."""
    with torch.no_grad():
        return model(**inputs).logits[inputs["attention_mask"].bool()]


def original(write: Any, source: Any, folder: Path, layout: str) -> Path:
    tower = str(folder / "tower")
    level = "" if source.family == "aimv2" else "vision_model."
    inside = {f"vision_tower.{level}{row}": tensor for row, tensor in source.tower().items()}
    if layout == "released":  # tower elsewhere, connector beside
        write.tower(folder / "tower", source)
        return write.original(folder / "model", source, tower, separate=True)
    if layout == "self-trained":  # everything inside, one file; the tower's folder names the sizes only
        write.tower(folder / "tower", source, weights=False)
        return write.original(folder / "model", source, tower, inside, shards=1, kind="llava_llama")
    write.tower(folder / "tower", source)
    return write.original(folder / "model", source, tower, inside, shards=0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["published", "middle", "memory", "released", "self-trained", "safetensors"])
def test_logits_are_transformers_own(reference: Make, write: Any, tmp_path: Path, family: str, layout: str) -> None:
    source = reference(family)
    if layout in ("published", "middle", "memory"):
        folder = write.llava_hf(tmp_path / "model", source, layout)
    else:
        folder = original(write, source, tmp_path, layout)
    model, _ = load(folder)
    assert isinstance(model, BlindspotForConditionalGeneration)
    assert model.dtype == torch.float32 and not model.training
    for side in ("left", "right"):
        inputs = source.inputs(side)
        assert torch.equal(logits(model, inputs), logits(source.model, inputs))


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_transformers_own_greedy_and_beam(
    reference: Make, write: Any, tmp_path: Path, family: str
) -> None:
    source = reference(family)
    model, _ = load(original(write, source, tmp_path, "released"))
    for beams in (1, 3):
        options = {"max_new_tokens": 6, "num_beams": beams, "do_sample": False}
        expected = source.model.generate(**source.inputs("left"), **options)
        assert torch.equal(model.generate(**source.inputs("left"), **options), expected)


def test_half_precision_is_kept_and_can_be_asked_for(reference: Make, write: Any, tmp_path: Path) -> None:
    source = reference("clip", torch.bfloat16)
    folder = original(write, source, tmp_path, "released")
    model, _ = load(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    inputs = source.inputs("left")
    assert torch.equal(logits(model, inputs), logits(source.model, inputs))
    wide, _ = load(folder, dtype=torch.float32)
    assert {parameter.dtype for parameter in wide.parameters()} == {torch.float32}


def test_apples_first_names_are_the_same_tower(reference: Make, write: Any, tmp_path: Path) -> None:
    source = reference("aimv2")
    write.tower(tmp_path / "tower", source, apple=True)
    model, _ = load(write.original(tmp_path / "model", source, str(tmp_path / "tower")))
    inputs = source.inputs("left")
    assert torch.equal(logits(model, inputs), logits(source.model, inputs))


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (16, 16)])
def test_the_originals_processor_pads_to_a_square_of_the_mean_colour(
    reference: Make, write: Any, tmp_path: Path, size: tuple[int, int]
) -> None:
    _, processor = load(original(write, reference("clip"), tmp_path, "released"))
    picture = Image.effect_noise(size, 90).convert("RGB")
    side = max(size)
    square = Image.new("RGB", (side, side), (122, 116, 104))  # 255 times CLIP's mean, cut to whole numbers
    square.paste(picture, ((side - size[0]) // 2, (side - size[1]) // 2))
    expected = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    made = processor(images=picture, text="w3 <image> w4", return_tensors="pt")
    assert torch.allclose(made["pixel_values"], expected(square, return_tensors="pt")["pixel_values"], atol=1e-6)
    assert made["input_ids"].tolist() == [[1, 6, 40, 40, 40, 40, 7]]
    assert "ASSISTANT" in processor.apply_chat_template([{"role": "user", "content": "w1"}], add_generation_prompt=True)


def test_a_linear_connector_of_the_first_llava(reference: Make, write: Any, tmp_path: Path) -> None:
    source = reference("clip")
    write.tower(tmp_path / "tower", source)
    folder = write.original(
        tmp_path / "model", source, str(tmp_path / "tower"), separate=True, changes={"mm_projector_type": "linear"}
    )
    weight, bias = torch.randn(32, 16), torch.randn(32)
    torch.save({"model.mm_projector.weight": weight, "model.mm_projector.bias": bias}, folder / "mm_projector.bin")
    model, _ = load(folder)
    features = torch.randn(1, 4, 16)
    with torch.no_grad():
        assert torch.equal(model.model.multi_modal_projector(features, (2, 2)), features @ weight.T + bias)


def test_tokens_that_the_original_had_no_rows_for_are_never_the_likeliest(
    reference: Make, write: Any, tmp_path: Path
) -> None:
    source = reference("clip")
    model, _ = load(original(write, source, tmp_path, "released"))
    assert model.config.text_config.vocab_size == 64
    assert int(logits(model, source.inputs("left")).argmax(dim=-1).max()) < 40


def test_the_public_codes_lost_siglip_patch_stays_lost(reference: Make, write: Any, tmp_path: Path) -> None:
    """A checkpoint trained with ``patch`` on a tower without CLS is the function without the first patch."""
    source = reference("siglip")
    write.tower(tmp_path / "tower", source)
    changes = {"mm_vision_select_feature": "patch"}
    model, processor = load(write.original(tmp_path / "model", source, str(tmp_path / "tower"), changes=changes))
    inputs = source.inputs("left")
    inputs["input_ids"][inputs["input_ids"] == 40] = torch.tensor([40, 40, 40, 9] * 3)
    with torch.no_grad():
        expected = source.model(**inputs, vision_feature_select_strategy="default").logits
        assert torch.equal(model(**inputs).logits, expected)
    made = processor(images=torch.zeros(3, 16, 16, dtype=torch.uint8), text="<image> w1", return_tensors="pt")
    assert int((made["input_ids"] == 40).sum()) == 3


def test_vicunas_tokenizer_model_is_read_as_sentencepiece_reads_it(tmp_path: Path) -> None:
    pieces = pytest.importorskip("sentencepiece", reason="sentencepiece is not installed (extra [vicuna])")
    sentences = [f"the {a} square is left of the {b} circle ." for a in ("red", "blue") for b in ("green", "grey")]
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences * 5),
        model_prefix=str(tmp_path / "tokenizer"),
        model_type="bpe",
        vocab_size=300,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (tmp_path / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "add_eos_token": false, "legacy": false}'
    )
    theirs = pieces.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    tokenizer = read_tokenizer(tmp_path)
    for text in (*sentences, "USER: where is it? ASSISTANT: left</s>", "a\n  b\u00e9"):
        expected = [1, *theirs.encode(text.removesuffix("</s>"))] + [2] * text.endswith("</s>")
        assert tokenizer(text).input_ids == expected, text
    assert tokenizer("<image>").input_ids == [1, len(theirs)]
