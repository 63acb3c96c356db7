"""Rows of answers made by hand or at random, for the tests of scores."""

import random
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from blindspot.benchmarks.scoring import DEFAULT, profile
from blindspot.evaluation.scores.answers import ScoredAnswers, collect
from blindspot.evaluation.scores.report import metric_row
from blindspot.files import write_json, write_jsonl

Row = dict[str, Any]


def _row(kind: str, name: str, number: int, gold: str, raw: str, **groups: str) -> Row:
    return {
        "id": f"{name}-{number}",
        "benchmark": name,
        "kind": kind,
        "answer": gold,
        "raw": raw,
        "stopped": "end",
        "prompt": f"question {number}",
        "groups": groups,
        "images": [number],
    }


yes_no, text, count = (partial(_row, kind) for kind in ("yes_no", "text", "count"))


def mcq(name: str, number: int, gold: str, raw: str, **groups: str) -> Row:
    """A question with two options."""
    return _row("mcq", name, number, gold, raw, **groups) | {"choices": {"A": "Open", "B": "Closed"}}


def box(number: int, raw: str, picture: str = "200x100", gold: str = "20 20 100 100") -> Row:
    """A question for a box, of a model that sees the whole picture and answers in shares of its sides."""
    edges = " ".join(f"{float(edge)}" for edge in (0, 0, *picture.split("x")))
    groups = {"cluster": str(number), "convention": "llava-normalised", "view": f"{picture} at {edges}"}
    return _row("boxes", "coco_boxes", number, gold, raw, **groups)


def answers_of(rows: Iterable[Row], names: Sequence[str] = (DEFAULT,)) -> ScoredAnswers:
    """The rows of one benchmark, scored."""
    (answers,) = collect((("row", row) for row in rows), [profile(name) for name in names]).values()
    return answers


def numbers(rows: Iterable[Row], metric: str = "overall", name: str = DEFAULT) -> Row:
    """What `metric_row` says of one metric."""
    answers = answers_of(rows, [name])
    wanted = next(one for one in answers.benchmark.metrics if one.name == metric)
    return metric_row(answers, name, wanted)


def pairs(hits: Sequence[tuple[bool, bool]]) -> list[Row]:
    """MMVP: pairs with right and wrong answers as told."""
    rows = []
    for pair, both in enumerate(hits):
        for place, right in enumerate(both):
            gold = "AB"[place]
            raw = gold if right else "BA"[place]
            rows.append(mcq("mmvp", 2 * pair + place, gold, raw, set=str(pair), cluster=str(pair)))
    return rows


def random_gqa(questions: int, seed: int, skill: float = 0.6, per_image: int = 5) -> list[Row]:
    """GQA rows whose images share their difficulty."""
    rng = random.Random(seed)
    ease = [rng.random() for _ in range(-(-questions // per_image))]
    types = ("choose", "compare", "logical", "query", "verify")
    rows = []
    for place in range(questions):
        image = place // per_image
        right = rng.random() < (skill + ease[image]) / 2
        gold = rng.choice(("yes", "no", "left"))
        groups = {"type": types[place % 5], "cluster": str(image)}
        rows.append(text("gqa", place, gold, gold if right else "?", **groups))
    return rows


def write_run(folder: Path, rows: Iterable[Row], **info: Any) -> Path:
    """A run folder as `blindspot evaluate` leaves it; ``info`` changes what run.json says."""
    by_benchmark: dict[str, list[Row]] = {}
    for row in rows:
        by_benchmark.setdefault(row["benchmark"], []).append(row)
    for name, its in by_benchmark.items():
        write_jsonl(folder / name / "answers.jsonl", its)
    said = {
        "answerer": {"model": folder.name},
        "prompts": "llava",
        "condition": {"blind": None, "swap": False},
        "limit": None,
        "benchmarks": {name: {"digest": "0123456789", "notes": []} for name in by_benchmark},
    }
    write_json(folder / "run.json", said | info)
    return folder
