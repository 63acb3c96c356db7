"""Boxes from a model's words to a picture's pixels: read, placed exactly, asked of COCO in a run, scored and drawn."""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from blindspot.benchmarks.boxes import CONVENTIONS, Place, View, judge, locate, shown, spelt
from blindspot.benchmarks.coco_boxes import COCO_BOXES
from blindspot.errors import UserError
from blindspot.evaluation.adapters import ADAPTERS
from blindspot.evaluation.base import PICTURE, Asked, Reply
from blindspot.evaluation.boxes import Finding, Form, asking_for_boxes, form_of, with_form
from blindspot.evaluation.boxes_figure import draw
from blindspot.evaluation.prompts import profile
from blindspot.evaluation.run.opening import Opened
from blindspot.evaluation.run.runner import Evaluation
from blindspot.files import read_jsonl

side = st.integers(4, 3000)
sizes = st.tuples(side, side)
input_side = st.integers(14, 1024)
views: st.SearchStrategy[View] = st.one_of(
    st.builds(View.whole, sizes, st.tuples(input_side, input_side)),
    st.builds(lambda size: View.prepared(size, pad=True), sizes),
    st.builds(lambda size, edge: View.prepared(size, shortest=edge, crop=(edge, edge)), sizes, input_side),
    st.builds(
        lambda size, edge, crop: View.prepared(size, pad=True, shortest=edge, crop=(crop, crop)),
        sizes,
        input_side,
        input_side,
    ),
)
share = st.floats(0, 1)


@settings(max_examples=50)
@given(views, share, share, st.sampled_from([1.0, 100.0, 1000.0, 1024.0]))
def test_there_and_back_is_where_it_was(view: View, across: float, down: float, units: float) -> None:
    x, y = across * units, down * units
    pixel = view.to_picture(x, y, (units, units))
    assert view.to_input(*pixel, (units, units)) == pytest.approx((x, y), abs=1e-7 * units)
    assert View.parse(str(view)) == view


@settings(max_examples=50)
@given(sizes)
def test_padding_is_half_on_each_side_and_keeps_the_scale(size: tuple[int, int]) -> None:
    x0, y0, x1, y1 = View.prepared(size, pad=True).window
    assert x1 - x0 == y1 - y0 == max(size)
    assert abs((x0 + x1) / 2 - size[0] / 2) <= 0.5 and abs((y0 + y1) / 2 - size[1] / 2) <= 0.5
    assert x0 == int(x0) and y0 == int(y0)


@settings(max_examples=50)
@given(sizes, st.integers(14, 448))
def test_the_crop_lies_in_the_middle_of_the_picture(size: tuple[int, int], edge: int) -> None:
    x0, y0, x1, y1 = View.prepared(size, shortest=edge, crop=(edge, edge)).window
    pixel = Fraction(max(size), edge)  # generous: one pixel of the resized picture
    assert abs((x0 + x1) - size[0]) <= 2 * pixel and abs((y0 + y1) - size[1]) <= 2 * pixel
    assert min(x1 - x0, y1 - y0) <= min(size) + 1e-6


def test_a_box_of_llava_in_the_padded_square_by_hand() -> None:
    view = View.prepared((640, 480), pad=True)
    assert view.window == (0, -80, 640, 560)
    (place,) = locate("[0.25, 0.5, 0.75, 0.875]", CONVENTIONS["llava-normalised"], view).places
    assert place == Place((160, 240, 480, 480))


def test_a_view_that_nobody_wrote_is_refused() -> None:
    for text in ("", "640x480", "640x480 at 1 2 3", "640x480 at 0 0 x 1", "640x480 at 5 0 5 1", "0x0 at 0 0 1 1"):
        with pytest.raises(UserError, match="the view"):
            View.parse(text)


@pytest.mark.parametrize("text", ["", "1 2 3", "1,2,3,4,5", "a,b,c,d", "5,0,5,9", "0,9,5,1", "0,0,nan,1", "0,0,inf,1"])
def test_a_gold_box_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="box"):
        spelt(text)


def test_a_box_is_spelt_with_blanks_or_commas() -> None:
    assert spelt("1, 2,30 4.5") == (1, 2, 30, 4.5)
    assert shown((1.0, 2.25, 30.0, 4.5)) == "1 2.2 30 4.5"


# --- against the image processors themselves


