"""A made-up run folder of the miniature's shape, with simulated skill and hostile answers."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindspot.reporting import collect, drawing
from tests.reporting.checker import mark_done

FAMILIES = [("clip", "CLIP"), ("siglip", "SigLIP"), ("siglip2", "SigLIP2"), ("aimv2", "AIMv2")]
BLOCKS = {"learned": "1-D: learned absolute positions", "axial": "2-D: rotary positions (2D-RoPE)"}
MARKERS = {"learned": "learned positions", "axial": "2D-RoPE"}
COLUMNS: list[dict[str, Any]] = [
    {"id": "mmvp", "label": "Pairs", "paper": "MMVP", "metric": "pair_accuracy", "chance": 0.25},
    {"id": "cvbench_relation", "label": "Relation", "paper": "CV-Bench 2D", "chance": 0.25, "relative": True,
     "english": "Which {3} is {2}?"},
    {"id": "cvbench_count", "label": "Count", "paper": "CV-Bench 2D", "chance": 0.25},
    {"id": "tallyqa_simple", "label": "Simple", "paper": "TallyQA", "chance": 0.2},
    {"id": "tallyqa_complex", "label": "Complex", "paper": "TallyQA", "chance": 0.2},
    {"id": "gqa_choose", "label": "Choose", "paper": "GQA", "chance": 0.5},
    {"id": "gqa_compare", "label": "Compare", "paper": "GQA", "chance": 0.5},
    {"id": "gqa_logical", "label": "Logical", "paper": "GQA", "chance": 0.5},
    {"id": "gqa_query", "label": "Query", "paper": "GQA", "chance": 0.125},
    {"id": "gqa_verify", "label": "Verify", "paper": "GQA", "chance": 0.5},
    {"id": "vsr", "label": "Statements", "paper": "VSR", "chance": 0.5, "baselines": {"one-object rule": 0.53}},
    {"id": "topviewrs", "label": "Map", "paper": "TopViewRS", "chance": 0.25, "baselines": {"one-object rule": 0.36}},
    {"id": "countbenchqa", "label": "Count 2 to 10", "paper": "CountBenchQA", "chance": 0.111},
    {"id": "boxes", "label": "Mean IoU", "paper": "Boxes", "metric": "mean_iou", "chance": 0.08, "box_units": 16},
]  # fmt: skip
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "left\x00\x1b[31m\u202egnp.",
    "yes " * 500,
    "",
]


def all_arms() -> list[dict[str, Any]]:
    arms = [
        {
            "id": f"{family}-{positions}",
            "label": f"LLaVA-{name}" + ("-2D-RoPE" if positions == "axial" else ""),
            "axes": {"family": family, "positions": positions},
            "block": BLOCKS[positions],
            "panel": name,
            "marker": MARKERS[positions],
            "baseline": positions == "learned",
            "replicate_of": None,
        }
        for positions in ("learned", "axial")
        for family, name in FAMILIES
    ]
    replicate = {"id": "replicate", "label": "LLaVA-CLIP (replicate)", "replicate_of": "clip-learned"}
    return [*arms, arms[0] | replicate]


CLIP_ARMS = [arm for arm in all_arms() if arm["axes"]["family"] == "clip" and arm["id"] != "replicate"]


def _questions(rng: np.random.Generator, columns: list[dict[str, Any]], per_column: int) -> list[dict[str, Any]]:
    questions = []
    for column in columns:
        boxes = column.get("metric") == "mean_iou"
        for number in range(per_column):
            scene = number // 2
            x, y = rng.integers(0, 12, size=2).tolist()
            questions.append(
                {
                    "id": f"{column['id']}-{number}",
                    "benchmark": column["id"],
                    "kind": "boxes" if boxes else "choice",
                    "prompt": "Where is the <b>red</b> square?" if boxes else "Is the red square left of the circle?",
                    "answer": f"{x} {y} {x + 4} {y + 4}" if boxes else "left",
                    "choices": [] if boxes else ["left", "right"],
                    "images": [scene % 64],
                    "groups": {
                        "cluster": f"{column['id']}-{scene}",
                        "split": "compositional" if scene % 5 == 4 else "iid",
                    },
                }
            )
    return questions


def _images(rng: np.random.Generator) -> np.ndarray:
    images_nhwc = np.full((64, 32, 32, 3), 235, dtype=np.uint8)
    for image_hwc in images_nhwc:
        for colour in ((200, 40, 40), (40, 90, 200), (30, 150, 70)):
            y, x = rng.integers(0, 24, size=2)
            image_hwc[y : y + 8, x : x + 8] = colour
    return images_nhwc


def _answers(
    rng: np.random.Generator, questions: list[dict[str, Any]], arm: dict[str, Any], stage: str, columns: dict[str, Any]
) -> list[dict[str, Any]]:
    skill = {"clip": 0.9, "siglip": 0.86, "siglip2": 0.93, "aimv2": 0.95}[arm["axes"]["family"]]
    rows = []
    run_effect = {column: rng.normal(0, 0.012) for column in columns}
    for question in questions:
        column = columns[question["benchmark"]]
        spatial = column["id"] in ("mmvp", "cvbench_relation", "vsr", "topviewrs", "gqa_compare", "boxes")
        p = skill - 0.3 * (arm["axes"]["positions"] == "axial" and spatial) - 0.25 * (stage == "connector")
        right = rng.random() < min(max(p + run_effect[column["id"]], column["chance"]), 1.0)
        score, raw, parsed = float(right), "left" if right else "right", True
        if column.get("metric") == "mean_iou":
            corners = np.array(question["answer"].split(), dtype=int) + (0 if right else rng.integers(-3, 4))
            raw, score = " ".join(map(str, corners)), 1.0 if right else float(rng.random() * 0.6)
        elif not right and rng.random() < 0.05:
            raw, parsed = HOSTILE[int(rng.integers(len(HOSTILE)))], False
        rows.append(question | {"raw": raw, "score": score, "parsed": parsed})
    return rows


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    mark_done(path.parent)


def _log() -> list[dict[str, Any]]:
    return [{"step": step, "steps": 300, "loss": 3 * np.exp(-step / 60)} for step in range(0, 301, 10)]


def _probes(rng: np.random.Generator, columns: list[dict[str, Any]], arm: dict[str, Any]) -> list[dict[str, Any]]:
    speed = 60 if arm["axes"]["positions"] == "learned" else 110
    rows = []
    for step in range(0, 301, 30):
        top = 1 - np.exp(-step / speed)
        means = ((column["id"], column["chance"] + (0.95 - column["chance"]) * top) for column in columns)
        right = {name: float(np.clip(mean + rng.normal(0, 0.02), 0, 1)) for name, mean in means}
        rows.append({"step": step, "questions": dict.fromkeys(right, 400), "right": right})
    return rows


def write_run(
    run: Path,
    per_column: int = 60,
    seeds: tuple[int, ...] = (0, 1),
    columns: list[dict[str, Any]] | None = None,
    arms: list[dict[str, Any]] | None = None,
    meaningful: bool = True,
    stages: tuple[str, ...] = ("connector", "instruct"),
) -> Path:
    """Write a run folder; the same arguments give the same bytes."""
    rng = np.random.default_rng(7)
    columns = COLUMNS if columns is None else columns
    columns = [{"metric": "accuracy", "description": "what is asked"} | column for column in columns]
    arms = all_arms() if arms is None else arms
    ids = {arm["id"] for arm in arms}
    pairs = [
        {"a": f"{family}-axial", "b": f"{family}-learned", "label": label, "kind": "positions"}
        | {"first": MARKERS["axial"], "second": MARKERS["learned"]}
        for family, label in FAMILIES
        if {f"{family}-axial", f"{family}-learned"} <= ids
    ]
    if "replicate" in ids:
        pairs.append({"a": "replicate", "b": "clip-learned", "label": "CLIP, other seed", "kind": "replicate"})
    by_id = {column["id"]: column for column in columns}
    questions = _questions(rng, columns, per_column)
    steps: list[dict[str, Any]] = [{"id": "data", "kind": "data", "seed": 0, "folder": "steps/data"}]
    (run / "steps/data").mkdir(parents=True)
    np.save(run / "steps/data/test_images.npy", _images(rng))
    mark_done(run / "steps/data")
    for arm in arms:
        for seed in seeds:
            for stage in stages:
                name = f"{arm['id']}-{seed}-{stage}"
                common = {"arm": arm["id"], "seed": seed, "stage": stage}
                done = {"id": f"evaluate-{name}", "kind": "evaluate", "folder": f"steps/{name}-evaluate"}
                steps += [{"id": f"{stage}-{name}", "kind": stage, "folder": f"steps/{name}"} | common, done | common]
                _write_lines(run / f"steps/{name}/log.jsonl", _log() if stage == "instruct" else [])
                if stage == "instruct":
                    _write_lines(run / f"steps/{name}/probes.jsonl", _probes(rng, columns, arm))
                _write_lines(run / f"steps/{name}-evaluate/answers.jsonl", _answers(rng, questions, arm, stage, by_id))
    plan = {
        "study": "miniature",
        "title": "The Spatial Blindspot in miniature",
        "scale": "full" if meaningful else "smoke",
        "meaningful": meaningful,
        "seeds": list(seeds),
        "arms": arms,
        "pairs": pairs,
        "columns": columns,
        "notes": ["Encoders are trained in instruct, as the paper's text says."],
        "data": {"test": "steps/data"},
        "steps": steps,
    }
    (run / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    return run


@pytest.fixture(scope="session", autouse=True)
def quick_fonts() -> Iterator[None]:
    """The usual fonts take half of the time that a page takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(drawing._RC, "pdf.fonttype", 3)
        yield


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole miniature with few questions; read only."""
    return write_run(tmp_path_factory.mktemp("runs") / "miniature")


@pytest.fixture(scope="session")
def results(run_folder: Path) -> dict[str, Any]:
    """What ``collect`` makes of ``run_folder``; not to be changed."""
    return collect(run_folder)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run folder of one's own: ``make_run(per_column=10, ...)``."""
    return lambda **options: write_run(tmp_path / "run", **options)
