"""VSI-Bench: how many, how far, how large, where and when, from a video walk through a room; numbers and choices.

Groups: ``task`` (directions at three levels), ``cluster`` (the video).

Its score is the mean over eight tasks, the levels of directions together one. Numbers are scored by mean relative
accuracy: the share of ten tolerances, 50 to 5 per cent, within which the answer lies. The frames are pictures here:
`FRAMES` of them, at even steps.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Term, by
from blindspot.benchmarks.rules import (
    EASI,
    LATER,
    LMMS_EVAL,
    OFFICIAL,
    UP_TO_TWENTY,
    Item,
    ReadNumber,
    Scored,
    last_number,
    number,
)
from blindspot.benchmarks.sources.forms import read_rows, with_pictures
from blindspot.benchmarks.sources.video import with_frames
from blindspot.benchmarks.words import LETTER, listed
from blindspot.question import Question

FRAMES = 32
NUMBERS = ("object_counting", "object_abs_distance", "object_size_estimation", "room_size_estimation")
CHOICES = ("object_rel_distance", "object_rel_direction", "route_planning", "obj_appearance_order")
TASKS = (*NUMBERS, *CHOICES)
LEVELS = ("easy", "medium", "hard")
COUNTS = {
    "questions": 5130,
    "task=object_counting": 565,
    "task=object_abs_distance": 834,
    "task=object_size_estimation": 953,
    "task=room_size_estimation": 288,
    "task=object_rel_distance": 710,
    "task=object_rel_direction_easy": 217,
    "task=object_rel_direction_medium": 378,
    "task=object_rel_direction_hard": 373,
    "task=route_planning": 194,
    "task=obj_appearance_order": 618,
}
_LEAD = "These are frames of a video.\n"
_TENS = ("thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_WORDS = (
    UP_TO_TWENTY | {word: 10 * tens for tens, word in enumerate(_TENS, start=3)} | {"hundred": 100, "thousand": 1000}
)


def first_token(raw: str) -> float | None:
    """What stands before the first space, as a number."""
    try:
        return float(raw.split(" ")[0].rstrip(".").strip())
    except ValueError:
        return None


def first_number(raw: str) -> float | None:
    """lmms-eval's: the first, in digits or in words."""
    text = raw.strip().lower()
    digits = re.search(r"-?\d+(?:\.\d+)?", text)
    words: list[str] = []
    start = len(text)
    for match in re.finditer(r"[a-z]+", text):
        if match[0] in _WORDS:
            start = match.start() if not words else start
            words.append(match[0])
        elif words and match[0] != "and":
            break
    if digits and digits.start() < start:
        return float(digits[0])
    total, current = 0, 0
    for word in words:
        if word == "thousand":
            total, current = total + max(current, 1) * 1000, 0
        else:
            current = max(current, 1) * 100 if word == "hundred" else current + _WORDS[word]
    return float(total + current) if words else None


def _first_word(item: Item) -> Scored:
    said = item.raw.split(" ")[0].rstrip(".").strip()
    return Scored(said, float(said.lower() == item.gold.lower()), said.upper() in item.choices)


def _rule(choice: Callable[[Item], Scored], read: ReadNumber) -> Callable[[Item], Scored]:
    return lambda item: choice(item) if item.kind == "mcq" else number(item, read)


def _question(row: Row) -> Question:
    kind = row.text("question_type")
    task = next((task for task in TASKS if kind.startswith(task)), None)
    if task is None:
        raise row.error(f"question_type {kind[:40]!r} is not one of VSI-Bench")
    groups = {"task": kind, "cluster": f"{row.text('dataset')}/{row.text('scene_name')}"}
    gold, identifier, options = row.text("ground_truth", "answer").strip(), row.text("id", "index"), ()
    if task in CHOICES:
        options = tuple(re.sub(r"^[A-Z]\.\s*", "", text) for text in row.strings("options"))
    elif first_token(gold) is None:
        raise row.error(f"the gold answer {gold[:40]!r} is not a number")
    return Question(identifier, "vsi", "mcq" if options else "number", row.asked, gold, options, row.images, groups)


def _video(row: Mapping[str, Any]) -> str:
    return f"{row.get('dataset')}/{row.get('scene_name')}.mp4"


def _asked(question: Question, options: str, number: str) -> str:
    if question.kind == "number":
        return f"{_LEAD}{question.prompt}\n{number}"
    return f"{_LEAD}{question.prompt}\n{options}{listed(question)}{LETTER}"


_SINGLE = "Please answer the question using a single word or phrase."
_DIRECTIONS = tuple(Term({"task": f"object_rel_direction_{level}"}, weight=1 / 3) for level in LEVELS)
VSI = Benchmark(
    name="vsi",
    title="VSI-Bench",
    licence="Apache-2.0 (the data set's card; the videos are of ScanNet, ScanNet++ and ARKitScenes)",
    citation="Yang et al., Thinking in Space, CVPR 2025, arxiv.org/abs/2412.14171",
    sources=(
        Source(
            "original",
            lambda paths: with_frames(paths[0], read_rows(paths[0]), _video, FRAMES),
            _question,
            "nyu-visionx/VSI-Bench",
            counts=COUNTS,
            marks=("test.jsonl", "*/test.jsonl"),
            blind=lambda paths: with_pictures(paths[0], read_rows(paths[0]), _video, "", blind=True),
            page="the videos (arkitscenes.zip, scannet.zip, scannetpp.zip) of huggingface.co/datasets/nyu-visionx/VSI-Bench, unpacked beside test.jsonl",  # noqa: E501
        ),
    ),
    metrics=(
        Metric(
            "overall",
            (
                *(Term({"task": task}, weight=1 / 8) for task in TASKS if task != "object_rel_direction"),
                *(Term(term.where, weight=1 / 24) for term in _DIRECTIONS),
            ),
            None,
        ),
        *by("task", (task for task in TASKS if task != "object_rel_direction")),
        Metric("task/object_rel_direction", _DIRECTIONS, None),
    ),
    kinds={"mcq": "mcq", "number": "number"},
    rules={
        LATER: _rule(EASI[LATER], last_number),
        LMMS_EVAL: _rule(_first_word, first_number),
        OFFICIAL: _rule(_first_word, first_token),
    },
    vlmevalkit="VSI-Bench",
    prompts={
        **dict.fromkeys((OFFICIAL, LMMS_EVAL), partial(_asked, options="Options:\n", number=_SINGLE)),
        LATER: partial(_asked, options="", number="Answer briefly and directly in one float number."),
    },
    longest={LMMS_EVAL: 16},
)
