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
images_sizes.npy           int32 (images, 2): height and width, where pictures are of several sizes; they stand in the
                           top left corner of a square. ``test_sizes.npy`` and ``probe_sizes.npy`` likewise
probe_images.npy           likewise, of questions asked on the way through stage 2: none is in training or test
probe.jsonl
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from random import Random
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from blindspot.benchmarks import nlvr
from blindspot.encoders import Encoder, normalise_pixels
from blindspot.encoders.variable_resolution import patchify
from blindspot.errors import UserError
from blindspot.files import read_jsonl, write_json, write_jsonl
from blindspot.model.tokenizer import BEGIN, END, IMAGE, PAD, UNKNOWN, Words, word_tokenizer, words_of
from blindspot.question import Question
from blindspot.scenes.baselines import baselines
from blindspot.scenes.render import render
from blindspot.scenes.sampling import TURNS, TrainingWorld, test_questions
from blindspot.scenes.solid import cast
from blindspot.scenes.solid.depth import Depth
from blindspot.scenes.solid.films import Films
from blindspot.scenes.solid.lessons import Lesson, World
from blindspot.scenes.solid.views import Views
from blindspot.scenes.tasks import Task, Turn
from blindspot.scenes.text import CAPTION_CONTENTS, TEXT_STYLES, WORDS, caption, describe, words
from blindspot.scenes.world import CANVAS, Scene, Size
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

    def sizes(self, split: str) -> np.ndarray | None:
        """Height and width of the pictures of ``images``, ``test`` or ``probe``; None where all fill their square."""
        path = self.folder / f"{split}_sizes.npy"
        return np.load(path) if path.is_file() else None

    def captions(self, content: str) -> tuple[np.ndarray, Tensor]:
        """Indices of the captioned images, and their captions of shape (captioned, length)."""
        captions = np.load(self.folder / f"captions-{content}.npy")
        return np.load(self.folder / "captioned.npy"), torch.from_numpy(captions).long()

    def pictures(self, split: str) -> np.ndarray:
        """Those that ``test`` or ``probe`` asks about, of shape (rows, images a row, side, side, 3)."""
        tiled = np.load(self.folder / f"{split}_images.npy")
        count, side, width, channels = tiled.shape
        return tiled.reshape(count, side, width // side, side, channels).swapaxes(1, 2)

    def questions(self, split: str) -> list[Question]:
        """Those of ``test`` or ``probe``."""
        return [
            Question(**{**row, "choices": tuple(row["choices"]), "images": tuple(row["images"])})
            for row in read_jsonl(self.folder / f"{split}.jsonl")
        ]


@dataclass(frozen=True)
class EncoderView:
    """How an encoder gets to see pictures."""

    side: int  # of its square input in pixels
    patch: int  # likewise
    aspect: Literal["squash", "pad", "crop", "native"] = "squash"
    """What becomes of pictures that are not square: ``squash``: both sides are resized; ``pad``: the longer side is
    resized, beside it lies the family's mean colour; ``crop``: the shorter side is resized and the centre cut out;
    ``native``: they are cut into patches as they are."""
    reduced_to: int | None = None
    """Pixels of the longer side that pictures are reduced to before, so that what is finer is lost."""

    def __call__(self, images_nhwc: np.ndarray, encoder: Encoder, sizes_n2: np.ndarray | None) -> dict[str, Tensor]:
        """``uint8`` images -> the encoder's input by the model's names: pixels of shape (n, 3, side, side), or rows of
        patches, all equally many, with their grids."""
        pixels_nchw = torch.from_numpy(np.ascontiguousarray(images_nhwc)).permute(0, 3, 1, 2).float() / 255
        pixels_nchw = normalise_pixels(encoder, pixels_nchw)
        whole = pixels_nchw.shape[-2:]
        if sizes_n2 is None and self.reduced_to is None and whole == (self.side, self.side) and self.aspect != "native":
            return {"pixel_values": pixels_nchw}
        size_n = [tuple(map(int, size)) for size in ([whole] * len(pixels_nchw) if sizes_n2 is None else sizes_n2)]
        seen: list[Tensor] = [pixels_nchw] * len(size_n)
        grids: list[Size] = [(0, 0)] * len(size_n)
        for height, width in set(size_n):
            members = [index for index, size in enumerate(size_n) if size == (height, width)]
            own_nchw = pixels_nchw[members, :, :height, :width]
            if self.reduced_to is not None:
                scale = self.reduced_to / max(height, width)
                own_nchw = _resized(own_nchw, (round(scale * height), round(scale * width)))
            if self.aspect == "native":
                own_nchw, grid = patchify(own_nchw, self.patch)
                for index in members:
                    grids[index] = grid
            else:
                own_nchw = self._squared(own_nchw)
            for index, one in zip(members, own_nchw, strict=True):
                seen[index] = one
        found = {"pixel_values": torch.stack(seen)}
        return found | {"spatial_shapes": torch.tensor(grids)} if self.aspect == "native" else found

    def _squared(self, pixels_nchw: Tensor) -> Tensor:
        height, width = pixels_nchw.shape[-2:]
        if self.aspect == "squash":
            return _resized(pixels_nchw, (self.side, self.side))
        scale = self.side / (max if self.aspect == "pad" else min)(height, width)
        high, wide = round(scale * height), round(scale * width)
        down, across = (self.side - high) // 2, (self.side - wide) // 2  # negative: what is cut off
        return F.pad(
            _resized(pixels_nchw, (high, wide)), (across, self.side - wide - across, down, self.side - high - down)
        )


def _resized(pixels_nchw: Tensor, size: Size) -> Tensor:
    if pixels_nchw.shape[-2:] == size:
        return pixels_nchw
    return F.interpolate(pixels_nchw, size=size, mode="bilinear", antialias=True, align_corners=False)


@dataclass(frozen=True)
class CorpusSize:
    """How much is drawn, and for which pictures."""

    train: int  # training pictures
    test: int  # questions a column
    probe: int  # likewise
    seed: int
    side: int  # of an image, in pixels
    image_tokens: int
    scale: int = 1  # pixels of an image to one of the scene
    pictures: Sequence[Size] = ()  # sizes of pictures that scenes are put in, at scale 1; without, each fills its own
    cue: str = "shadow"  # of pictures with depth, what tells it

    @property
    def longest(self) -> int:
        """Longer side of the pictures at scale 1."""
        return max([max(size) for size in self.pictures], default=CANVAS)


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
    """Draw training scenes with their turns, the test questions (half as many on held-out compositions), and probes."""
    wide = CANVAS * size.scale
    if size.side != wide and not size.pictures:
        raise UserError(f"model.image: scenes are {wide} pixels wide, not {size.side}; set it to {wide}")
    encode = Encode(words(size.longest))
    drawn = _draw(size, report)
    scenes = [scene for scene, _ in drawn]
    _write_text(folder, encode, size, drawn, [])
    captioned = [index for index, scene in enumerate(scenes) if len(scene.things) <= MOST_CAPTIONED]
    for content in CAPTION_CONTENTS:
        rng = Random(f"{content}/{size.seed}")
        texts = [caption(scenes[index], content, rng) for index in captioned]
        np.save(folder / f"captions-{content}.npy", encode.captions(texts))
    turns = [[turn for task, turn in asked if not (size.pictures and task.names_cells)] for _, asked in drawn]
    trained = _drawn(folder, "images", scenes, size)
    _write_rows(folder, encode, size, captioned, turns, np.stack(trained))

    test_scenes, questions = test_questions("iid", size.test, size.seed, scenes, sizes=size.pictures)
    scores = baselines(drawn[:BASELINE_SCENES], test_scenes, questions)
    more_scenes, more = test_questions("compositional", (size.test + 1) // 2, size.seed, scenes, sizes=size.pictures)
    questions += [replace(one, images=tuple(image + len(test_scenes) for image in one.images)) for one in more]
    tested = _drawn(folder, "test", test_scenes + more_scenes, size)
    write_json(folder / "baselines.json", scores)
    _write_questions(folder, "test", questions, tested)
    others = [*scenes, *test_scenes, *more_scenes]
    probe_scenes, probes = test_questions("iid", size.probe, size.seed, others, "probe", size.pictures)
    pictures = _drawn(folder, "probe", probe_scenes, size)
    _refuse_shared(pictures, [*trained, *tested])
    _write_questions(folder, "probe", probes, pictures)


SOLIDS: dict[str, World] = {"solid": Depth(), "motion": Films(), "views": Views()}
"""The worlds of solids, by source."""


def write_solids(folder: Path, size: CorpusSize, report: Report, world: World) -> None:
    """What a world of solids shows and asks in training, test and probes, and what shortcuts score."""
    encode, rng = Encode(world.words()), Random(f"train/{size.seed}")
    lessons: list[Lesson] = []
    for number in range(size.train):
        lessons.append(world.lesson(rng, size.cue))
        if number % 500 == 0:
            report(number, size.train)
    said = [encode(f"{BEGIN} {world.describe(shots, rng, places=True)}") for shots, _ in lessons]
    in_words = [[one.turn for one in told if one.in_words] for _, told in lessons]
    join(list(map(lay_out, said, map(encode.turns, in_words)))).save(folder / "text-plain.npz")
    shots = [shot for shots, _ in lessons for shot in shots]
    for content in CAPTION_CONTENTS:
        captions = [world.describe([shot], rng, content == "places") for shot in shots]
        np.save(folder / f"captions-{content}.npy", encode.captions(captions))
    trained = cast.pictures(shots, size.side)
    _write_rows(folder, encode, size, range(len(shots)), [[one.turn for one in told] for _, told in lessons], trained)
    test, probe = (
        world.questions(split, count, size.seed, size.cue)
        for split, count in (("test", size.test), ("probe", size.probe))
    )
    write_json(folder / "baselines.json", world.baselines(test, size.seed, size.cue))
    tested, probed = (
        cast.pictures([shot for shots in asked.shown for shot in shots], size.side) for asked in (test, probe)
    )
    _refuse_shared(probed, [*trained, *tested])
    for asked, pictures in ((test, tested), (probe, probed)):
        _write_questions(folder, asked.name, asked.questions, _side_by_side(pictures, len(asked.shown)))


def _side_by_side(pictures: np.ndarray, rows: int) -> np.ndarray:
    """Pictures of shape (rows * frames, side, side, 3) as (rows, side, frames * side, 3)."""
    _, side, _, channels = pictures.shape
    return pictures.reshape(rows, -1, side, side, channels).swapaxes(1, 2).reshape(rows, side, -1, channels)


def write_nlvr(folder: Path, size: CorpusSize, report: Report, data_path: Path) -> None:
    """NLVR's pictures, box by box, and its sentences.

    The language model reads scenes in words and NLVR's training sentences; encoders learn from the boxes of pictures
    of which the sentence is true. Probes are training questions whose sentences are kept out of training, at most a
    tenth of all; they stand for the column of the development set.
    """
    data = nlvr.load(data_path)
    kept_out = _kept_out(data.train.questions, size)
    rest = [question for question in data.train.questions if question.groups["cluster"] not in kept_out]
    train = _sample(rest, size.train, size.seed)
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
    write_json(folder / "baselines.json", majority)
    _write_questions(folder, "test", questions, pictures)
    probed = [one for one in data.train.questions if one.groups["cluster"] in kept_out][: size.probe]
    shown = [np.concatenate(nlvr.boxes(data.train.images[one.images[0]], size.side), axis=1) for one in probed]
    probes = [replace(one, benchmark="nlvr_dev", images=(number,)) for number, one in enumerate(probed)]
    _write_questions(folder, "probe", probes, shown)


def _kept_out(questions: Sequence[Question], size: CorpusSize) -> set[str]:
    """Sentences for the probes, drawn at random until they have enough questions."""
    asked = Counter(question.groups["cluster"] for question in questions)
    kept: set[str] = set()
    for cluster in Random(f"probe/{size.seed}").sample(sorted(asked), max(1, len(asked) // 10)):
        if sum(asked[one] for one in kept) < size.probe:
            kept.add(cluster)
    return kept


def _drawn(folder: Path, split: str, scenes: Sequence[Scene], size: CorpusSize) -> list[np.ndarray]:
    """Pictures of scenes; of several sizes each in the top left corner of a square, and the sizes in a file."""
    pictures = [render(scene, size.scale) for scene in scenes]
    if size.pictures:
        np.save(folder / f"{split}_sizes.npy", np.array([one.shape[:2] for one in pictures], np.int32))
        side = size.longest * size.scale
        pictures = [np.pad(one, ((0, side - one.shape[0]), (0, side - one.shape[1]), (0, 0))) for one in pictures]
    return pictures


def _draw(size: CorpusSize, report: Report) -> list[Drawn]:
    world = TrainingWorld(size.seed, TURNS, size.pictures)
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


def _write_questions(
    folder: Path, split: str, questions: Sequence[Question], pictures: Sequence[np.ndarray] | np.ndarray
) -> None:
    np.save(folder / f"{split}_images.npy", np.asarray(pictures))
    write_jsonl(folder / f"{split}.jsonl", [asdict(question) for question in questions])


def _refuse_shared(probes: Iterable[np.ndarray], others: Sequence[np.ndarray]) -> None:
    """See that probes, by which a run may be judged on its way, show nothing of training or test."""
    shared = {picture.tobytes() for picture in probes} & {picture.tobytes() for picture in others}
    if shared:
        raise ValueError(f"{len(shared)} pictures of probes are in training or test; draw other scenes for them")
