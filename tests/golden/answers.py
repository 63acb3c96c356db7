"""Raw answers of every benchmark, drawn by a fixed seed from the questions and replies of ``questions.json``."""

import json
import random
from pathlib import Path
from typing import Any

Row = dict[str, Any]
CONVENTIONS = {
    "llava-normalised": ((1, 1), "[{0:.3f}, {1:.3f}, {2:.3f}, {3:.3f}]"),
    "qwen-pixels-json": ((504, 364), '```json\n[{{"bbox_2d": [{0:.0f}, {1:.0f}, {2:.0f}, {3:.0f}]}}]\n```'),
    "qwen-1000": ((1000, 1000), "it({0:.0f},{1:.0f}),({2:.0f},{3:.0f})"),
    "gemma-1000-yx": ((1000, 1000), '[{{"box_2d": [{1:.0f}, {0:.0f}, {3:.0f}, {2:.0f}]}}]'),
    "paligemma-loc": ((1024, 1024), "<loc{1:04.0f}><loc{0:04.0f}><loc{3:04.0f}><loc{2:04.0f}> it"),
    "molmo-points": ((100, 100), '<point x="{4:.1f}" y="{5:.1f}" alt="it">it</point>'),
    "canvas": ((504, 364), "{0:.0f} {1:.0f} {2:.0f} {3:.0f}"),
}  # fmt: skip
"""How each family writes a box: sides of its input, and the text of x0, y0, x1, y1 and the middle."""


def write_runs(folder: Path) -> list[Path]:
    """Three run folders with answers to the same questions: of a good, a middling and a poor model."""
    told = json.loads((Path(__file__).parent / "questions.json").read_text(encoding="utf-8"))
    replies = told.pop("replies")
    for run, skill in (("good", 0.8), ("middling", 0.5), ("poor", 0.3)):
        for name, benchmark in told.items():
            draw = random.Random(f"{run} {name}")
            rows = [_row(name, benchmark, number, draw, skill, replies) for number in range(benchmark["count"])]
            rows += [_circular(name, benchmark, number, draw) for number in range(benchmark.get("circular", 0))]
            path = folder / run / name / "answers.jsonl"
            path.parent.mkdir(parents=True)
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [folder / run for run in ("good", "middling", "poor")]


