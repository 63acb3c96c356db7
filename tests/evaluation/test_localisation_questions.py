"""Objects of COCO as questions, put in a model's form, asked in a run, and scored again from the file alone."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from blindspot.benchmarks.boxes import CONVENTIONS, View, judge, spelt
from blindspot.benchmarks.coco_boxes import COCO_BOXES
from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Reply
from blindspot.evaluation.boxes import Form, asking_for_boxes, with_form
from blindspot.evaluation.prompts import profile
from blindspot.evaluation.run.opening import Opened
from blindspot.evaluation.run.runner import Evaluation
from blindspot.files import read_jsonl

PHOTOS = Path("/work/shared/data/photos")
CATEGORIES = [{"id": 1, "name": "person"}, {"id": 47, "name": "cup"}]


def box(number: int, image: int, category: int, bbox: Sequence[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": list(bbox), **more}


ANNOTATIONS = [
    box(1, 7, 47, (10, 20, 30, 40), area=1000.0),
    box(2, 7, 1, (0, 0, 90, 60)),
    box(3, 8, 47, (1.5, 2.25, 8.1, 5)),
    box(4, 8, 1, (0, 0, 9, 9)),
    box(5, 8, 1, (9, 9, 9, 9)),
    box(6, 9, 1, (0, 0, 5, 5), iscrowd=1),
    box(7, 9, 47, (3, 3, 0, 5)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    images = []
    for number, size in ((7, (100, 60)), (8, (60, 90)), (9, (50, 50))):
        Image.effect_noise(size, number).convert("RGB").save(tmp_path / "photos" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": size[0], "height": size[1]})
    held = {"images": images, "categories": CATEGORIES, "annotations": ANNOTATIONS}
    (tmp_path / "instances.json").write_text(json.dumps(held))
    return tmp_path


def test_one_question_for_each_object_that_is_alone_of_its_kind(folder: Path) -> None:
    collection = COCO_BOXES.read(folder)
    rows = [(one.id, one.prompt, one.answer, one.groups["size"], one.groups["picture"]) for one in collection.questions]
    assert rows == [
        ("1", "the cup", "10.0 20.0 40.0 60.0", "small", "100x60"),
        ("2", "the person", "0.0 0.0 90.0 60.0", "medium", "100x60"),
        ("3", "the cup", "1.5 2.25 9.6 7.25", "small", "60x90"),
    ]
    assert [one.groups["cluster"] for one in collection.questions] == ["0", "0", "1"]
    assert collection.images.read(0) == (folder / "photos" / "7.png").read_bytes()


def test_the_layout_of_coco_itself_is_found(folder: Path) -> None:
    (folder / "annotations").mkdir()
    (folder / "instances.json").rename(folder / "annotations" / "instances_val2017.json")
    (folder / "photos").rename(folder / "val2017")
    assert len(COCO_BOXES.read(folder).questions) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": []}, "not as it was published"),
        ({"annotations": [box(1, 7, 47, (1, 2))]}, "not as it was published"),
        ({"annotations": [box(1, 7, 2, (1, 2, 3, 4))]}, "not as it was published"),
        ({"categories": None}, "not as it was published"),
        ({"annotations": []}, "holds no rows"),
    ],
)
def test_a_file_in_another_form_is_one_line(folder: Path, change: dict[str, Any], message: str) -> None:
    path = folder / "instances.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message) as caught:
        COCO_BOXES.read(folder)
    assert "instances.json" in str(caught.value)


def test_a_picture_that_was_resized_is_named(folder: Path) -> None:
    Image.new("RGB", (50, 30)).save(folder / "photos" / "7.png")
    with pytest.raises(UserError, match=r"7\.png is 50x30 pixels, and the boxes belong to one of 100x60"):
        COCO_BOXES.read(folder)


def test_real_photographs_are_read_whole() -> None:
    if not PHOTOS.is_dir():
        pytest.skip(f"no photographs at {PHOTOS}")
    questions = COCO_BOXES.read(PHOTOS).questions
    assert len(questions) == 57
    for one in questions:
        width, height = map(int, one.groups["picture"].split("x"))
        x0, y0, x1, y1 = spelt(one.answer)
        assert 0 <= x0 < x1 <= width + 0.01 and 0 <= y0 < y1 <= height + 0.01


PADDED = Form(CONVENTIONS["llava-normalised"], "Where is {phrase}?", lambda picture: View.prepared(picture, pad=True))


def test_questions_get_the_models_words_and_what_it_takes_to_score_them(folder: Path) -> None:
    collection = COCO_BOXES.read(folder)
    first = with_form(collection, PADDED).questions[0]
    assert first.prompt == "Where is the cup?"
    assert first.groups["convention"] == "llava-normalised"
    assert View.parse(first.groups["view"]) == View.prepared((100, 60), pad=True)
    assert first.answer == collection.questions[0].answer
    with pytest.raises(UserError, match="name a model on this machine"):
        with_form(collection, None)


@pytest.mark.parametrize("name", ["llava", "paper", "qwen2_5_vl", "smolvlm", "paligemma"])
def test_no_profile_asks_for_a_word_where_a_box_is_wanted(folder: Path, name: str) -> None:
    first = with_form(COCO_BOXES.read(folder), PADDED).questions[0]
    prompt = asking_for_boxes(profile(name))(first)
    assert (prompt.content, prompt.whole) == ((PICTURE, "Where is the cup?"), False)


class Oracle:
    """Says the true box in the padded square, to four digits, and of people nothing."""

    def __init__(self, gold: dict[str, tuple[str, str]]) -> None:
        self.identity = {"answerer": "oracle"}
        self._gold = gold

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        for one in asked:
            answer, view = self._gold[one.id]
            numbers = spelt(answer)
            pairs = [View.parse(view).to_input(*numbers[place : place + 2], (1, 1)) for place in (0, 2)]
            said = ", ".join(f"{number:.4f}" for pair in pairs for number in pair)
            yield Reply(one.id, "nobody" if "person" in str(one.prompt) else f"[{said}]")


def test_a_run_keeps_all_that_a_score_needs(folder: Path, tmp_path: Path) -> None:
    collection = with_form(COCO_BOXES.read(folder), PADDED)
    gold = {one.id: (one.answer, one.groups["view"]) for one in collection.questions}
    out = tmp_path / "run"
    ask = asking_for_boxes(profile("llava"))
    Evaluation(Opened(Oracle(gold), "llava"), [collection], "llava", ask).run(out)
    rows = list(read_jsonl(out / "coco_boxes" / "answers.jsonl"))
    scores = [judge(row["raw"], row["answer"], row["groups"]["convention"], row["groups"]["view"]) for row in rows]
    assert [scored.score for scored in scores] == [1.0, 0.0, 1.0]
    assert [scored.parsed for scored in scores] == [True, False, True]
    assert all(scored.partial is not None and scored.partial > 0.98 for scored in scores[::2])


def test_a_padded_picture_comes_back_through_the_real_processor_and_the_score(folder: Path) -> None:
    """A white square on black: found in what the processor shows, said in LLaVA's words, scored in the picture."""
    picture = Image.new("RGB", (300, 180))
    picture.paste((255, 255, 255), (60, 30, 150, 120))
    options: dict[str, Any] = {"do_rescale": False, "do_normalize": False}
    processor = LlavaImageProcessorPil(
        do_pad=True,
        size={"shortest_edge": 336},
        crop_size={"height": 336, "width": 336},
        image_mean=[0, 0, 0],
        **options,
    )
    seen_chw = processor(picture)["pixel_values"][0]
    rows, columns = (seen_chw[0] > 127).nonzero()
    edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    raw = "[{}]".format(", ".join(f"{edge / 336:.4f}" for edge in edges))
    scored = judge(raw, "60 30 150 120", "llava-normalised", str(View.prepared((300, 180), pad=True)))
    assert scored.partial is not None and scored.partial > 0.98
