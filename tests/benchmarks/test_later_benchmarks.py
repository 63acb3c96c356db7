"""The spatial benchmarks of 2025 and 2026: every published form, and their scores as each harness scored examples."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from blindspot.benchmarks import points, rules, vsi
from blindspot.benchmarks.base import Collection, Term
from blindspot.benchmarks.registry import SETS, find
from blindspot.benchmarks.rules import LATER, LIKELIHOOD, LMMS_EVAL, OFFICIAL, REPAIRED, Scored
from blindspot.benchmarks.scoring import DEFAULT, profile
from blindspot.benchmarks.words import published as published_text
from blindspot.evaluation.base import PICTURE
from blindspot.evaluation.items import Questions
from blindspot.evaluation.prompts import PROFILES
from blindspot.evaluation.run.questions import Asking, Condition
from blindspot.evaluation.scores.answers import collect
from blindspot.question import Question

from . import published
from .published import picture, row, text64

EXAMPLES = Path(__file__).parents[3] / "shared" / "data" / "scored_2026.jsonl"
ABCD = {"A": "left", "B": "right", "C": "front", "D": "back"}
OURS = {"SITE-Bench": "site_image", "WhatsUp-A": "whatsup", "WhatsUp-B": "whatsup", "RoboSpatial-Home": "robospatial"}


def examples(*kinds: str) -> list[dict[str, Any]]:
    if not EXAMPLES.is_file():
        pytest.skip(f"{EXAMPLES} is not on this machine")
    rows = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    rows = [{**one, "benchmark": ours(one["benchmark"])} for one in rows if one["kind"] in kinds]
    for one in rows:
        if one["benchmark"] == "RefSpatial-Bench json":
            one["groups"]["asked"] = "json"
    return rows


def agrees(scored: Scored, expected: dict[str, Any]) -> bool:
    """Whether a rule found and scored what its harness did; points are compared as they are written."""
    return all(
        str(getattr(scored, key)) == str(value) if isinstance(value, list) else getattr(scored, key) == value
        for key, value in expected.items()
    )


def ours(name: str) -> str:
    return OURS.get(name.split()[0], name)


def read(name: str, path: Path) -> Collection:
    return find(name).read(path)


def test_every_example_scores_as_its_harness_scored_it() -> None:
    wrong, compared = [], 0
    for number, one in enumerate(examples("mcq", "contains", "number", "points", "yes_no"), start=1):
        for name, expected in one["expected"].items():
            scored = profile(name).score(one)
            compared += 1
            if not agrees(scored, expected):
                wrong.append((number, name, one["raw"], expected, scored))
    assert not wrong
    assert compared == 503


def test_what_a_harness_meant_is_scored_beside_what_it_does() -> None:
    compared = 0
    for one in examples("points"):
        for name, expected in one.get("repaired", {}).items():
            triangle = {"answer": "[(0.3125, 0.2083), (0.4688, 0.2083), (0.39, 0.4167)]"} if "triangle" in name else {}
            assert agrees(profile(REPAIRED).score({**one, **triangle}), expected), (name, one["raw"])
            compared += 1
    assert compared == 41


def value(benchmark: str, metric: str, rows: list[dict[str, Any]], name: str = LATER) -> float | None:
    answers = collect(((str(n), one) for n, one in enumerate(rows)), [profile(name)])[benchmark]
    return answers.sample(name, next(one for one in find(benchmark).metrics if one.name == metric)).value


def spread(one: dict[str, Any], **groups: list[Any]) -> list[dict[str, Any]]:
    """The rows behind an example that holds several answers."""
    return [
        {
            "id": str(n),
            "benchmark": ours(one["benchmark"]),
            "kind": "mcq",
            "choices": choices,
            "answer": answer,
            "raw": raw,
            "groups": {name: values[n] for name, values in groups.items()},
        }
        for n, (choices, answer, raw) in enumerate(zip(one["choices"], one["answer"], one["raw"], strict=True))
    ]


def test_versions_of_a_question_count_together_as_in_each_harness(tmp_path: Path) -> None:
    names = {"vanilla": "overall", "flip_eval": "flip", "circ_eval": "circular", "flip_circ_eval": "flip_circular"}
    for one in examples("qid_groups"):
        table = [
            row(n, qid=qid, category="height_higher", A="yes", B="no") for n, qid in enumerate(one["groups"]["qid"])
        ]
        questions = read("dsrbench_3d", published.tsv(tmp_path / "3DSRBench.tsv", table)).questions
        own = {name: [question.groups[name] for question in questions] for name in ("rotations", "mirrored", "set")}
        rows = [{**each, "benchmark": "dsrbench_3d"} for each in spread(one, **own)]
        for harness, expected in one["expected"].items():
            for metric, score in expected["metrics"].items():
                assert value("dsrbench_3d", names[metric], rows, harness) == pytest.approx(score), metric


def test_accuracy_above_chance_is_zero_for_guessing_and_as_published() -> None:
    for one in (each for each in examples("aggregate") if each["benchmark"] == "site_image"):
        rows = spread(one, options=[len(choices) for choices in one["choices"]])
        for harness, expected in one["expected"].items():
            assert value("site_image", "overall", rows, harness) == pytest.approx(expected["metrics"]["caa"], abs=1e-6)
            assert value("site_image", "accuracy", rows, harness) == pytest.approx(
                expected["metrics"]["accuracy"], abs=1e-6
            )
    groups, chance_q = Questions.of([{"options": n} for n in (2, 4, 5)]), np.array([1 / 2, 1 / 4, 1 / 5])
    for score_q, expected in ((chance_q, 0.0), (np.ones(3), 1.0), (np.zeros(3), -19 / 41)):
        sample = groups.sample([Term(value="above_chance")], score_q, np.full(3, np.nan))
        assert sample.value == pytest.approx(expected, abs=1e-3)
        found = sample.estimate().interval
        assert found.low is not None and found.high is not None and found.low <= expected + 1e-3 <= found.high + 2e-3


def test_blink_is_scored_by_task_by_its_authors() -> None:
    (one,) = (each for each in examples("aggregate") if each["benchmark"].startswith("BLINK"))
    tasks = [task.lower() for task in one["groups"]["sub_task"]]
    rows = [{**each, "benchmark": "blink"} for each in spread(one, task=tasks)]
    assert value("blink", "overall", rows) == one["expected"][LATER]["score"]
    assert find("blink").headline(OFFICIAL) == "by_task" and find("blink").headline(LATER) == "overall"


TSV: dict[str, tuple[str, dict[str, Any]]] = {
    "cvbench_3d": ("CV-Bench-3D.tsv", {"source": "Omni3D", "task": "Depth", "prompt": "Which? (A) left (B) right"}),
    "embspatial": ("EmbSpatialBench.tsv", {"data_source": "mp3d", "relation": "close"}),
    "dsrbench_3d": ("3DSRBench.tsv", {"qid": "VIN6MS3J-flip-1", "category": "height_higher"}),
    "blink": ("BLINK.tsv", {"category": "Multi-view_Reasoning"}),
    "viewspatial": ("ViewSpatialBench.tsv", {"category": "Camera perspective - Relative Direction"}),
    "mmsi": ("MMSIBench_wo_circular.tsv", {"category": "Motion (Cam.)"}),
    "mindcube": ("MindCubeBench_tiny_raw_qa.tsv", {"category": "around"}),
    "site_image": ("SiteBenchImage.tsv", {"category": "Counting & Existence", "dataset": "BLINK"}),
}


@pytest.mark.parametrize("name", TSV)
def test_tsv(name: str, tmp_path: Path) -> None:
    file, cells = TSV[name]
    several = [text64(1), text64(2)]
    rows = [row(3, **ABCD, **cells), row(4, **ABCD, **{**cells, "qid": "X", "answer": "D", "image": str(several)})]
    got = read(name, published.tsv(tmp_path / file, rows))
    first, second = got.questions
    assert (first.benchmark, first.kind, first.answer, first.choices) == (name, "mcq", "A", tuple(ABCD.values()))
    assert [got.images.read(key) for key in second.images] == [picture(1), picture(2)]
    labels = {label for metric in got.benchmark.metrics for term in metric.terms for label in term.where.items()}
    assert not labels or labels & set(first.groups.items()), "no metric reports this label"


def test_hub_forms(tmp_path: Path) -> None:
    cells = {"question": "Which?", "answer": "(B)", "choices": ["left", "right"]}
    cv = [
        {"idx": 1, "type": kind, "task": "Depth", "source": "Omni3D", "image": picture(1), **cells}
        for kind in ("2D", "3D")
    ]
    published.parquet(tmp_path / "cv/test_3d.parquet", cv)
    (question,) = read("cvbench_3d", tmp_path / "cv").questions
    assert (question.choices, question.answer, question.groups["task"]) == (("left", "right"), "B", "depth")

    emb = {
        "question_id": "mp3d_57",
        "question": "q",
        "answer": 2,
        "answer_options": list("wxyz"),
        "data_source": "mp3d",
    }
    published.parquet(tmp_path / "emb/test-00000-of-00001.parquet", [{**emb, "relation": "close", "image": picture(1)}])
    (question,) = read("embspatial", tmp_path / "emb").questions
    assert (question.id, question.answer, question.groups["source"]) == ("mp3d_57", "C", "mp3d")

    views = {"image_1": picture(1), "image_2": picture(2), "image_3": None, "image_4": None}
    blink = {"idx": "val_Jigsaw_1", "sub_task": "Jigsaw", "prompt": "Which?\n(A) left\n(B) right", **cells}
    published.parquet(tmp_path / "blink/Jigsaw/val-00000-of-00001.parquet", [{**blink, **views}], images=list(views))
    (question,) = read("blink", tmp_path / "blink").questions
    assert len(question.images) == 2 and question.groups["task"] == "jigsaw"
    said = PROFILES[OFFICIAL](question).content
    assert str(said[0]).startswith("Disclaimer") and said[1:] == (PICTURE, PICTURE)

    mmsi = {"id": 7, "question_type": "Motion (Cam.)", "answer": "B"}
    asked = "Where to? Options: A: North, B: South, or so, C: East, D: West"
    rows = [{**mmsi, "question": asked, "images": [picture(1), picture(2)]}]
    published.parquet(tmp_path / "mmsi/MMSI_Bench.parquet", rows, images=(), lists=("images",))
    (question,) = read("mmsi", tmp_path / "mmsi").questions
    assert question.choices == ("North", "South, or so", "East", "West") and len(question.images) == 2
    assert question.groups["type"] == "motion_cam"


def test_original_forms(tmp_path: Path) -> None:
    view = tmp_path / "view"
    published.pictures(view, ["scannet/a.jpg", "scannet/b.jpg"])
    asked = {"question_type": "Person perspective - Relative Direction", "question": "Where?", "answer": "B. front-up",
             "choices": "A. right\nB. front-up\nC. back-left\nD. front",
             "image_path": ["ViewSpatial-Bench/scannet/a.jpg", "ViewSpatial-Bench/scannet/b.jpg"]}  # fmt: skip
    published.json(view / "ViewSpatial-Bench.json", [asked])
    (question,) = read("viewspatial", view).questions
    assert (question.answer, question.choices[1], len(question.images)) == ("B", "front-up", 2)
    assert PROFILES[OFFICIAL](question).content[-1] == (
        "Where?A. right\nB. front-up\nC. back-left\nD. front\nReply only to the corresponding option.\nAnswer:"
    )

    cube = tmp_path / "cube"
    published.pictures(cube, ["around/1.jpg", "around/2.jpg"])
    line = {"id": "around_1", "images": ["around/1.jpg", "around/2.jpg"], "gt_answer": "B",
            "question": "What is behind me? A. Sofa B. White wall C. Window", "category": ["around"]}  # fmt: skip
    (cube / "MindCube_tinybench.jsonl").write_text(json.dumps(line) + "\n")
    (question,) = read("mindcube", cube).questions
    assert question.choices == ("Sofa", "White wall", "Window") and question.groups["setting"] == "around"

    whatsup = tmp_path / "whatsup"
    published.pictures(whatsup, ["controlled_images/mug_on_table.jpeg", "controlled_clevr/cup_behind_bowl.jpeg"])
    one = {"image_path": "data/controlled_images/mug_on_table.jpeg",
           "caption_options": ["A mug on a table", "A mug under a table", "A mug to the left of a table", "A mug to the right of a table"]}  # fmt: skip  # noqa: E501
    two = {"image_path": "data/controlled_clevr/cup_behind_bowl.jpeg",
           "caption_options": ["A cup behind a bowl", "A cup in front of a bowl", "A cup to the left of a bowl", "A cup to the right of a bowl"]}  # fmt: skip  # noqa: E501
    published.json(whatsup / "controlled_images_dataset.json", [one])
    published.json(whatsup / "controlled_clevr_dataset.json", [two])
    second, first = read("whatsup", whatsup).questions
    assert (first.answer, first.prompt) == (
        "On", "Where is the mug in relation to the table? Answer with left, right, on or under.")  # fmt: skip
    assert (second.answer, second.groups["part"]) == ("Behind", "b")


def test_sites_pictures_stand_where_question_and_options_name_them(tmp_path: Path) -> None:
    cells = {"category": "Counting & Existence", "dataset": "BLINK", "A": "<image>", "B": "<image>"}
    rows = [
        row(1, **{**cells, "image": str([text64(n) for n in range(3)]), "question": "<image> is like?"}),
        row(2, **cells),
    ]
    first, second = read("site_image", published.tsv(tmp_path / "SiteBenchImage.tsv", rows)).questions
    for name in (LATER, "qwen3_vl"):
        content = PROFILES[name](first).content
        assert [part is PICTURE for part in content] == [False, True, False, True, False, True, False]
        assert "".join(str(part) for part in content if part is not PICTURE).count(" is like?") == 1
    assert PROFILES[LATER](second).content[0] is PICTURE and len(PROFILES[LATER](second).content) == 2


def test_whatsup_of_coco_and_gqa(tmp_path: Path, refused: Any) -> None:
    published.pictures(tmp_path, ["val2017/000000000139.jpg", "vg_images/2407890.jpg", "vg_images/5.jpg"])
    files = {
        "coco_qa_one_obj.json": [[139, "A photo of a dog on the left", "A photo of a dog on the right"]],
        "coco_qa_two_obj.json": [
            [139, "A photo of a tv to the left of a bed", "A photo of a tv to the right of a bed"]
        ],
        "vg_qa_one_obj.json": [["5", "A photo of a sign at the top", "A photo of a sign at the bottom"]],
        "vg_qa_two_obj.json": [[2407890, "A photo of a cup on top of a box", "A photo of a cup below a box"]],
    }
    for name, rows in files.items():
        published.json(tmp_path / name, rows)
    got = read("whatsup_photos", tmp_path)
    assert [(one.groups["part"], one.answer, one.prompt) for one in got.questions] == [
        ("coco_one", "Left", "Where is the dog in the photo? Answer with left, right, top or bottom."),
        ("coco_two", "Left", "Where is the tv in relation to the bed? Answer with left, right, above or below."),
        ("gqa_one", "Top", "Where is the sign in the photo? Answer with left, right, top or bottom."),
        (
            "gqa_two",
            "On",
            "Where is the cup in relation to the box? Answer with left, right, front, behind, above or below.",
        ),
    ]
    assert got.questions[0].images == got.questions[1].images
    said = [{"id": str(n), "benchmark": "whatsup_photos", "kind": "text", "answer": one.answer, "raw": "left",
             "groups": one.groups} for n, one in enumerate(got.questions)]  # fmt: skip
    assert value("whatsup_photos", "overall", said, OFFICIAL) == 0.5  # the mean of the parts
    published.json(tmp_path / "coco_qa_one_obj.json", [[139, "A dog", "A photo of a dog on the right"]])
    assert "row 1: the captions" in refused(lambda: read("whatsup_photos", tmp_path))


def test_the_likeliest_caption_is_the_answer_and_of_equal_ones_the_first() -> None:
    captions = ("A mug under a table", "A mug on a table", "A mug to the left of a table")
    row_ = {"benchmark": "whatsup", "kind": "text", "answer": "On", "raw": ""}
    for values, extracted in (((-9.0, -3.5, -3.6), "on"), ((-3.5, -3.5, -4.0), "under"), ((-3.0, -3.5, -2.0), "left")):
        scored = profile(LIKELIHOOD).score({**row_, "likelihood": dict(zip(captions, values, strict=True))})
        assert (scored.extracted, scored.score) == (extracted, float(extracted == "on"))


def test_captions_are_asked_behind_the_picture_alone(tmp_path: Path) -> None:
    published.pictures(tmp_path, ["controlled_images/a.jpeg"])
    captions = [
        "A mug on a table",
        "A mug under a table",
        "A mug to the left of a table",
        "A mug to the right of a table",
    ]
    published.json(
        tmp_path / "controlled_images_dataset.json",
        [{"image_path": "controlled_images/a.jpeg", "caption_options": captions}],
    )
    asking = Asking.of(read("whatsup", tmp_path), PROFILES[OFFICIAL], Condition(likelihood=True), None)
    ((asked,),) = asking.portions(asking.questions, (), lambda *_: None)
    assert asked.prompt.content == (PICTURE,) and list(asked.options.values()) == captions


def test_a_published_text_is_said_only_with_the_options_that_are_asked() -> None:
    asked = Question(
        "1", "cvbench_3d", "mcq", "Which?", "A", ("left", "right"), (0,), {"prompt": "Or?\n(A) left\n(B) right"}
    )
    assert published_text(asked, " Select.") == "Or?\n(A) left\n(B) right"
    swapped = replace(asked, choices=("right", "left"))
    assert published_text(swapped, " Select.") == "Which? Select.\n(A) right\n(B) left"


def mask(width: int, height: int, *inside: tuple[int, int]) -> bytes:
    image, held = Image.new("L", (width, height)), io.BytesIO()
    for place in inside:
        image.putpixel(place, 255)
    image.save(held, "PNG")
    return held.getvalue()


def test_masks_become_text_that_says_the_same(tmp_path: Path) -> None:
    shown = {"image": picture(1), "mask": mask(4, 3, (1, 0), (2, 0), (0, 2))}
    asked = {"id": 5, "object": "the cup", "prompt": "Point to the cup.", "suffix": "As [(x, y)].", "step": 1}
    for part in ("location", "unseen"):
        rows = [{**asked, **shown}]
        published.parquet(tmp_path / f"data/{part}-00000-of-00001.parquet", rows, images=("image", "mask"))
    got = read("refspatial", tmp_path)
    first, second = got.questions
    assert (first.id, second.id, len(first.images)) == ("location-5", "unseen-5", 1)
    assert first.answer == "4 3 runs 0 1 2 5 1 3".replace("runs 0 1", "runs 1")
    assert points.region(first.answer).nonzero()[0].tolist() == [0, 0, 2]
    said = {"benchmark": "refspatial", "kind": "points", "answer": first.answer}
    for raw, score in (("[(1, 0)]", 1.0), ("[(1, 0), (3, 2)]", 0.5), ("[(9, 9)]", 0.0), ("[(1, 0, 3, 3)]", 2 / 6)):
        assert profile(OFFICIAL).score({**said, "raw": raw}).score == pytest.approx(score), raw


def test_a_mask_of_another_size_than_its_picture_is_noted(tmp_path: Path) -> None:
    asked = {"id": 5, "object": "the cup", "prompt": "Point to the cup.", "suffix": "As [(x, y)].", "step": 1}
    rows = [
        {**asked, "id": n, "image": picture(n), "mask": mask(*size, (1, 0))} for n, size in ((1, (8, 6)), (2, (4, 3)))
    ]
    published.parquet(tmp_path / "data/location-00000-of-00001.parquet", rows, images=("image", "mask"))
    got = read("refspatial", tmp_path)
    assert "1 masks have another size than their picture; points in pixels are read as the mask's" in got.notes
    said = {"benchmark": "refspatial", "kind": "points", "answer": got.questions[1].answer}
    for raw, score in (("[(1, 0)]", 1.0), ("[(0.25, 0.1)]", 1.0), ("[(5, 0)]", 0.0), ("[(-1, 0)]", 0.0)):
        assert profile(OFFICIAL).score({**said, "raw": raw}).score == score, raw


def test_robospatial_asks_yes_or_no_and_for_points(tmp_path: Path, refused: Any) -> None:
    corners = "[(0.25, 0.0), (0.75, 0.0), (0.75, 0.5), (0.25, 0.5)]"
    point = {
        "category": "context",
        "question": "Where is room? Your answer should be formatted as a list.",
        "answer": corners,
    }
    fits = {"category": "compatibility", "question": "Does it fit?", "answer": "yes"}
    shown = {"img": picture(1), "mask": mask(4, 3, (1, 0), (2, 0))}
    for row_ in (point, fits):
        file = tmp_path / f"data/{row_['category']}-00000-of-00001.parquet"
        published.parquet(file, [{**row_, **shown}], images=("img", "mask"))
    fit, room = read("robospatial", tmp_path).questions
    assert (fit.kind, fit.answer, room.kind, room.answer) == ("yes_no", "Yes", "points", corners)
    assert str(PROFILES[LATER](room).content[-1]).startswith("Where is room?\n\nOutput the point coordinates")
    said = {"benchmark": "robospatial", "kind": "points", "answer": room.answer, "groups": room.groups}
    assert profile(OFFICIAL).score({**said, "raw": "(0.5, 0.25)"}).score == 1
    assert profile(LMMS_EVAL).score({**said, "raw": '```json\n[{"point_2d": [300, 100]}]\n```'}).score == 1
    wrong = published.parquet(
        tmp_path / "b/context-0.parquet", [{**point, **shown, "answer": "left"}], images=("img", "mask")
    )
    assert "is not a polygon" in refused(lambda: read("robospatial", wrong))


@given(st.lists(st.booleans(), min_size=12, max_size=12))
def test_a_region_survives_its_text(inside: list[bool]) -> None:
    image, held = Image.new("1", (4, 3)), io.BytesIO()
    image.putdata([255 * one for one in inside])
    image.save(held, "PNG")
    text = points.region_text(held.getvalue(), "here")
    assert points.is_region(text) and points.region(text).reshape(-1).tolist() == inside


@pytest.mark.parametrize("answer", ["", "left", "4 3 0 0 1", "4 3 runs 5 5", "99999 99999 0 0 1 1", "[(0, 0), (1, 1)]"])
def test_a_gold_answer_that_is_no_region(answer: str, refused: Any) -> None:
    row_ = {"benchmark": "refspatial", "kind": "points", "answer": answer, "raw": ""}
    assert "is a region" in refused(lambda: profile(OFFICIAL).score(row_))


@pytest.mark.parametrize(
    ("name", "file", "cells", "said"),
    [
        (
            "dsrbench_3d",
            "3DSRBench.tsv",
            {"qid": "a-b-c", "category": "height", **ABCD},
            "is not like VIN6MS3J-flip-1",
        ),
        ("mmsi", "MMSIBench_wo_circular.tsv", {"category": "MSR", **ABCD, "answer": "North"}, "not the letter"),
        ("blink", "BLINK.tsv", {"category": "Jigsaw"}, "options none"),
    ],
)
def test_a_faulty_row_is_named(
    name: str, file: str, cells: dict[str, Any], said: str, tmp_path: Path, refused: Any
) -> None:
    path = published.tsv(tmp_path / file, [row(1, **cells)])
    assert said in refused(lambda: read(name, path))


def test_a_benchmark_that_the_study_did_not_have_is_scored_by_whom_it_says() -> None:
    said = {"benchmark": "EmbSpatialBench", "kind": "mcq", "answer": "C", "raw": "(C)", "choices": ABCD}
    assert profile(DEFAULT).score(said) == profile(LATER).score(said)


@pytest.mark.parametrize(
    ("said", "gold", "score"), [(10, 10, 1.0), (9, 10, 0.9), (11, 10, 0.9), (4, 5, 0.6), (15, 10, 0.1), (0, 0, 1.0)]
)
def test_mean_relative_accuracy_is_that_of_the_published_code(said: float, gold: float, score: float) -> None:
    assert rules.mean_relative_accuracy(said, gold) == pytest.approx(score)


def test_lmms_eval_has_vsis_answers_of_16_tokens() -> None:
    for name in ("vsi", "vsi_debiased"):
        asked = Question("1", name, "number", "How many chairs?", "3", images=(0, 1))
        assert [PROFILES[harness](asked).longest for harness in (LMMS_EVAL, OFFICIAL, LATER)] == [16, 2048, 2048]


def test_vsi_is_the_mean_of_eight_tasks() -> None:
    (one,) = (each for each in examples("aggregate") if each["benchmark"].startswith("VSI"))
    rows = []
    for n, (kind, gold, raw) in enumerate(zip(one["groups"]["question_type"], one["answer"], one["raw"], strict=True)):
        task = next(task for task in vsi.TASKS if kind.startswith(task))
        said = {"kind": "number"} if task in vsi.NUMBERS else {"kind": "mcq", "choices": ABCD}
        groups = {"task": kind}
        rows.append({"id": str(n), "benchmark": "vsi", "answer": gold, "raw": raw, "groups": groups, **said})
    for harness, expected in one["expected"].items():
        assert value("vsi", "overall", rows, harness) == pytest.approx(expected["score"], abs=1e-6)


class TestVideo:
    def film(self, path: Path, frames: int) -> Path:
        av = pytest.importorskip("av", reason="PyAV is not installed (the extra video)")
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as film:
            stream = film.add_stream("mpeg4", rate=10)
            stream.width, stream.height = 64, 48
            for number in range(frames):
                shade = np.full((48, 64, 3), 4 * number, dtype=np.uint8)
                film.mux(stream.encode(av.VideoFrame.from_ndarray(shade, "rgb24")))
            film.mux(stream.encode())
        return path

    def rows(self, folder: Path) -> Path:
        seen = {"dataset": "scannet", "scene_name": "scene0", "options": None}
        number = {
            "id": 0,
            "question_type": "object_abs_distance",
            "question": "How far?",
            "ground_truth": "2.4",
            **seen,
        }
        choice = {
            "id": 1,
            "question_type": "object_rel_direction_hard",
            "question": "Where?",
            "ground_truth": "B",
            **seen,
        }
        lines = (number, {**choice, "options": ["A. left", "B. right"]})
        (folder / "test.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    def test_frames_are_taken_at_even_steps(self, tmp_path: Path) -> None:
        self.film(tmp_path / "scannet/scene0.mp4", 63)
        got = read("vsi", self.rows(tmp_path))
        number, choice = got.questions
        assert (number.kind, number.answer, choice.kind, choice.choices) == ("number", "2.4", "mcq", ("left", "right"))
        assert number.images == choice.images and len(number.images) == vsi.FRAMES
        shades = [Image.open(io.BytesIO(got.images.read(key))).getpixel((9, 9))[0] for key in number.images]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        assert all(abs(shade - 4 * 2 * place) < 6 for place, shade in enumerate(shades))
        asked = PROFILES[OFFICIAL](choice).content[-1]
        assert asked == (
            "These are frames of a video.\nWhere?\nOptions:\nA. left\nB. right"
            "\nAnswer with the option's letter from the given choices directly."
        )

    def test_debiased_and_site_videos_are_read_as_published(self, tmp_path: Path) -> None:
        self.film(tmp_path / "scannet/scene0.mp4", 3)
        row_ = {"id": 7, "dataset": "scannet", "scene_name": "scene0", "question_type": "object_rel_distance",
                "question": "Which?", "ground_truth": "A", "options": ["A. bed", "B. sofa"]}  # fmt: skip
        published.parquet(tmp_path / "test_debiased.parquet", [row_], images=())
        got = read("vsi_debiased", tmp_path)
        (question,) = got.questions
        assert (question.benchmark, question.choices, len(question.images)) == ("vsi_debiased", ("bed", "sofa"), 3)
        assert got.notes == ("1 questions, published 2,363",)
        seen = {"question": "Which room?", "options": ["kitchen", "bath", "hall"], "answer": "C", "dataset": "MVBench",
                "category": "movement prediction & navigation", "visual": ["scannet/scene0.mp4"]}  # fmt: skip
        published.json(tmp_path / "video_test.json", [seen])
        (question,) = read("site_video", tmp_path).questions
        assert (question.answer, question.groups["category"]) == ("C", "movement_prediction_navigation")
        assert str(PROFILES[OFFICIAL](question).content[-1]).startswith("Select the best answer to the following")

    def test_a_video_that_is_missing_or_broken(self, tmp_path: Path, refused: Any) -> None:
        path = tmp_path / "scannet/scene0.mp4"
        self.rows(tmp_path)
        assert "for example scannet/scene0.mp4" in refused(lambda: read("vsi", tmp_path))
        self.film(path, 9)
        path.write_bytes(path.read_bytes()[:200])
        assert "cannot decode the video" in refused(lambda: read("vsi", tmp_path))


def test_words_of_harnesses_stand_where_their_rules_do() -> None:
    for name in SETS["spatial-2026"]:
        assert set(find(name).prompts) <= {OFFICIAL, LATER, LMMS_EVAL}
        assert LATER in find(name).prompts or LATER not in find(name).rules, name
