"""The study of real sentences, on a few pictures in NLVR's official layout."""

import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blindspot.benchmarks import nlvr
from blindspot.reporting import collect
from blindspot.studies.corpus import Corpus

STUDY = """
name: tiny-nlvr
title: A tiny study of real sentences
source: nlvr
arms: {families: [clip], positions: [axial]}
seeds: 1
data: {train: 20, test: 10}
model: {image: 16, patch: 8, width: 16, heads: 2, mlp: 24, encoder_layers: 1, language_layers: 1, rotary_base: 100}
text: {about: plain, steps: 3, batch: 4, lr: 5e-3}
encoder: {captions: objects, steps: 3, batch: 4, lr: 3e-3}
connector: {steps: 3, batch: 2, lr: 2e-2}
instruct: {encoder: trained, steps: 3, batch: 2, lr: 4e-3}
"""
SENTENCES = {
    "train": ["there is a Box with 2 items.", "a blue tower", "kept out"],
    "dev": ["a base"],
    "test": ["zebras, a tower"],
}


def write_nlvr(folder: Path) -> Path:
    """Two sentences and labels a split, with six pictures each."""
    colours = np.random.default_rng(0)
    for split, sentences in SENTENCES.items():
        images = folder / split / "images" / "0"
        images.mkdir(parents=True)
        rows = []
        for number, (sentence, label) in enumerate(
            zip(cycle(sentences), ("true", "false", "true")[: max(2, len(sentences))], strict=False)
        ):
            for k in range(6):
                pixels = np.full((100, 400, 3), 128, np.uint8)
                for left in (0, 150, 300):
                    pixels[:, left : left + 100] = colours.integers(0, 256, 3)
                Image.fromarray(pixels).save(images / f"{split}-{number}-0-{k}.png")
            rows.append({"sentence": sentence, "label": label, "identifier": f"{number}-0", "directory": "0"})
        (folder / split / f"{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_nlvr(tmp_path_factory.mktemp("data") / "nlvr")


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory, run_inline: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("nlvr")
    (folder / "tiny.yaml").write_text(STUDY)
    return run_inline(folder / "tiny.yaml", folder / "run", data)


@pytest.fixture(scope="module")
def corpus(run: Path) -> Corpus:
    (folder,) = run.glob("steps/data-*")
    return Corpus(folder)


def test_it_finishes_with_a_table_of_dev_and_test(run: Path) -> None:
    results: dict[str, Any] = collect(run)
    assert [column["id"] for column in results["columns"]] == ["nlvr_dev", "nlvr_test"]
    scores = [(row["stage"], row["column"], row["n"]) for row in results["scores"]]
    assert {stage for stage, _, _ in scores} == {"connector", "instruct"}
    assert {column for _, column, _ in scores} == {"nlvr_dev", "nlvr_test"}
    assert all(count == 10 for _, _, count in scores)


def test_a_row_holds_the_three_boxes_of_its_picture_and_its_sentence(corpus: Corpus, data: Path) -> None:
    train = nlvr.load(data).train
    assert len(corpus.rows) == 12 and len(train.questions) == 18
    decode = corpus.tokenizer.decode
    for row, question in enumerate(train.questions[:12]):  # the last sentence is kept for probes
        tokens = corpus.rows.tokens[corpus.rows.starts[row] : corpus.rows.starts[row + 1]]
        images = (tokens == corpus.words.image).sum()
        assert images == 3 * 2 * 2 and tokens[0] == corpus.words.begin
        assert decode(tokens[1 + images :]) == f"{question.prompt} {question.answer} </s>"
        boxes = nlvr.boxes(train.images[question.images[0]], 16)
        np.testing.assert_array_equal(corpus.images[corpus.row_images[row]], boxes)


def test_encoders_learn_from_boxes_of_true_sentences_only(corpus: Corpus, data: Path) -> None:
    captioned, captions_nl = corpus.captions("objects")
    true = [index for index, one in enumerate(nlvr.load(data).train.questions[:12]) if one.answer == "true"]
    assert sorted(captioned // 3) == sorted(3 * true) and len(captions_nl) == len(captioned) == 3 * len(true)
    texts = corpus.tokenizer.batch_decode(captions_nl, skip_special_tokens=True)
    assert set(texts) == {"there is a box with 2 items ."}


def test_test_questions_carry_their_picture_and_words_unseen_in_training_are_unknown(
    corpus: Corpus, data: Path
) -> None:
    splits = (nlvr.load(data).dev, nlvr.load(data).test)
    assert [question.benchmark for question in corpus.questions("test")] == ["nlvr_dev"] * 10 + ["nlvr_test"] * 10
    pictures = {(split.name, one.id): split.images[one.images[0]] for split in splits for one in split.questions}
    for question in corpus.questions("test"):
        path = pictures[question.benchmark.removeprefix("nlvr_"), question.id]
        np.testing.assert_array_equal(corpus.pictures("test")[question.images[0]], nlvr.boxes(path, 16))
        assert question.groups["split"] == "iid" and question.groups["cluster"].split("/")[0] in ("dev", "test")
    vocabulary = corpus.tokenizer.get_vocab()
    assert "tower" in vocabulary and "zebras" not in vocabulary


def test_probes_are_training_sentences_that_training_does_not_see(run: Path, corpus: Corpus) -> None:
    assert {one.prompt for one in corpus.questions("probe")} == {"kept out"} and len(corpus.questions("probe")) == 6
    assert corpus.pictures("probe").shape == (6, 3, 16, 16, 3)
    assert "kept" not in corpus.tokenizer.get_vocab()
    for path in run.glob("steps/instruct_*/probes.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert [(row["step"], row["questions"]) for row in rows] == [(3, {"nlvr_dev": 6})]
