"""Words to ids, pictures to pixels: the same whether a study packs them or a processor prepares them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer

from blindspot.encoders import ENCODERS
from blindspot.model.tokenizer import word_tokenizer, words_of
from blindspot.studies.corpus import Encode, EncoderView

WORDS = ["red", "blue", "left-of", "box", ",", "2"]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "<image>"]
Saved = Callable[[str, str], Any]
families = pytest.mark.parametrize(
    "family", [name for name, encoder in ENCODERS.items() if not encoder.variable_resolution]
)
words = st.text(st.characters(categories=("Ll", "Nd", "Po")), min_size=1, max_size=6).filter(lambda w: not w.isspace())


def noise(count: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def chat(processor: Any, images: int, question: str, answer: str | None = None) -> str:
    content = [{"type": "text", "text": question}, *[{"type": "image"}] * images]
    messages: list[dict[str, Any]] = [{"role": "user", "content": content}]
    messages += [] if answer is None else [{"role": "assistant", "content": answer}]
    return processor.apply_chat_template(messages, add_generation_prompt=answer is None)


@settings(max_examples=25)
@given(st.lists(words, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_ids_depend_on_the_set_of_words_only(chosen: list[str], random: Any) -> None:
    shuffled = chosen + chosen[:2] + ["<pad>"]
    random.shuffle(shuffled)
    tokenizer = word_tokenizer(chosen)
    assert tokenizer.get_vocab() == word_tokenizer(shuffled).get_vocab()
    assert sorted(tokenizer.get_vocab().values()) == list(range(len(SPECIAL) + len(set(chosen))))
    assert words_of(tokenizer) == (len(SPECIAL) + len(set(chosen)), 0, 1, 2, 4)


@settings(max_examples=25)
@given(st.lists(words, min_size=1, max_size=8))
def test_words_come_back_and_packing_splits_as_the_tokenizer_does(chosen: list[str]) -> None:
    encode, text = Encode(chosen), " ".join(chosen)
    ids = encode.tokenizer(text)["input_ids"]
    assert ids == encode(f"<s> {text}")
    assert encode.tokenizer.decode(ids, skip_special_tokens=True) == text


def test_unknown_words_become_one_token() -> None:
    encode = Encode(WORDS)
    expected = [encode.tokenizer.get_vocab()[word] for word in ("<s>", "red", "<unk>", "<unk>", "box")]
    assert encode.tokenizer("red purple Red box")["input_ids"] == expected == encode("<s> red purple Red box")


def test_image_placeholders_need_no_spaces() -> None:
    ids = word_tokenizer(WORDS)("<image><image> red<image>")["input_ids"]
    assert ids == [1, 4, 4, word_tokenizer(WORDS).get_vocab()["red"], 4]


def test_a_saved_tokenizer_is_the_same_one(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(WORDS)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == tokenizer.get_vocab()
    texts = ["<image><image> red left-of blue", "2 , purple"]
    for one in (tokenizer, loaded):
        assert one.padding_side == "left"
        assert one(texts, padding=True)["input_ids"] == tokenizer(texts, padding=True)["input_ids"]
        assert one.batch_decode([[7, 2, 0], [6, 5, 2]], skip_special_tokens=True) == [
            tokenizer.decode([7]),
            tokenizer.decode([6, 5]),
        ]
        assert words_of(one) == words_of(tokenizer)


def seen(images_nhwc: np.ndarray, family: str) -> torch.Tensor:
    return EncoderView(side=32, patch=8)(images_nhwc, ENCODERS[family], None)["pixel_values"]


@families
def test_pictures_of_the_models_size_pass_through_bit_for_bit(saved: Saved, family: str) -> None:
    processor = saved(family, "learned").processor
    every_value = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    images = np.concatenate([noise(2), every_value])
    pixels = processor(images=[Image.fromarray(image) for image in images], text=["<image>"] * 3, return_tensors="pt")
    assert torch.equal(pixels["pixel_values"], seen(images, family))


@families
def test_other_pictures_are_resized_to_a_square_not_cropped(saved: Saved, family: str) -> None:
    processor = saved(family, "learned").processor
    halves = Image.new("RGB", (200, 60), "red")
    halves.paste((0, 0, 255), (100, 0, 200, 60))
    pixels = processor(images=[halves], text=["<image>"], return_tensors="pt")["pixel_values"]
    expected = np.zeros((1, 32, 32, 3), np.uint8)
    expected[:, :, :16, 0], expected[:, :, 16:, 2] = 255, 255
    wanted = seen(expected, family)
    assert pixels.shape == (1, 3, 32, 32)
    assert torch.equal(pixels[..., :12], wanted[..., :12]) and torch.equal(pixels[..., 20:], wanted[..., 20:])


@families
@pytest.mark.parametrize("images", [1, 3])
def test_the_chat_template_gives_the_row_that_training_packs(saved: Saved, family: str, images: int) -> None:
    processor = saved(family, "learned").processor
    encode = Encode([word for word in processor.tokenizer.get_vocab() if word not in SPECIAL])
    pictures = [Image.fromarray(image) for image in noise(images)]
    prompt = encode.images(16 * images) + encode("red left-of blue")
    inputs = processor(images=pictures, text=[chat(processor, images, "red left-of blue")], return_tensors="pt")
    assert inputs["input_ids"].tolist() == [prompt]
    assert inputs["pixel_values"].shape == (images, 3, 32, 32)
    answered = processor(images=pictures, text=[chat(processor, images, "red left-of blue", "yes")])
    assert answered["input_ids"][0] == prompt + encode("yes </s>")


def test_prompts_without_images_and_plain_strings_are_rendered(saved: Saved) -> None:
    processor = saved("clip", "learned").processor
    messages = [{"role": "user", "content": "red box"}, {"role": "assistant", "content": "yes"}]
    assert processor.apply_chat_template(messages) == "red box yes </s>"


@families
def test_a_saved_processor_prepares_the_same_input(saved: Saved, family: str) -> None:
    variant = saved(family, "axial-replace")
    loaded = AutoProcessor.from_pretrained(variant.folder)
    pictures = [Image.fromarray(image) for image in noise(3, side=50)]
    prompts = [chat(variant.processor, 2, "red box"), chat(variant.processor, 1, "no")]
    ours, theirs = (
        one(images=pictures, text=prompts, padding=True, return_tensors="pt") for one in (variant.processor, loaded)
    )
    assert set(ours) == set(theirs) >= {"input_ids", "attention_mask", "pixel_values"}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert chat(loaded, 2, "red box") == prompts[0]
