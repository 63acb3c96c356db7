"""A tiny variant and a tiny data set, for tests and for the processes that they start."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from blindspot.connectors import ConnectorSpec
from blindspot.encoders import ENCODERS, TowerShape
from blindspot.errors import UserError
from blindspot.model.build import LanguageShape, build_variant
from blindspot.model.conversation import RowError
from blindspot.model.encoding import IGNORE
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import word_tokenizer, words_of
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.training.packing import TrainingSample

PAD, BEGIN, END, IMAGE, VOCABULARY = 0, 1, 2, 3, 40
SIDE, PATCH = 16, 8


def toy_variant(
    positions: EncoderPositions = EncoderPositions(),  # noqa: B008  (frozen)
    language: LanguagePositions = LanguagePositions(),  # noqa: B008
    connector: ConnectorSpec = ConnectorSpec(),  # noqa: B008
    family: str = "siglip",
    attention: str = "sdpa",
) -> Any:
    """A variant of a few thousand weights; always the same ones."""
    torch.manual_seed(0)
    tower = TowerShape(width=32, layers=2, heads=2, mlp_width=32, image_size=SIDE, patch_size=PATCH)
    text = LanguageShape(48, 2, 2, 64, 100.0, VOCABULARY).config(PAD, BEGIN, END)
    model = build_variant(ENCODERS[family], tower, positions, text, IMAGE, attention, language, connector)
    model.config.vision_feature_layer = model.model.parts.layer = -2
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)  # transformers' small weights would hide differences
    return model


@dataclass
class ToySamples:
    """Conversations of random tokens of very different lengths, with no, one or two random pictures."""

    count: int = 64
    tokens: int = (SIDE // PATCH) ** 2  # placeholders of a picture
    pictures: tuple[float, float, float] = (0.3, 0.5, 0.2)  # chance of none, one, two
    untrainable: frozenset[int] = frozenset()  # rows that hold nothing to train on
    broken: frozenset[int] = frozenset()  # rows whose picture cannot be read
    deadly: frozenset[int] = frozenset()  # rows whose picture is not a number
    filler: TrainingSample = field(init=False)

    def __post_init__(self) -> None:
        self.filler = TrainingSample("", [IMAGE] * self.tokens, [IGNORE] * self.tokens, (None,))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> TrainingSample:
        if number in self.untrainable:
            raise RowError("it has no answer")
        draw = np.random.default_rng([7, number])
        special = number in self.broken | self.deadly
        pictures = 1 if special else int(draw.choice(3, p=self.pictures))
        question, answer = draw.integers(END + 2, VOCABULARY, draw.integers(1, 9)), int(draw.integers(1, 24))
        ids = [BEGIN, *[IMAGE] * (self.tokens * pictures), *question, *draw.integers(END + 2, VOCABULARY, answer), END]
        labels = [IGNORE] * (len(ids) - answer - 1) + ids[len(ids) - answer - 1 :]
        return TrainingSample(
            f"s{number}", [int(one) for one in ids], [int(one) for one in labels], (number,) * pictures
        )

    def pixels(self, sample: TrainingSample, blank: bool = False) -> list[dict[str, Tensor]]:
        made = []
        for number in sample.pictures:
            if number in self.broken and not blank:
                raise UserError(f"picture {number} is broken")
            picture_chw = torch.zeros(3, SIDE, SIDE)
            if number is not None and not blank:
                picture_chw.normal_(generator=torch.Generator().manual_seed(number))
            if number in self.deadly:
                picture_chw[0, 0, 0] = torch.nan
            made.append({"pixel_values": picture_chw})
        return made

    def lengths(self) -> tuple[np.ndarray, np.ndarray]:
        samples = [self[number] for number in range(self.count)]
        return np.array([len(one.ids) for one in samples]), np.array([bool(one.pictures) for one in samples])


SMALL: dict[str, Any] = {
    "max_length": 60, "pack_tokens": 100, "batch": 4, "precision": "fp32", "workers": 0, "lr": 1e-2, "steps": 3,
}  # fmt: skip
"""Arguments of `train_arm` for the rows of `write_rows`."""
WORDS = ["USER:", "ASSISTANT:", "what", "is", "red", "blue", "box", "left", "of", "yes"]


def toy_parts(family: str = "clip", language: LanguagePositions = LanguagePositions()) -> Any:  # noqa: B008
    """A variant and its processor, for a tokenizer of words."""
    tokenizer = word_tokenizer(WORDS)
    words = words_of(tokenizer)
    torch.manual_seed(0)
    tower = TowerShape(width=32, layers=2, heads=2, mlp_width=32, image_size=32, patch_size=8)
    config = LanguageShape(32, 2, 2, 64, 100.0, words.count).config(words.pad, words.begin, words.end)
    model = build_variant(
        ENCODERS[family], tower, EncoderPositions(), config, words.image, "sdpa", language_positions=language
    )
    return model, build_processor(model.config, tokenizer)


def write_rows(folder: Path) -> tuple[Path, Path]:
    """Twelve captions: one picture is missing, one broken, one far away; and two conversations without pictures."""
    images = folder / "images"
    images.mkdir()
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(12):
        size = (40, 30) if number % 2 else (24, 48)
        Image.fromarray(draw.integers(0, 255, (*size, 3), np.uint8)).save(images / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nwhat is"}, {"from": "gpt", "value": "red box left of blue box"}]
        rows.append({"id": f"r{number}", "image": f"{number}.png", "conversations": turns})
    (images / "3.png").unlink()
    (images / "4.png").write_bytes(b"no picture")
    rows[5]["image"] = "../5.png"
    for number in (12, 13):
        turns = [{"from": "human", "value": "what is"}, {"from": "gpt", "value": "yes"}]
        rows.append({"id": f"r{number}", "conversations": turns})
    path = folder / "rows.json"
    path.write_text(json.dumps(rows))
    return path, images
