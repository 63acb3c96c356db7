import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from blindspot.benchmarks import nlvr
from blindspot.errors import UserError

REAL = Path("/work/shared/data/nlvr1")
COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
EXAMPLES = {
    "train": [("There is a Box, with 2 items.", "true", "10-0"), ("There is a Box, with 2 items.", "false", "10-1")],
    "dev": [("one bottom-right item", "true", "20-0"), ("a tower", "true", "21-3"), ("a base", "false", "22-0")],
    "test": [("a wall", "false", "30-2")],
}


def picture(colours: tuple[tuple[int, int, int], ...] = COLOURS, gap: int = 128) -> Image.Image:
    pixels = np.full((100, 400, 4), 255, np.uint8)
    pixels[..., :3] = gap
    for left, colour in zip((0, 150, 300), colours, strict=True):
        pixels[:, left : left + 100, :3] = colour
    return Image.fromarray(pixels, "RGBA")


def write_rows(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_official(folder: Path) -> Path:
    """SPLIT/SPLIT.json, one row for six pictures in SPLIT/images/DIRECTORY/."""
    for split, examples in EXAMPLES.items():
        rows = []
        for sentence, label, identifier in examples:
            images = folder / split / "images" / "4"
            images.mkdir(parents=True, exist_ok=True)
            for k in range(6):
                picture().save(images / f"{split}-{identifier}-{k}.png")
            extra = {"directory": "4", "evals": {"r1": label}, "structured_rep": [[], [], []]}
            rows.append({"sentence": sentence, "label": label, "identifier": identifier, **extra})
        write_rows(folder / split / f"{split}.json", rows)
    return folder


def write_flat(folder: Path) -> Path:
    """SPLIT.jsonl, one row for each picture."""
    for split, examples in EXAMPLES.items():
        rows = []
        for sentence, label, identifier in examples:
            for k in range(6):
                image = f"images/{split}/{split}-{identifier}-{k}.png"
                (folder / image).parent.mkdir(parents=True, exist_ok=True)
                picture().save(folder / image)
                row = {"image": image, "sentence": sentence, "label": label, "identifier": identifier}
                rows.append({**row, "permutation": k})
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("official"))


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_flat(tmp_path_factory.mktemp("flat"))


@pytest.fixture
def own(official: Path, tmp_path: Path) -> Path:
    return shutil.copytree(official, tmp_path / "nlvr")


def test_a_picture_behind_a_link_out_of_the_folder_is_refused(
    own: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    images = (own / "test" / "images").rename(tmp_path / "images")
    (own / "test" / "images").symlink_to(images)
    with pytest.raises(UserError, match="leads out of it by a symbolic link"):
        nlvr.load(own)


def test_questions_carry_sentence_answer_groups_and_picture(official: Path) -> None:
    train = nlvr.load(official).train
    assert len(train.questions) == len(train.images) == 12
    question = train.questions[8]
    assert question.id == "train-10-1-2"
    assert question.benchmark == "nlvr_train"
    assert (question.kind, question.answer, question.choices) == ("choice", "false", ("true", "false"))
    assert question.prompt == "there is a box , with 2 items ."
    assert question.groups == {
        "cluster": "10",
        "split": "train",
        "sentence": "There is a Box, with 2 items.",
        "example": "10-1",
        "permutation": 2,
    }
    assert train.images[question.images[0]] == official / "train/images/4/train-10-1-2.png"


def test_both_layouts_give_the_same_questions(official: Path, flat: Path) -> None:
    one, other = nlvr.load(official), nlvr.load(flat)
    for split in nlvr.SPLITS:
        assert getattr(one, split).questions == getattr(other, split).questions
        assert [path.name for path in getattr(one, split).images] == [
            path.name for path in getattr(other, split).images
        ]


def test_majority_is_the_share_of_the_more_frequent_label(official: Path) -> None:
    data = nlvr.load(official)
    assert nlvr.majority(data.train) == 0.5
    assert nlvr.majority(data.dev) == pytest.approx(2 / 3)
    assert nlvr.majority(data.test) == 1


def test_normalise_separates_punctuation() -> None:
    assert nlvr.normalise(" A blue  block/ at the bottom-right. ") == "a blue block / at the bottom - right ."


@given(st.text())
def test_normalise_is_idempotent_and_keeps_every_visible_character(sentence: str) -> None:
    once = nlvr.normalise(sentence)
    assert nlvr.normalise(once) == once
    assert "".join(once.split()) == "".join(sentence.lower().split())


@pytest.mark.parametrize("size", [1, 7, 32, 100, 150])
def test_boxes_are_cut_without_gap_or_neighbour(tmp_path: Path, size: int) -> None:
    picture().save(tmp_path / "p.png")
    boxes = nlvr.boxes(tmp_path / "p.png", size)
    assert boxes.dtype == np.uint8
    np.testing.assert_array_equal(boxes, np.broadcast_to(np.array(COLOURS)[:, None, None], (3, size, size, 3)))


def test_boxes_at_full_size_are_the_pixels_and_smaller_ones_are_averages(tmp_path: Path) -> None:
    pixels = np.asarray(picture()).copy()
    pixels[..., :3] = np.random.default_rng(0).integers(0, 256, (100, 400, 3))
    pixels[:, 100:150, :3] = pixels[:, 250:300, :3] = 128
    Image.fromarray(pixels, "RGBA").save(tmp_path / "p.png")
    crops = np.stack([pixels[:, left : left + 100, :3] for left in (0, 150, 300)])
    np.testing.assert_array_equal(nlvr.boxes(tmp_path / "p.png", 100), crops)
    means = crops.reshape(3, 25, 4, 25, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(nlvr.boxes(tmp_path / "p.png", 25), means, atol=1)


def test_another_geometry_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "p.png"
    picture().resize((200, 50)).save(path)
    assert f"{path}: 200 x 50 pixels" in refused(nlvr.boxes, path, 32)
    picture(gap=129).save(path)
    assert f"{path}: no grey gap at x = 100" in refused(nlvr.boxes, path, 32)


def test_an_unreadable_picture_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "p.png"
    assert str(path) in refused(nlvr.boxes, path, 32)
    path.write_bytes(b"not a picture")
    assert str(path) in refused(nlvr.boxes, path, 32)
    Image.effect_noise((400, 100), 50).save(path)
    path.write_bytes(path.read_bytes()[:9000])
    assert str(path) in refused(nlvr.boxes, path, 32)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=8), keep=st.integers(0)
)
def test_a_damaged_picture_is_read_or_refused_in_one_line(
    tmp_path: Path, edits: list[tuple[int, int]], keep: int
) -> None:
    path = tmp_path / "p.png"
    picture().save(path)
    content = bytearray(path.read_bytes())
    for place, value in edits:
        content[place % len(content)] = value
    path.write_bytes(content[: 1 + keep % len(content)] if keep else content)
    try:
        assert nlvr.boxes(path, 8).shape == (3, 8, 8, 3)
    except UserError as error:
        assert str(path) in str(error)


