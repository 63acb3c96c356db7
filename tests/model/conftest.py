"""Variants of a few thousand weights, with a processor, saved as checkpoints."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from transformers import LlavaProcessor

from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import word_tokenizer, words_of
from blindspot.model.variant import save
from blindspot.positions import EncoderPositions

WORDS = ["red", "blue", "green", "left-of", "box", "of", "yes", "no", "3"]
TOWER = TowerShape(width=32, layers=2, heads=2, mlp_width=64, image_size=32, patch_size=8)
POSITIONS = {
    "learned": EncoderPositions(),
    "axial-replace": EncoderPositions("axial", 100.0, "replace"),
    "axial-keep": EncoderPositions("axial", 100.0, "keep"),
}


class Saved(NamedTuple):
    """A variant as it left training, and where it was saved."""

    model: Any
    processor: LlavaProcessor
    folder: Path

    def inputs(self) -> dict[str, Tensor]:
        """Two images with a question each."""
        words = self.processor.tokenizer.get_vocab()
        question = [words[word] for word in ("red", "left-of", "blue")]
        ids = [words["<s>"], *[words["<image>"]] * TOWER.grid**2, *question]
        pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        return {"input_ids": torch.tensor([ids, ids]), "pixel_values": pixels}


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Every test here computes with small models."""


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Saved]:
    """(family, key of POSITIONS) -> that variant, built and saved once."""
    root = tmp_path_factory.mktemp("variants")

    @cache
    def make(family: str, positions: str) -> Saved:
        torch.manual_seed(0)
        tokenizer = word_tokenizer(WORDS)
        words = words_of(tokenizer)
        language = LanguageShape(32, 2, 2, 64, 100.0, words.count).config(words.pad, words.begin, words.end)
        model = build_variant(ENCODERS[family], TOWER, POSITIONS[positions], language, words.image)
        for parameter in model.parameters():  # transformers' small initial weights would hide differences
            if parameter.requires_grad and parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.2)
        model.lm_head.weight.data[: words.image + 1] = 0  # so that it answers in words
        processor = build_processor(model.config, tokenizer)
        folder = root / f"{family}-{positions}"
        save(model, folder)
        processor.save_pretrained(folder)
        return Saved(model.eval(), processor, folder)

    return make
