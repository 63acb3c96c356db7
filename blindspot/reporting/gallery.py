"""Which questions the page shows, with every arm's answer."""

import re
from typing import Any

import numpy as np

from blindspot.reporting.answers import Answers, RunKey
from blindspot.reporting.plan import Column, Plan
from blindspot.reporting.text import LIMIT, clean

SCENES = 12
BOXES = 6
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def pick_scenes(plan: Plan, answers: Answers) -> list[dict[str, Any]]:
    """``SCENES`` questions, columns in turn: those on which the arms disagree most, one per image.

    Only questions of the iid split that count on their own are shown; ties are broken by a seeded shuffle.
    """
    shown = _shown(plan, answers)
    queues = [
        (column, _by_disagreement(answers, shown, column))
        for column in plan.columns
        if column.metric not in ("mean_iou", "pair_accuracy")
    ]
    queues = [(column, queue) for column, queue in queues if queue]
    picks: list[dict[str, Any]] = []
    seen: set[int] = set()
    while queues and len(picks) < SCENES:
        column, queue = queues.pop(0)
        fresh = [place for place in queue if answers.questions[place]["image"] not in seen]
        if fresh:
            seen.add(answers.questions[fresh[0]]["image"])
            picks.append(_pick(answers, shown, fresh[0], column))
            queues.append((column, fresh[1:]))
    order = {column.id: number for number, column in enumerate(plan.columns)}
    return sorted(picks, key=lambda pick: order[pick["column"]])


def pick_localisation(plan: Plan, answers: Answers) -> list[dict[str, Any]]:
    """``BOXES`` questions at even steps from the worst to the best mean IoU over arms, with boxes as numbers."""
    shown = _shown(plan, answers)
    picks = []
    for column in plan.columns:
        if column.metric != "mean_iou" or column.box_units is None:
            continue
        places = answers.iid(column)
        places.sort(key=lambda place: (np.mean([answers.scores[key][place] for key in shown]), place))
        chosen = np.unique(np.linspace(0, len(places) - 1, BOXES).round().astype(int)) if places else []
        for place in (places[number] for number in chosen):
            pick = _pick(answers, shown, place, column)
            pick["units"], pick["box"] = column.box_units, read_box(pick["answer"])
            for answer in pick["answers"]:
                answer["box"] = read_box(answer["raw"])
            if pick["box"] is not None:
                picks.append(pick)
    return picks


def read_box(text: str) -> list[float] | None:
    """The four numbers ``x0 y0 x1 y1`` of a text, or None when there are not exactly four in order."""
    numbers = [float(number) for number in _NUMBER.findall(text)]
    return numbers if len(numbers) == 4 and numbers[0] <= numbers[2] and numbers[1] <= numbers[3] else None


def _shown(plan: Plan, answers: Answers) -> list[RunKey]:
    """One model per arm: its first seed after the last stage that was evaluated."""
    for stage in reversed(plan.stages()):
        runs = [answers.runs(arm.id, stage)[:1] for arm in plan.arms]
        if any(runs):
            return [key for first in runs for key in first]
    return []


def _by_disagreement(answers: Answers, shown: list[RunKey], column: Column) -> list[int]:
    places = np.random.default_rng(0).permutation(np.array(answers.iid(column), dtype=np.int64))
    scores_sq = np.stack([answers.scores[key][places] for key in shown])
    return places[np.argsort(-scores_sq.var(axis=0), kind="stable")].tolist()


def _pick(answers: Answers, shown: list[RunKey], place: int, column: Column) -> dict[str, Any]:
    question = answers.questions[place]
    replies = [
        {
            "arm": key.arm,
            "seed": key.seed,
            "raw": clean(answers.raw[key][place], LIMIT),
            "score": float(answers.scores[key][place]),
            "parsed": bool(answers.parsed[key][place]),
        }
        for key in shown
    ]
    return {
        "id": clean(str(question["id"]), LIMIT),
        "column": column.id,
        "image": question["image"],
        "prompt": clean(str(question["prompt"]), 2 * LIMIT),
        "answer": clean(str(question["answer"]), LIMIT),
        "choices": [clean(str(choice), LIMIT) for choice in question["choices"]],
        "answers": replies,
    }