def gradient(width: int, height: int) -> Image.Image:
    """Red grows from left to right and green from top to bottom, by the share of the side; blue is full."""
    red_w, green_h = ((np.arange(length) + 0.5) / length * 255 for length in (width, height))
    pixels_hwc = np.full((height, width, 3), 255.0)
    pixels_hwc[..., 0], pixels_hwc[..., 1] = red_w[None], green_h[:, None]
    return Image.fromarray(pixels_hwc.round().astype(np.uint8))


CLIP = {"do_rescale": False, "do_normalize": False}
PROCESSORS: dict[str, Callable[[], Any]] = {
    "crop": lambda: CLIPImageProcessorPil(size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84}, **CLIP),
    "warp": lambda: CLIPImageProcessorPil(size={"height": 84, "width": 84}, do_center_crop=False, **CLIP),
    "pad": lambda: LlavaImageProcessorPil(
        do_pad=True, size={"shortest_edge": 84}, crop_size={"height": 84, "width": 84}, **CLIP
    ),
    "pad and warp": lambda: LlavaImageProcessorPil(
        do_pad=True, size={"height": 84, "width": 84}, do_center_crop=False, **CLIP
    ),
}


def form(kind: str, image_processor: Any, boxes: str | None = None) -> Any:
    model = SimpleNamespace(config=SimpleNamespace(model_type=kind))
    processor = SimpleNamespace(tokenizer=SimpleNamespace(), image_processor=image_processor)
    return form_of(model, processor, boxes=boxes)


@pytest.mark.parametrize("size", [(240, 160), (150, 260), (97, 101), (200, 200)])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_every_pixel_that_a_processor_shows_comes_from_where_the_view_says(kind: str, size: tuple[int, int]) -> None:
    image_processor = PROCESSORS[kind]()
    seen_chw = np.asarray(image_processor(gradient(*size))["pixel_values"][0], float)
    view = form("llava", image_processor).view(size)
    for row, column in [(42, 42), (30, 50), (54, 28)]:
        x, y = view.to_picture(column + 0.5, row + 0.5, (84, 84))
        red, green, _ = seen_chw[:, row, column]
        assert (red / 255 * size[0], green / 255 * size[1]) == pytest.approx((x, y), abs=max(size) / 84 * 0.5)


@pytest.mark.parametrize("size", [(640, 428), (300, 1100), (60, 40)])
def test_qwens_pixels_are_those_of_the_resized_picture(size: tuple[int, int]) -> None:
    image_processor = Qwen2VLImageProcessorPil()
    bounds = ADAPTERS["qwen2_5_vl"].bounds
    _, rows, columns = image_processor(Image.new("RGB", size), **bounds)["image_grid_thw"][0]
    view = form("qwen2_5_vl", image_processor).view(size)
    assert view.input == (columns * image_processor.patch_size, rows * image_processor.patch_size)
    width, height = view.input
    (place,) = locate(f'[{{"bbox_2d": [0, 0, {width}, {height}]}}]', CONVENTIONS["qwen-pixels-json"], view).places
    assert place.numbers == pytest.approx((0, 0, *size))


@pytest.mark.parametrize("family", sorted(name for name, one in ADAPTERS.items() if one.boxes))
def test_every_family_has_a_convention_and_a_prompt_with_a_place_for_the_phrase(family: str) -> None:
    assert ADAPTERS[family].boxes in CONVENTIONS
    assert "{phrase}" in ADAPTERS[family].box_prompt
    made = form(ADAPTERS[family].model_types[0], Qwen2VLImageProcessorPil())
    asked = made.ask("the {odd} cup")
    assert "the {odd} cup" in asked and "{phrase}" not in asked
    assert made.view((640, 480)).picture == (640, 480)


def test_qwen2_counts_in_thousandths_and_qwen2_5_in_pixels() -> None:
    assert form("qwen2_vl", Qwen2VLImageProcessorPil()).convention.name == "qwen-1000"
    assert form("qwen2_5_vl", Qwen2VLImageProcessorPil()).convention.name == "qwen-pixels-json"


def test_pixtral_which_transformers_calls_a_llava_has_not_llavas_boxes() -> None:
    model = SimpleNamespace(
        config=SimpleNamespace(model_type="llava", vision_config=SimpleNamespace(model_type="pixtral"))
    )
    assert form_of(model, SimpleNamespace(tokenizer=SimpleNamespace(), image_processor=None)) is None


def test_a_model_of_no_family_has_the_form_that_it_is_told_and_else_none() -> None:
    assert form("qwen3_5", Qwen2VLImageProcessorPil()) is None
    gemma, llava = (form("another", None, boxes) for boxes in ("gemma-1000-yx", "llava-normalised"))
    assert gemma.prompt == ADAPTERS["gemma3"].box_prompt
    assert str(gemma.view((60, 40))) == str(View.whole((60, 40)))
    assert llava.view((60, 40)) == View.prepared((60, 40), pad=True)
    told = form("qwen2_5_vl", Qwen2VLImageProcessorPil(), "qwen-1000")
    assert told.convention.name == "qwen-1000" and told.view((640, 480)).input is not None