def _row(name: str, told: Row, number: int, draw: random.Random, skill: float, replies: Row) -> Row:
    together, cluster = number // told.get("in_set", 1), number // told.get("in_cluster", 1)
    of_picture = told["asked"][together % len(told["asked"])]
    row = {
        "id": str(number),
        "benchmark": name,
        "kind": told["kind"],
        "prompt": f"question {number}",
        "images": [cluster],
    }
    row["stopped"] = "length" if draw.random() < 0.05 else "end"
    own = {"s": together, "c": cluster, "a": of_picture}
    groups = {
        key: str(own[value] if isinstance(value, str) else value[together % len(value)])
        for key, value in told["groups"].items()
    }
    if told["kind"] == "boxes":
        return row | _box(of_picture, number, draw, skill, replies, groups)
    options, gold = [], told["asked"][number % len(told["asked"])]
    if "open" in told and number % 3 == 0:
        row["kind"], gold = "text", told["open"][number // 3 % len(told["open"])]
    elif told["kind"] == "mcq":
        turn = number % told.get("in_set", 1) if "circular" in told else 0
        options = of_picture[turn:] + of_picture[:turn]
        gold = "ABCDE"[(together - turn) % len(options) if turn or "circular" in told else number % len(options)]
        row["choices"] = dict(zip("ABCDE", options, strict=False))
    row |= {"answer": gold, "groups": groups}
    words = _words(gold, options, told["asked"])
    pool = "hostile" if draw.random() < 0.3 else "good" if draw.random() < skill else "bad"
    row["raw"] = _filled(draw.choice(replies[pool]), words)
    if told.get("likelihood"):
        labels = list(row.get("choices", ("Yes", "No")))
        row["likelihood"] = {label: round(-draw.random() - 0.7 * (label != gold) * skill, 3) for label in labels}
    return row


def _words(gold: str, options: list[str], asked: list[Any]) -> dict[str, str]:
    """What a reply may name: the gold answer and another one, both as label and as text."""
    labels = list("ABCDE"[: len(options)]) or [one for one in asked if isinstance(one, str)]
    wrong = labels[(labels.index(gold) + 1) % len(labels)] if gold in labels else "other"
    texts = dict(zip("ABCDE", options, strict=False))
    return {
        "{g}": gold,
        "{l}": gold.lower(),
        "{w}": wrong,
        "{t}": texts.get(gold, gold),
        "{u}": texts.get(wrong, wrong),
    }


def _filled(reply: str, words: dict[str, str]) -> str:
    for mark, word in words.items():
        reply = reply.replace(mark, word)
    return reply


def _circular(name: str, told: Row, number: int, draw: random.Random) -> Row:
    """The passes of a question in one row."""
    options = told["asked"][number % len(told["asked"])]
    golds = ["A", "D", "C", "B"]
    raws = [gold if number % 2 or draw.random() < 0.5 else f"({gold})" for gold in golds]
    return {
        "id": f"circular-{number}",
        "benchmark": name,
        "kind": "circular_group",
        "answer": golds,
        "raw": [*raws[:3], raws[3] if number < 3 else "?"],
        "choices": [options[turn:] + options[:turn] for turn in range(4)],
        "images": [number],
        "prompt": "",
        "stopped": "end",
        "groups": {"cluster": f"o{number}"},
    }


def _box(asked: list[Any], number: int, draw: random.Random, skill: float, replies: Row, groups: Row) -> Row:
    width, height, gold = asked
    convention = list(CONVENTIONS)[number % len(CONVENTIONS)]
    sides, form = CONVENTIONS[convention]
    behind = f" in {sides[0]}x{sides[1]}" if sides == (504, 364) else ""
    padded = convention == "llava-normalised" and number % 2
    side, left, top = (max(width, height),) * 2, (max(width, height) - width) // 2, (max(width, height) - height) // 2
    window = (-left, -top, side[0] - left, side[1] - top) if padded else (0, 0, width, height)
    edges = " ".join(str(float(edge)) for edge in window)
    x0, y0, x1, y1 = map(float, gold.split())
    moved = 0.1 if draw.random() < skill else 0.6  # an overlap of .82 or of a quarter
    x0, x1 = x0 + moved * (x1 - x0), x1 + moved * (x1 - x0)
    x0, x1, y0, y1 = (
        (place - start) / (end - start) * size
        for place, start, end, size in (
            (x0, window[0], window[2], sides[0]),
            (x1, window[0], window[2], sides[0]),
            (y0, window[1], window[3], sides[1]),
            (y1, window[1], window[3], sides[1]),
        )
    )
    said = form.format(x0, y0, x1, y1, (x0 + x1) / 2, (y0 + y1) / 2)
    other = form.format(*(size * share for size, share in zip(sides * 2, (0.6, 0.6, 0.9, 0.9), strict=True)), 1, 1)
    wild = draw.random()
    nothing = _filled(draw.choice(replies["hostile"]), dict.fromkeys(("{g}", "{w}", "{t}", "{u}"), "there"))
    chosen = (
        (0.12, f"<think>Perhaps {other}, or so.</think>\n{said}"),
        (0.17, f"<think>It is near {other}"),
        (0.25, f"It is at {said} and at {other}."),
        (0.33, form.format(x1, y1, x0, y0, -5, 900)),
        (0.40, nothing),
        (1.00, said),
    )
    raw = next(text for share, text in chosen if wild < share)
    view = f"{width}x{height} at {edges}{behind}"
    return {"answer": gold, "raw": raw, "groups": groups | {"convention": convention, "view": view}}
