"""Where a corpus comes from: drawn scenes, or NLVR's pictures and sentences."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from blindspot.benchmarks import nlvr
from blindspot.errors import UserError
from blindspot.files import write_json, write_jsonl
from blindspot.model.tokenizer import BEGIN, END, IMAGE, PAD, UNKNOWN, word_tokenizer
from blindspot.question import Question
from blindspot.scenes.baselines import baselines
from blindspot.scenes.render import render
from blindspot.scenes.sampling import TURNS, TrainingWorld, test_questions
from blindspot.scenes.tasks import Task, Turn
from blindspot.scenes.text import CAPTION_CONTENTS, TEXT_STYLES, WORDS, TextStyle, caption, describe
from blindspot.scenes.world import CANVAS, Scene
from blindspot.training.packing import Rows, join, join_rows, lay_out

MOST_CAPTIONED = 5
BASELINE_SCENES = 2000
CHOICES = ("true", "false")

Report = Callable[[int, int], None]
Drawn = tuple[Scene, list[tuple[Task, Turn]]]


@dataclass(frozen=True)
class CorpusSize:
    """How much, and for which pictures.

    Attributes:
        train: training pictures.
        test: questions a column.
        seed: of everything drawn.
        side: pixels along one side of an image.
        image_tokens: tokens that an image takes.
    """

    train: int
    test: int
    seed: int
    side: int
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
    for style in TEXT_STYLES:
        _text(encode, drawn, style, size.seed).save(folder / f"text-{style}.npz")
    captioned = [index for index, scene in enumerate(scenes) if len(scene.things) <= MOST_CAPTIONED]
    for content in CAPTION_CONTENTS:
        rng = Random(f"{content}/{size.seed}")
        texts = [caption(scenes[index], content, rng) for index in captioned]
        np.save(folder / f"captions-{content}.npy", encode.captions(texts))
    np.save(folder / "captioned.npy", np.array(captioned, np.int32))
    prefix = encode.images(size.image_tokens)
    join([lay_out(prefix, encode.turns([turn for _, turn in turns])) for _, turns in drawn]).save(folder / "rows.npz")
    np.save(folder / "row_images.npy", np.arange(size.train, dtype=np.int32)[:, None])
    np.save(folder / "images.npy", np.stack([render(scene) for scene in scenes]))
    encode.tokenizer.save_pretrained(folder / "tokenizer")

    test_scenes, questions = test_questions("iid", size.test, size.seed, scenes)
    write_json(folder / "baselines.json", baselines(drawn[:BASELINE_SCENES], test_scenes, questions))
    more_scenes, more = test_questions("compositional", (size.test + 1) // 2, size.seed, scenes)
    questions += [replace(one, images=tuple(image + len(test_scenes) for image in one.images)) for one in more]
    np.save(folder / "test_images.npy", np.stack([render(scene) for scene in test_scenes + more_scenes]))
    write_jsonl(folder / "test.jsonl", [asdict(question) for question in questions])


def write_nlvr(folder: Path, size: CorpusSize, report: Report, data_path: Path) -> None:
    """NLVR's pictures, box by box, and its sentences.

    The language model reads scenes in words and NLVR's training sentences; encoders learn from the boxes of pictures
    of which the sentence is true.
    """
    data = nlvr.load(data_path)
    train = _sample(data.train.questions, size.train, size.seed)
    sentences = sorted({question.prompt for question in train})
    encode = Encode([*WORDS, *" ".join(sentences).split(), *CHOICES])
    written = [lay_out(encode(BEGIN), [([], encode(f"{sentence} {END}"))]) for sentence in sentences]
    drawn = _draw(size, lambda step, steps: report(step, 3 * steps))
    for style in TEXT_STYLES:
        join_rows([_text(encode, drawn, style, size.seed), join(written)]).save(folder / f"text-{style}.npz")
    boxes = [nlvr.boxes(data.train.images[question.images[0]], size.side) for question in train]
    report(2 * len(train), 3 * len(train))
    true = [index for index, question in enumerate(train) if question.answer == "true"]
    captioned = [(3 * index + box, train[index].prompt) for index in true for box in range(3)]
    for content in CAPTION_CONTENTS:
        np.save(folder / f"captions-{content}.npy", encode.captions([text for _, text in captioned]))
    np.save(folder / "captioned.npy", np.array([index for index, _ in captioned], np.int32))
    prefix = encode.images(3 * size.image_tokens)
    turns = [encode.turns([Turn(question.prompt, question.answer)]) for question in train]
    join([lay_out(prefix, turn) for turn in turns]).save(folder / "rows.npz")
    np.save(folder / "row_images.npy", np.arange(3 * len(train), dtype=np.int32).reshape(-1, 3))
    np.save(folder / "images.npy", np.concatenate(boxes))
    encode.tokenizer.save_pretrained(folder / "tokenizer")

    majority = {f"nlvr_{split.name}": {"majority answer": nlvr.majority(split)} for split in (data.dev, data.test)}
    write_json(folder / "baselines.json", majority)
    questions: list[Question] = []
    pictures: list[np.ndarray] = []
    for split in (data.dev, data.test):
        for question in _sample(split.questions, size.test, size.seed):
            picture = np.concatenate(list(nlvr.boxes(split.images[question.images[0]], size.side)), axis=1)
            groups = {**question.groups, "cluster": f"{split.name}/{question.groups['cluster']}", "split": "iid"}
            questions.append(replace(question, images=(len(pictures),), groups=groups))
            pictures.append(picture)
    np.save(folder / "test_images.npy", np.stack(pictures))
    write_jsonl(folder / "test.jsonl", [asdict(question) for question in questions])


def _draw(size: CorpusSize, report: Report) -> list[Drawn]:
    world = TrainingWorld(size.seed, TURNS)
    drawn = []
    for number in range(size.train):
        drawn.append(world.draw())
        if number % 500 == 0:
            report(number, size.train)
    return drawn


def _text(encode: Encode, drawn: Sequence[Drawn], style: TextStyle, seed: int) -> Rows:
    """Scenes in words, with every turn that words can answer: boxes are measured in pixels."""
    rng = Random(f"{style}/{seed}")
    rows = [
        lay_out(
            encode(f"{BEGIN} {describe(scene, style, rng)}"),
            encode.turns([turn for task, turn in turns if task.kind != "boxes"]),
        )
        for scene, turns in drawn
    ]
    return join(rows)


def _sample(questions: Sequence[Question], most: int, seed: int) -> list[Question]:
    chosen = Random(f"sample/{seed}").sample(range(len(questions)), min(most, len(questions)))
    return [questions[index] for index in sorted(chosen)]