SIZE = (200, 100)
WHOLE = View.whole(SIZE, (400, 300))

READ = {
    "a sentence": ("llava-normalised", "It is at [0.1, 0.2, 0.5, 1.0].", [(20, 20, 100, 100)]),
    "without zeros": ("llava-normalised", "[.1,.2, .5,1]", [(20, 20, 100, 100)]),
    "round brackets": ("llava-normalised", "(0.1, 0.2, 0.5, 1.0)", [(20, 20, 100, 100)]),
    "numbers only": ("llava-normalised", " 0.1, 0.2, 0.5, 1.0 ", [(20, 20, 100, 100)]),
    "full width": ("llava-normalised", "[\uff10.\uff11, 0.2, 0.5, 1.0]", [(20, 20, 100, 100)]),
    "a point": ("llava-normalised", "around [0.5, 0.5]", [(100, 50)]),
    "several": ("llava-normalised", "[0, 0, 0.5, 0.5] and [0.5, 0.5, 1, 1]", [(0, 0, 100, 50), (100, 50, 200, 100)]),
    "the same twice": ("llava-normalised", "[0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]", [(0, 0, 100, 50)]),
    "rounded beyond the edge": ("llava-normalised", "[-0.01, 0, 1.01, 1]", [(0, 0, 200, 100)]),
    "a code fence": (
        "qwen-pixels-json",
        '```json\n[\n\t{"bbox_2d": [40, 30, 200, 150], "label": "cup [1, 2]"}\n]\n```',
        [(20, 10, 100, 50)],
    ),
    "JSON that was cut off": (
        "qwen-pixels-json",
        '[{"bbox_2d": [40, 30, 200, 150], "label": "cup"}, {"bbox_2d": [40, 3',
        [(20, 10, 100, 50)],
    ),
    "Qwen2": ("qwen-1000", "<|object_ref_start|>a cup(100,200),(500,1000)", [(20, 20, 100, 100)]),
    "Gemma": ("gemma-1000-yx", '{"box_2d": [200, 100, 1000, 500], "label": "cup"}', [(20, 20, 100, 100)]),
    "PaliGemma": (
        "paligemma-loc",
        "<loc0256><loc0512><loc0512><loc0768> cup ; <loc0000><loc0000><loc0512><loc0512> cup",
        [(100, 25, 150, 50), (0, 0, 100, 50)],
    ),
    "Molmo": ("molmo-points", ' <point x="25.5" y="50.0" alt="cup">cup</point>', [(51, 50)]),
    "Molmo, several": ("molmo-points", '<points x1="10" y1="20" x2="30.0" y2="40" alt="">', [(20, 20), (60, 40)]),
    "Qwen3": ("qwen-1000", '[{"bbox_2d": [100, 200, 500, 1000], "label": "cup"}]', [(20, 20, 100, 100)]),
    "Qwen3, a point": ("qwen-1000", '```json\n[{"point_2d": [100, 200], "label": "cup"}]\n```', [(20, 20)]),
    "InternVL": ("internvl-1000", "<ref>cup</ref><box>[[100, 200, 500, 1000]]</box>", [(20, 20, 100, 100)]),
    "InternVL, without its tokens": ("internvl-1000", "cup[[100, 200, 500, 1000]]", [(20, 20, 100, 100)]),
    "GLM": ("glm-1000", "It is <|begin_of_box|>[[100,200,500,1000]]<|end_of_box|>.", [(20, 20, 100, 100)]),
    "GLM, other brackets": (
        "glm-1000",
        "<100, 200, 500, 1000> and {0,0,500,500}",
        [(20, 20, 100, 100), (0, 0, 100, 50)],
    ),
    "PerceptionLM": ("plm-1000", "[100,200,500,999]", [(20, 20, 100, 99.9)]),
    "Molmo 2": (
        "molmo2-points",
        '<points coords="1 1 412 087 2 530 440">cup</points>',
        [(82.4, 8.7), (106, 44)],
    ),
    "Molmo 2, two pictures": (
        "molmo2-points",
        '<points coords="1 1 500 500;2 2 100 100">cup</points>',
        [(100, 50), (20, 10)],
    ),
    "the miniature": ("canvas", "40 30 200 150", [(20, 10, 100, 50)]),
}
NOT_READ = {
    "no box": ("llava-normalised", "The cup is on the table.", "no box and no point in the answer"),
    "nothing": ("llava-normalised", "", "no box and no point in the answer"),
    "three numbers": ("llava-normalised", "[0.1, 0.2, 0.3]", "no box and no point in the answer"),
    "inverted": ("llava-normalised", "[0.5, 0.1, 0.2, 0.9]", "inverted: x0 is 0.5 and x1 is 0.2"),
    "inverted, y first": ("gemma-1000-yx", "[900, 0, 100, 10]", "inverted: y0 is 900 and y1 is 100"),
    "pixels": ("llava-normalised", "[10, 20, 30, 40]", "out of range: x is 10, and goes from 0 to 1"),
    "beyond the picture": ("qwen-pixels-json", "[0, 0, 40, 999]", "out of range: y is 999, and goes from 0 to 300"),
    "no area": ("llava-normalised", "[0.2, 0.2, 0.2, 0.9]", "no area: x0 and x1 are 0.2"),
    "a line at the edge": ("llava-normalised", "[1, 0, 1.01, 0.9]", "no area: x0 and x1 are 1"),
    "three tokens": ("paligemma-loc", "<loc0256><loc0512><loc0512> cup", "no box and no point in the answer"),
    "two digits": ("molmo2-points", '<points coords="1 1 41 87">cup</points>', "no box and no point in the answer"),
    "words": ("canvas", "3 4 red 6", "no box and no point in the answer"),
    "five words": ("canvas", "3 4 5 6 7", "no box and no point in the answer"),
}


