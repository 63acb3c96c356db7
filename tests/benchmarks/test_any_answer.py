"""Whatever a model says, every rule of the later benchmarks scores it, and soon: `BLINDSPOT_STRINGS` says how much."""

import os
import random
import time
from collections.abc import Iterator
from typing import Any

from blindspot.benchmarks.registry import BENCHMARKS, SETS
from blindspot.benchmarks.rules import LIKELIHOOD, REPAIRED
from blindspot.benchmarks.scoring import Profile, profile

SECONDS = 0.1
"""Of the processor that one rule may take for an answer of up to 10,000 characters; for longer ones in proportion."""
PIECES = (
    *("A", "B", "(C)", "d.", " answer is ", "Answer: ", "<answer>", "</answer>", "<think>", "</think>", "Option A:"),
    *("yes", "no", "know", "left", "on", "twenty-one", "hundred", "and", "3.5", "1e400", "-7", "1,200", "²", "٣"),
    *("[", "]", "(", ")", "{", "}", "'", '"', "`", "```json\n", '{"point_2d": [', "], ", "(0.5, 0.25)", "(1, 2, 3, 4)"),
    *('<points x1="', "选项 B:", "答案", "\n", " ", "\t", "\u200b", "\x00", "\ud800", "é", "=", ":", ".", "-", ","),
)
CHOICES = {"A": "left", "B": "right", "C": "front", "D": "on"}
GOLDS = {"number": "2.5", "points": "9 9 0 0 5 5", "yes_no": "Yes", "text": "On"}


def said(count: int, seed: int = 0) -> Iterator[str]:
    """Answers of pieces that rules look for, some long, some of one piece again and again."""
    draw, long = random.Random(seed), max(100, count // 200)
    for number in range(count):
        if number % long == 0:
            yield draw.choice(PIECES) * draw.randint(1, 3000)
        elif number % long == 1:
            yield "".join(draw.choices(draw.sample(PIECES, 3), k=1500))
        elif number % 3:
            yield "".join(draw.choices(PIECES, k=draw.randint(0, 12)))
        else:
            yield "".join(
                chr(draw.randrange(1, draw.choice((128, 0x500, 0x11000)))) for _ in range(draw.randint(0, 40))
            )


def asked() -> list[tuple[Profile, dict[str, Any]]]:
    """Every rule with a row that it scores."""
    return [
        (profile(name), {"benchmark": own, "kind": kind, "answer": GOLDS.get(each, "A"), "choices": CHOICES})
        for own in SETS["spatial-2026"]
        for kind, each in BENCHMARKS[own].kinds.items()
        for name in sorted({*BENCHMARKS[own].rules, REPAIRED} - {LIKELIHOOD})
        if own in profile(name).rules
    ]


def test_every_rule_scores_any_answer_soon() -> None:
    rows, slow = asked(), []
    assert len(rows) > 40
    for raw in said(int(os.environ.get("BLINDSPOT_STRINGS", "400"))):
        for rules, row in rows:
            begin = time.thread_time()
            scored = rules.score({**row, "raw": raw})
            took = time.thread_time() - begin
            assert 0.0 <= scored.score <= 1.0 and (scored.parsed or not scored.score), (row, raw)
            if took > SECONDS * max(1, len(raw) / 10_000):
                slow.append((took, rules.name, row["benchmark"], raw[:40], len(raw)))
    assert not slow
