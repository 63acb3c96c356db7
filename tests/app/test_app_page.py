"""The page in a real browser: `make check-app` runs this where NiceGUI, playwright and Chromium are."""

import io
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.diagnostics.test_photo_truth import picture

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or not all(map(find_spec, ("nicegui", "playwright"))),
    reason="needs NiceGUI, playwright and Chromium: make check-app",
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A page that two models are asked on."""
    folder = tmp_path_factory.mktemp("app")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "blindspot", "app", str(model), f"{model}/../reader", "--port", str(port)]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
                                  stdout=log, stderr=subprocess.STDOUT)  # fmt: skip
    try:
        for _ in range(600):
            if "http" in (folder / "log").read_text():
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
        assert server.poll() is None, (folder / "log").read_text()
        assert "Traceback" not in (folder / "log").read_text()
    finally:
        server.terminate()
        server.wait(20)


@pytest.fixture
def visit(address: str) -> Iterator[Callable[..., Any]]:
    """Opens the page in a window; in the end nothing was complained of and nothing came from elsewhere."""
    from playwright.sync_api import sync_playwright

    said: list[str] = []
    with sync_playwright() as made:
        browser = made.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def opened(width: int = 1280, scheme: Any = "light") -> Any:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.set_default_timeout(60_000)
            page.on("console", lambda one: said.append(one.text) if one.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: said.append(str(error)))
            own = (address, "data:", "blob:", address.replace("http", "ws"))
            page.on("request", lambda one: None if one.url.startswith(own) else said.append(one.url))
            page.goto(address)
            page.wait_for_selector("text=ready >> nth=1")
            page.wait_for_timeout(300)  # until the question for these models stands there
            return page

        yield opened
        browser.close()
    assert not said


def ask(page: Any, question: str | None = None) -> str:
    """What the first model answers to the picture as it is."""
    if question is not None:
        page.get_by_label("Question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    page.wait_for_selector("text=blind >> nth=1")
    return page.locator("table.answers").first.locator("tr").first.locator("td").nth(1).inner_text()


def upload(page: Any, name: str, data: bytes) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload a picture").click()
    chooser.value.set_files([{"name": name, "mimeType": "image/png", "buffer": data}])


def png(shown: Image.Image) -> bytes:
    buffer = io.BytesIO()
    shown.save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_picture_is_uploaded_asked_about_and_looked_into(visit: Any, width: int, scheme: str) -> None:
    page = visit(width, scheme)
    upload(page, "own.png", png(picture()))
    page.wait_for_selector("text=Remove", state="hidden")
    page.get_by_label("Options").fill("left, right")
    assert ask(page, "red left-of blue").startswith("left")
    assert "100%" in page.locator("table.answers").first.inner_text()
    page.get_by_role("tab", name="Look").click()
    page.get_by_role("button", name="Look", exact=True).click()
    page.wait_for_selector("text=the whole page")
    shades = [float(one.get_attribute("opacity")) for one in page.locator("svg rect[opacity]").all()]
    assert len(shades) == 16 and shades.index(max(shades)) == 4 * 1 + 2, "the patch that is read"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing lies beyond the window"
    with page.context.expect_page() as whole:
        page.get_by_text("the whole page").click()
    assert "photo" in whole.value.content()


def test_a_scene_is_edited_and_answers_follow(visit: Any) -> None:
    page = visit()
    before = page.locator("img").first.get_attribute("src")
    assert ask(page)
    box = page.locator("img").first.bounding_box()

    def click(row: int, column: int) -> None:
        page.mouse.click(box["x"] + box["width"] * (column + 0.5) / 4, box["y"] + box["height"] * (row + 0.5) / 4)
        page.wait_for_timeout(500)

    for row, column in ((0, 0), (3, 3), (0, 3), (3, 0)):  # one of them is free, or chosen and then moved there
        click(row, column)
    page.wait_for_selector("text=blind >> nth=1")
    assert page.locator("img").first.get_attribute("src") != before
    page.get_by_role("button", name="Draw a scene").click()
    page.get_by_role("switch", name="show where models take objects to be").click()
    page.wait_for_selector("text=places read in front of layer >> nth=1")
    assert page.locator("svg circle").count() >= 2 * 2 and page.locator("svg line").count() >= 2 * 2, "of both models"
    page.get_by_role("button", name="Remove").click()
    page.wait_for_selector("text=click the object that is to go first")


def test_a_sample_of_a_drawn_benchmark_brings_its_question(visit: Any) -> None:
    page = visit()
    page.get_by_role("button", name="Sample").click()
    page.get_by_text("solid", exact=True).click()
    page.wait_for_selector("text=is right")
    page.get_by_role("button", name="Sample").click()
    page.get_by_text("motion", exact=True).click()
    page.wait_for_selector("text=about several pictures")
    assert page.get_by_label("Question").input_value().count(" ") > 3


def test_what_is_no_picture_or_too_large_a_one_is_said_and_the_page_goes_on(visit: Any) -> None:
    page = visit()
    upload(page, "broken.png", b"\x89PNG no picture")
    page.wait_for_selector("text=broken.png is not an image that can be read")
    upload(page, "line.png", png(Image.new("RGB", (5000, 10))))
    page.wait_for_selector("text=times as long as it is wide")
    upload(page, "huge.png", png(Image.new("L", (20_000, 10_000))))
    page.wait_for_selector("text=more than 178,956,970 pixels")
    assert ask(page)


def test_ten_visitors_and_one_who_goes_in_the_middle(visit: Any) -> None:
    gone = visit()
    gone.get_by_role("tab", name="Look").click()
    gone.get_by_role("button", name="Look", exact=True).click()
    gone.close()
    pages = [visit() for _ in range(10)]
    for page in pages:
        page.get_by_role("button", name="Ask", exact=True).click()
    for page in pages:
        page.wait_for_selector("text=blind >> nth=1")
