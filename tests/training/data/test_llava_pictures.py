"""Pictures stay inside their folder, and damage is seen without decoding."""

import os
import random
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
from PIL import Image

from blindspot.errors import UserError
from blindspot.training.llava.pictures import EscapeError, inspect_picture, open_picture, picture_path


def noise(width: int, height: int) -> Image.Image:
    return Image.frombytes("RGB", (width, height), random.Random(0).randbytes(3 * width * height))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    (root / "coco").mkdir(parents=True)
    (tmp_path / "images-secret").mkdir()
    for path in (root / "coco" / "a.jpg", tmp_path / "secret.jpg", tmp_path / "images-secret" / "a.jpg"):
        noise(40, 30).save(path)
    return root


def test_a_path_out_of_the_folder_is_refused(root: Path) -> None:
    inside = ["coco/../coco/a.jpg", f"{root}/coco/a.jpg", "coco/a.jpg\0.png"]
    outside = ["../secret.jpg", "coco/../../secret.jpg", "..", "..\\secret.jpg", "../images-secret/a.jpg"]
    absolute = ["/etc/passwd", "//etc/passwd", "C:\\secret.jpg", "\\\\server\\a.jpg"]
    for name in inside + outside + absolute:
        with pytest.raises(EscapeError):
            open_picture(root, name)
        found = inspect_picture(root, name)
        assert found and found.fault == "escaping"


def test_symbolic_links_are_followed_inside_only(root: Path) -> None:
    (root / "out.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "sibling").symlink_to(root.parent / "images-secret")
    (root / "nowhere.jpg").symlink_to(root.parent / "not-there.jpg")
    for name in ("out.jpg", "sibling/a.jpg", "nowhere.jpg"):
        with pytest.raises(EscapeError, match="symbolic link"):
            picture_path(root, name)
    (root / "in.jpg").symlink_to("coco/a.jpg")
    (root / "folder").symlink_to(root / "coco")
    (root / "gone.jpg").symlink_to("coco/b.jpg")
    (root.parent / "alias").symlink_to(root)
    for name in ("in.jpg", "folder/a.jpg", "./coco//a.jpg"):
        assert open_picture(root, name).size == open_picture(root.parent / "alias", name).size == (40, 30)
    gone = inspect_picture(root, "gone.jpg")
    assert gone and gone.fault == "missing"


def test_names_that_only_look_like_escapes_are_read(root: Path) -> None:
    for name in ("a..b.jpg", "...jpg", "b:c.jpg", "ü [x].jpg"):
        noise(8, 8).save(root / name, format="JPEG")
        assert inspect_picture(root, name) is None
        assert open_picture(root, name).size == (8, 8)


WRITERS: dict[str, Callable[[Path], None]] = {
    "rgb.jpg": lambda path: noise(64, 48).save(path),
    "progressive.jpeg": lambda path: noise(64, 48).save(path, progressive=True),
    "thumbnail.jpg": lambda path: noise(64, 48).save(path, exif=_with_thumbnail()),
    "rgb.png": lambda path: noise(64, 48).save(path),
    "palette.gif": lambda path: noise(64, 48).convert("P").save(path),
    "rgb.webp": lambda path: noise(64, 48).save(path),
    "grey.bmp": lambda path: noise(64, 48).convert("L").save(path),
    "deep.png": lambda path: Image.new("I;16", (9, 9)).save(path),
}


def _with_thumbnail() -> bytes:
    """An EXIF block with a JPEG, and so with an end of image, in it."""
    import io

    small = io.BytesIO()
    noise(16, 16).save(small, "JPEG")
    exif = Image.Exif()
    exif[0x927C] = small.getvalue()
    return exif.tobytes()


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_broken_if_and_only_if_it_does_not_open(root: Path, name: str) -> None:
    path = root / name
    WRITERS[name](path)
    whole = path.read_bytes()
    assert inspect_picture(root, name) is None
    broken = 0
    for end in {0, 1, 2, 10, 25, *range(30, len(whole), len(whole) // 40 + 1), len(whole) - 2, len(whole) - 1}:
        path.write_bytes(whole[:end])
        found = inspect_picture(root, name)
        assert found is None or found.fault == "broken"
        with nullcontext() if found is None else pytest.raises(UserError):
            open_picture(root, name)
        broken += found is not None
    assert broken > 10
    path.write_bytes(whole + b"\n\0 a comment behind the end")
    assert inspect_picture(root, name) is None


def test_what_is_no_picture_is_broken_and_says_why(root: Path) -> None:
    (root / "page.jpg").write_text("<html>404</html>")
    (root / "empty.jpg").touch()
    noise(2010, 10).save(root / "line.png")
    Image.new("F", (4, 4)).save(root / "float.tiff")
    cases = {
        "page.jpg": "no known image format",
        "empty.jpg": "empty",
        "coco": "folder",
        "line.png": "2010 x 10 pixels",
        "float.tiff": "32-bit",
        "n" * 300 + ".jpg": "name too long",
    }
    for name, why in cases.items():
        found = inspect_picture(root, name)
        assert found and found.fault == "broken" and why in found.why, (name, found)
    with pytest.raises(UserError, match="name too long"):
        open_picture(root, "n" * 300)


def test_more_pixels_than_are_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    found = inspect_picture(root, "coco/a.jpg")
    assert found and found.fault == "broken" and "more than 1,000 pixels" in found.why


def test_a_format_that_the_name_denies_is_told_and_read(root: Path) -> None:
    noise(20, 20).convert("P").save(root / "book.jpg", format="GIF")
    noise(20, 20).save(root / "photo.PNG", format="JPEG")
    found = inspect_picture(root, "book.jpg")
    assert found and found.fault == "misnamed" and "GIF" in found.why
    assert open_picture(root, "book.jpg").size == (20, 20)
    found = inspect_picture(root, "photo.PNG")
    assert found and found.fault == "misnamed" and "JPEG" in found.why
    for name in ("photo", "photo.jfif", "photo.download", "photo.JPG"):
        noise(20, 20).save(root / name, format="JPEG")
        assert inspect_picture(root, name) is None
    assert inspect_picture(root, "not-there.jpg") == ("missing", f"no image at {root.resolve() / 'not-there.jpg'}")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read every file")
def test_a_file_without_permission_is_broken(root: Path) -> None:
    (root / "coco" / "a.jpg").chmod(0)
    found = inspect_picture(root, "coco/a.jpg")
    assert found and found.fault == "broken" and "ermission" in found.why