@pytest.mark.parametrize("name", READ)
def test_what_a_family_writes_is_read(name: str) -> None:
    convention, raw, expected = READ[name]
    located = locate(raw, CONVENTIONS[convention], WHOLE)
    assert [place.numbers for place in located.places] == [pytest.approx(numbers) for numbers in expected]
    assert located.problems == ()


@pytest.mark.parametrize("name", NOT_READ)
def test_what_is_no_box_is_said(name: str) -> None:
    convention, raw, problem = NOT_READ[name]
    located = locate(raw, CONVENTIONS[convention], WHOLE)
    assert (located.places, located.problems) == ((), (problem,))


def test_a_good_box_beside_a_bad_one_counts_and_both_are_reported() -> None:
    located = locate("[0.5, 0, 0.1, 1] or [0, 0, 0.5, 1]", CONVENTIONS["llava-normalised"], WHOLE)
    assert located.first is not None and located.first.box == (0, 0, 100, 100)
    assert located.problems == ("inverted: x0 is 0.5 and x1 is 0.1",)


pieces = st.sampled_from(
    ["[", "]", "(", ")", ",", " ", "0.5", "1e9", "-", ".", "<loc0100>", 'x="1" y="2"', '"bbox_2d":', "٣"]
)
answers = st.one_of(st.text(max_size=60), st.lists(pieces, max_size=25).map("".join))


@settings(max_examples=50)
@given(answers, st.sampled_from(sorted(CONVENTIONS)))
def test_no_answer_raises_and_every_box_lies_in_the_window(raw: str, name: str) -> None:
    located = locate(raw, CONVENTIONS[name], WHOLE)
    assert located.places or located.problems
    for place in located.places:
        corners = [place.numbers[:2], place.numbers[2:] or place.numbers[:2]]
        assert all(0 <= x <= SIZE[0] and 0 <= y <= SIZE[1] for x, y in corners)
        assert place.box is None or (place.box[0] < place.box[2] and place.box[1] < place.box[3])


