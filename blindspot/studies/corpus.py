"""The data step's folder: everything the other steps read, the same files whatever the source.

tokenizer/                 word-level tokenizer
text-plain.npz             `Rows` of text for the language model alone, places in words
text-raster.npz            the same scenes, place as the order of words
images.npy                 uint8 (images, side, side, 3): training
captions-objects.npy       int16 (images, length), ended by </s> and padded
captions-places.npy        likewise, with places
captioned.npy              int32: which images the encoders learn from (all, or those whose sentence is true)
rows.npz                   `Rows` with image placeholders, for connector and instruct
row_images.npy             int32 (rows, images a row)
test_images.npy            uint8 (test images, side, images a row * side, 3): side by side
baselines.json             scores of rules that need no model, by column
test.jsonl                 questions; ``images`` indexes test_images
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from blindspot.encoders import Encoder, normalise_pixels
from blindspot.files import read_jsonl
from blindspot.model.tokenizer import Words, words_of
from blindspot.question import Question
from blindspot.training.packing import Rows, join_rows, with_image_tokens


@dataclass(frozen=True)
class Corpus:
    """A finished data folder; files are read when first used."""

    folder: Path

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return AutoTokenizer.from_pretrained(self.folder / "tokenizer", local_files_only=True)

    @cached_property
    def words(self) -> Words:
        return words_of(self.tokenizer)

    def text(self, about: str) -> Rows:
        """Text for the language model; ``mixed`` is every scene in both styles."""
        styles = ("plain", "raster") if about == "mixed" else (about,)
        return join_rows([Rows.load(self.folder / f"text-{style}.npz") for style in styles])

    @cached_property
    def rows(self) -> Rows:
        """Turns about images, for a model in which an image takes a token per patch."""
        return Rows.load(self.folder / "rows.npz")

    def rows_for(self, image_tokens: int) -> Rows:
        """The same for a model in which an image takes ``image_tokens`` tokens."""
        stored = int(np.count_nonzero(self.rows.tokens == self.words.image)) // self.row_images.size
        return with_image_tokens(self.rows, self.words.image, stored, image_tokens)

    @cached_property
    def row_images(self) -> np.ndarray:
        return np.load(self.folder / "row_images.npy")

    @cached_property
    def images(self) -> np.ndarray:
        return np.load(self.folder / "images.npy")

    def captions(self, content: str) -> tuple[np.ndarray, Tensor]:
        """Indices of the captioned images, and their captions of shape (captioned, length)."""
        captions = np.load(self.folder / f"captions-{content}.npy")
        return np.load(self.folder / "captioned.npy"), torch.from_numpy(captions).long()

    @cached_property
    def test_images(self) -> np.ndarray:
        """Shape (test images, images a row, side, side, 3)."""
        tiled = np.load(self.folder / "test_images.npy")
        count, side, width, channels = tiled.shape
        return tiled.reshape(count, side, width // side, side, channels).swapaxes(1, 2)

    @cached_property
    def questions(self) -> list[Question]:
        return [
            Question(**{**row, "choices": tuple(row["choices"]), "images": tuple(row["images"])})
            for row in read_jsonl(self.folder / "test.jsonl")
        ]


def to_pixels(images_nhwc: np.ndarray, encoder: Encoder) -> Tensor:
    """``uint8`` images -> the encoder's input, shape (n, 3, side, side)."""
    pixels_nchw = torch.from_numpy(np.ascontiguousarray(images_nhwc)).permute(0, 3, 1, 2).float() / 255
    return normalise_pixels(encoder, pixels_nchw)
