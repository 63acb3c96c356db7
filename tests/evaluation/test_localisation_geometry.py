"""The way from a model's coordinates to a picture's pixels: exact, invertible, and what real image processors do."""

from collections.abc import Callable
from fractions import Fraction
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

from blindspot.benchmarks.boxes import CONVENTIONS, Place, View, locate, shown, spelt
from blindspot.errors import UserError
from blindspot.evaluation.adapters import ADAPTERS
from blindspot.evaluation.boxes import form_of

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
