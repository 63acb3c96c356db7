"""Pairs as the scenes write them are scored as pairs."""

import json
from dataclasses import asdict
from pathlib import Path

from blindspot.reporting import collect
from blindspot.scenes.sampling import test_questions as draw_test
from tests.reporting.checker import mark_done


def test_always_answering_yes_gets_no_pair_right(tmp_path: Path) -> None:
    _, questions = draw_test("iid", 40, 0)
    rows = [
        {
            **asdict(question),
            "raw": "yes",
            "score": float(question.answer == "yes"),
            "parsed": True,
        }
        for question in questions
        if question.benchmark in ("mmvp", "vsr")
    ]
    evaluate = tmp_path / "steps/evaluate"
    evaluate.mkdir(parents=True)
    (evaluate / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mark_done(evaluate)
    plan = {
        "study": "s",
        "title": "t",
        "scale": "full",
        "meaningful": True,
        "arms": [{"id": "clip-learned", "label": "LLaVA-CLIP", "axes": {"family": "clip", "positions": "learned"}}],
        "pairs": [],
        "columns": [
            {"id": "mmvp", "label": "Pairs", "metric": "pair_accuracy", "chance": 0.25},
            {"id": "vsr", "label": "VSR", "chance": 0.5},
        ],
        "steps": [
            {
                "id": "e",
                "kind": "evaluate",
                "folder": "steps/evaluate",
                "arm": "clip-learned",
                "seed": 0,
                "stage": "instruct",
            }
        ],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    scores = {
        row["column"]: row for row in collect(tmp_path)["scores"] if row["split"] == "iid" and row["seed"] is None
    }
    assert (scores["mmvp"]["score"], scores["mmvp"]["n"]) == (0, 20)
    assert (scores["vsr"]["score"], scores["vsr"]["n"]) == (0.5, 40)