GOOD = {"sentence": "a wall", "label": "true", "identifier": "30-2", "directory": "4"}


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ([], "row"),
        (None, "row"),
        ({**GOOD, "sentence": " "}, "sentence"),
        ({**GOOD, "sentence": 3}, "sentence"),
        ({**GOOD, "label": "True"}, "label"),
        ({**GOOD, "label": True}, "label"),
        ({**GOOD, "identifier": "../30"}, "identifier"),
        ({**GOOD, "directory": "../4"}, "directory"),
        ({key: value for key, value in GOOD.items() if key != "label"}, "label"),
        ({**GOOD, "image": "x.png", "permutation": 6}, "permutation"),
        ({**GOOD, "image": "x.png", "permutation": True}, "permutation"),
        ({**GOOD, "image": "", "permutation": 1}, "image"),
        ({**GOOD, "image": "../x.png", "permutation": 1}, "lies outside of the folder"),
        ({**GOOD, "identifier": "31-0"}, "test-31-0-0.png is missing"),
        ({**GOOD, "identifier": "31-0", "image": "x" * 300, "permutation": 1}, "xxx is missing"),
    ],
)
def test_a_malformed_row_is_named_by_file_line_and_field(
    own: Path, row: Any, named: str, refused: Callable[..., str]
) -> None:
    path = own / "test/test.json"
    write_rows(path, [GOOD, row])
    message = refused(nlvr.load, own)
    assert message.startswith(f"{path}:2: ")
    assert named in message.split(";")[0]
    assert "github.com/lil-lab/nlvr" in message


def test_files_that_are_missing_empty_or_not_json_are_named(own: Path, refused: Callable[..., str]) -> None:
    path = own / "dev/dev.json"
    path.write_text('{"sentence": \n', encoding="utf-8")
    assert f"{path}:1" in refused(nlvr.load, own)
    path.write_bytes(b"\xff\xfe")
    assert f"cannot read {path}: not UTF-8 text" in refused(nlvr.load, own)
    path.write_text("", encoding="utf-8")
    assert f"{path} holds no rows" in refused(nlvr.load, own)
    path.unlink()
    message = refused(nlvr.load, own)
    assert "dev split" in message and str(own) in message and "github.com/lil-lab/nlvr" in message
    assert refused(nlvr.fingerprint, own) == message
    absent = own / "absent"
    assert f"no NLVR folder at {absent}" in refused(nlvr.load, absent)


def test_a_missing_picture_and_a_repeated_row_are_named(own: Path, refused: Callable[..., str]) -> None:
    write_rows(own / "test/test.json", [GOOD, GOOD])
    assert "test.json:2: test-30-2-0 occurs a second time" in refused(nlvr.load, own)
    write_rows(own / "test/test.json", [GOOD])
    lost = own / "test/images/4/test-30-2-5.png"
    lost.unlink()
    assert f"test.json:1: its picture {lost} is missing" in refused(nlvr.load, own)


def test_fingerprint_follows_content_and_not_the_place(official: Path, own: Path) -> None:
    original = nlvr.fingerprint(official)
    assert nlvr.fingerprint(own) == original
    image = own / "test/images/4/test-30-2-5.png"
    image.rename(image.with_name("test-30-2-6.png"))
    assert nlvr.fingerprint(own) != original
    image.with_name("test-30-2-6.png").rename(image)
    assert nlvr.fingerprint(own) == original
    rows = own / "dev/dev.json"
    rows.write_text(rows.read_text().replace("tower", "power"), encoding="utf-8")
    assert nlvr.fingerprint(own) != original


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the NLVR sample is not at {REAL}")
def test_the_real_data_has_the_published_size_and_majority() -> None:
    data = nlvr.load(REAL)
    assert [len(split.questions) for split in (data.train, data.dev, data.test)] == [6000, 989, 990]
    assert round(100 * nlvr.majority(data.dev), 1) == 55.3
    assert round(100 * nlvr.majority(data.test), 1) == 56.2
    for split in (data.train, data.dev, data.test):
        corners = np.stack([nlvr.boxes(path, 100) for path in split.images[::300]])[:, :, 0, 0]
        np.testing.assert_array_equal(corners, 211)
