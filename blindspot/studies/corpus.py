"""The data step's folder, written and read: everything the other steps read, the same files whatever the source.

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

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from blindspot.benchmarks import nlvr
from blindspot.encoders import Encoder, normalise_pixels
from blindspot.errors import UserError
from blindspot.files import read_jsonl, write_json, write_jsonl
from blindspot.model.tokenizer import BEGIN, END, IMAGE, PAD, UNKNOWN, Words, word_tokenizer, words_of
from blindspot.question import Question
from blindspot.scenes.baselines import baselines
from blindspot.scenes.render import render
from blindspot.scenes.sampling import TURNS, TrainingWorld, test_questions
from blindspot.scenes.tasks import Task, Turn
from blindspot.scenes.text import CAPTION_CONTENTS, TEXT_STYLES, caption, describe
from blindspot.scenes.vocabulary import WORDS
from blindspot.scenes.world import CANVAS, Scene
from blindspot.training.packing import Rows, join, join_rows, lay_out, with_image_tokens

MOST_CAPTIONED = 5
BASELINE_SCENES = 2000
CHOICES = ("true", "false")

Report = Callable[[int, int], None]
Drawn = tuple[Scene, list[tuple[Task, Turn]]]


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


@dataclass(frozen=True)
class CorpusSize:
    """How much is drawn, and for which pictures."""

    train: int  # training pictures
    test: int  # questions a column
    seed: int
    side: int  # of an image, in pixels
    image_tokens: int


class Encode:
    """Words to ids, with the special tokens that rows need. A word outside the vocabulary becomes ``<unk>``."""

    def __init__(self, words: Sequence[str]) -> None:
        self.tokenizer = word_tokenizer(words)
        self._ids = self.tokenizer.get_vocab()
        self._unknown = self._ids[UNKNOWN]
        self._phrase = cache(self)  # the same questions are asked about thousands of scenes

    def __call__(self, text: str) -> list[int]:
        return [self._ids.get(word, self._unknown) for word in text.split()]

    def turns(self, turns: Sequence[Turn]) -> list[tuple[list[int], list[int]]]:
        """Prompts and the answers that are trained on."""
        return [(self._phrase(turn.prompt), self._phrase(f"{turn.answer} {END}")) for turn in turns]

    def images(self, tokens: int) -> list[int]:
        """The prefix of a row about images that take ``tokens`` tokens."""
        return self(" ".join([BEGIN] + [IMAGE] * tokens))

    def captions(self, texts: Sequence[str]) -> np.ndarray:
        """Captions, ended and padded to one length."""
        if not texts:
            raise UserError("data.train: so few pictures that none can be captioned for the encoders; raise it")
        rows = [self(f"{text} {END}") for text in texts]
        length = max(map(len, rows))
        return np.array([row + self(PAD) * (length - len(row)) for row in rows], np.int16)


def write_scenes(folder: Path, size: CorpusSize, report: Report) -> None:
    """Draw training scenes with their turns, and the test questions (half as many on held-out compositions)."""
    if size.side != CANVAS:
        raise UserError(f"model.image: scenes are {CANVAS} pixels wide, not {size.side}; set it to {CANVAS}")
    encode = Encode(WORDS)
    drawn = _draw(size, report)
    scenes = [scene for scene, _ in drawn]
    _write_text(folder, encode, size, drawn, [])
    captioned = [index for index, scene in enumerate(scenes) if len(scene.things) <= MOST_CAPTIONED]
    for content in CAPTION_CONTENTS:
        rng = Random(f"{content}/{size.seed}")
        texts = [caption(scenes[index], content, rng) for index in captioned]
        np.save(folder / f"captions-{content}.npy", encode.captions(texts))
    turns = [[turn for _, turn in asked] for _, asked in drawn]
    _write_rows(folder, encode, size, captioned, turns, np.stack([render(scene) for scene in scenes]))

    test_scenes, questions = test_questions("iid", size.test, size.seed, scenes)
    scores = baselines(drawn[:BASELINE_SCENES], test_scenes, questions)
    more_scenes, more = test_questions("compositional", (size.test + 1) // 2, size.seed, scenes)
    questions += [replace(one, images=tuple(image + len(test_scenes) for image in one.images)) for one in more]
    _write_test(folder, scores, questions, [render(scene) for scene in test_scenes + more_scenes])


def write_nlvr(folder: Path, size: CorpusSize, report: Report, data_path: Path) -> None:
    """NLVR's pictures, box by box, and its sentences.

    The language model reads scenes in words and NLVR's training sentences; encoders learn from the boxes of pictures
    of which the sentence is true.
    """
    data = nlvr.load(data_path)
    train = _sample(data.train.questions, size.train, size.seed)
    sentences = sorted({question.prompt for question in train})
    encode = Encode([*WORDS, *" ".join(sentences).split(), *CHOICES])
    _write_text(folder, encode, size, _draw(size, lambda step, steps: report(step, 3 * steps)), sentences)
    boxes = [nlvr.boxes(data.train.images[question.images[0]], size.side) for question in train]
    report(2 * len(train), 3 * len(train))
    true = [index for index, question in enumerate(train) if question.answer == "true"]
    for content in CAPTION_CONTENTS:
        texts = [train[index].prompt for index in true for _ in range(3)]
        np.save(folder / f"captions-{content}.npy", encode.captions(texts))
    captioned = [3 * index + box for index in true for box in range(3)]
    turns = [[Turn(question.prompt, question.answer)] for question in train]
    _write_rows(folder, encode, size, captioned, turns, np.concatenate(boxes))

    questions: list[Question] = []
    pictures: list[np.ndarray] = []
    for split in (data.dev, data.test):
        for question in _sample(split.questions, size.test, size.seed):
            groups = {**question.groups, "cluster": f"{split.name}/{question.groups['cluster']}", "split": "iid"}
            questions.append(replace(question, images=(len(pictures),), groups=groups))
            boxes = list(nlvr.boxes(split.images[question.images[0]], size.side))
            pictures.append(np.concatenate(boxes, axis=1))
    majority = {f"nlvr_{split.name}": {"majority answer": nlvr.majority(split)} for split in (data.dev, data.test)}
    _write_test(folder, majority, questions, pictures)


def _draw(size: CorpusSize, report: Report) -> list[Drawn]:
    world = TrainingWorld(size.seed, TURNS)
    drawn = []
    for number in range(size.train):
        drawn.append(world.draw())
        if number % 500 == 0:
            report(number, size.train)
    return drawn


def _sample(questions: Sequence[Question], most: int, seed: int) -> list[Question]:
    chosen = Random(f"sample/{seed}").sample(range(len(questions)), min(most, len(questions)))
    return [questions[index] for index in sorted(chosen)]


def _write_text(folder: Path, encode: Encode, size: CorpusSize, drawn: list[Drawn], sentences: Sequence[str]) -> None:
    """Scenes in words, with every turn that words can answer (boxes are measured in pixels), then sentences."""
    for style in TEXT_STYLES:
        rng = Random(f"{style}/{size.seed}")
        rows = []
        for scene, asked in drawn:
            said = encode(f"{BEGIN} {describe(scene, style, rng)}")
            rows.append(lay_out(said, encode.turns([turn for task, turn in asked if task.kind != "boxes"])))
        rows += [lay_out(encode(BEGIN), [([], encode(f"{sentence} {END}"))]) for sentence in sentences]
        join(rows).save(folder / f"text-{style}.npz")


def _write_rows(
    folder: Path,
    encode: Encode,
    size: CorpusSize,
    captioned: Sequence[int],
    turns: Sequence[Sequence[Turn]],
    images: np.ndarray,
) -> None:
    """Turns about images, as many in each row as there are images for it."""
    each = len(images) // len(turns)
    prefix = encode.images(size.image_tokens * each)
    np.save(folder / "captioned.npy", np.array(captioned, np.int32))
    join([lay_out(prefix, encode.turns(of_row)) for of_row in turns]).save(folder / "rows.npz")
    np.save(folder / "row_images.npy", np.arange(len(images), dtype=np.int32).reshape(-1, each))
    np.save(folder / "images.npy", images)
    encode.tokenizer.save_pretrained(folder / "tokenizer")


def _write_test(
    folder: Path, scores: dict[str, Any], questions: Sequence[Question], pictures: Sequence[np.ndarray]
) -> None:
    write_json(folder / "baselines.json", scores)
    np.save(folder / "test_images.npy", np.stack(pictures))
    write_jsonl(folder / "test.jsonl", [asdict(question) for question in questions])