@pytest.mark.parametrize("piece", ["[", "1", "[1 ", "1,", "1 ", " ", "<loc0001>", 'x="1" ', "(0.1,0.2),", "[0,0,1,1]"])
def test_an_answer_of_a_megabyte_is_read_at_once(piece: str) -> None:
    raw = piece * (1_000_000 // len(piece))
    start = time.perf_counter()
    for convention in CONVENTIONS.values():
        assert len(locate(raw, convention, WHOLE).places) <= 200
    assert time.perf_counter() - start < 4


def test_pixels_of_an_input_of_unknown_size_cannot_be_read() -> None:
    with pytest.raises(UserError, match="size is not known"):
        locate("[1, 2, 3, 4]", CONVENTIONS["qwen-pixels-json"], View.whole(SIZE))


# --- scores


def test_a_box_is_right_from_an_overlap_of_half() -> None:
    half = judge("[0, 0, 1, 0.5]", "0 0 200 100", "llava-normalised", str(WHOLE))
    assert (half.extracted, half.score, half.parsed, half.partial) == ("0 0 200 50", 1.0, True, 0.5)
    less = judge("[0, 0, 1, 0.49]", "0 0 200 100", "llava-normalised", str(WHOLE))
    assert (less.score, less.parsed) == (0.0, True) and less.partial == pytest.approx(0.49)


def test_a_point_is_right_inside_the_box_and_has_no_overlap() -> None:
    inside = judge('<point x="50" y="50">', "90 40 110 60", "molmo-points", str(WHOLE))
    outside = judge('<point x="50" y="50">', "100.1 40 110 60", "molmo-points", str(WHOLE))
    assert (inside.score, inside.partial, outside.score) == (1.0, None, 0.0)


def test_what_cannot_be_read_scores_nothing() -> None:
    scored = judge("somewhere", "0 0 200 100", "llava-normalised", str(WHOLE))
    assert (scored.extracted, scored.score, scored.parsed, scored.partial) == (None, 0.0, False, 0.0)
    with pytest.raises(UserError, match=r"row 3: .* did you mean \"llava-normalised\""):
        judge("", "0 0 1 1", "llava-normalized", str(WHOLE), "row 3")


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


CANVAS = Image.new("RGB", (120, 80), "black")


def finding(raw: str, name: str = "llava-normalised", stopped: str = "end") -> Finding:
    convention = CONVENTIONS[name]
    return Finding("a model", name, "where?", raw, stopped, locate(raw, convention, View.whole(CANVAS.size)))


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf", ".jpg"])
def test_any_answer_is_drawn_without_a_warning(tmp_path: Path, suffix: str) -> None:
    raws = ["[0.1, 0.1, 0.9, 0.9]", "", "$x^$ \\frac", "\x1b[31m\u202e 厨房 [1, 2", "a" * 100_000, "[0.5, 0.5] [0, 0]"]
    path = tmp_path / f"figure{suffix}"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = [finding(raw) for raw in raws]
        draw(CANVAS, "the $cup_ 杯", findings, path, (10.0, 10.0, 50.0, 50.0))
    assert path.stat().st_size > 1000


def test_the_box_is_where_the_answer_says(tmp_path: Path) -> None:
    draw(CANVAS, "the cup", [finding("[0.25, 0.25, 0.75, 0.75]")], tmp_path / "figure.png")
    pixels_hwc = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB")).astype(int)
    black_hw = pixels_hwc.sum(axis=2) < 30
    orange_hw = (abs(pixels_hwc - np.array([255, 127, 14])).max(axis=2)) < 40
    rows, columns = (np.flatnonzero(orange_hw.sum(axis=axis) > 40) for axis in (1, 0))
    below, beside = (np.flatnonzero(black_hw.sum(axis=axis) > 60) for axis in (1, 0))
    inside = [
        (edge - seen[0]) / (seen[-1] + 1 - seen[0])
        for edges, seen in ((rows, below), (columns, beside))
        for edge in (edges[0], edges[-1])
    ]
    assert inside == pytest.approx([0.25, 0.75, 0.25, 0.75], abs=0.015)


def test_panels_stand_side_by_side_and_then_below(tmp_path: Path) -> None:
    sizes = {}
    for number in (1, 2, 4, 5):
        draw(CANVAS, "the cup", [finding("no")] * number, tmp_path / f"{number}.png")
        sizes[number] = Image.open(tmp_path / f"{number}.png").size
    assert sizes[2][0] == 2 * sizes[1][0] and sizes[2][1] == sizes[1][1]
    assert sizes[5][0] == sizes[4][0] and sizes[5][1] > 1.6 * sizes[4][1]


def test_remarks_say_what_is_unusual() -> None:
    several = finding("[0, 0, 1, 1] [0, 0, 0.5, 1]", stopped="length")
    assert several.remarks == ("1 more, not counted", "cut off at its longest")
    told = several.to_dict((0.0, 0.0, 120.0, 80.0))
    assert (told["iou"], told["right"], len(told["boxes"])) == (1.0, True, 2)
    nothing = finding("nowhere").to_dict((0.0, 0.0, 1.0, 1.0))
    assert (nothing["iou"], nothing["right"], nothing["boxes"]) == (None, False, [])
    assert "iou" not in finding("nowhere").to_dict(None)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"one of \.png, \.pdf, \.svg, \.jpg, not as figure\.doc"):
        draw(CANVAS, "the cup", [finding("no")], tmp_path / "figure.doc")
