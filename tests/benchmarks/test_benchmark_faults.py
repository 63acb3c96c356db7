"""What a reader refuses, and how it chooses among forms."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import DatasetDict

from blindspot.benchmarks.registry import BENCHMARKS, SETS, find, select
from blindspot.benchmarks.vsr import links

from . import published
from .published import picture, row

MMVP, TALLYQA = find("mmvp"), find("tallyqa")


def asked(n: int = 1, **cells: Any) -> dict[str, Any]:
    """A row of MMVP's columns."""
    return {
        "Index": n,
        "Question": "q",
        "Options": "(a) x (b) y",
        "Correct Answer": "(a)",
        "image": picture(n),
        **cells,
    }


def counted(image: str = "1.png", **cells: Any) -> dict[str, Any]:
    """A row of TallyQA's own file."""
    return {"image": image, "question": "q", "question_id": 1, "answer": 1, "issimple": True, **cells}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "C"}, "row 2: the gold answer 'C' is not one of the options A, B"),
        ({"answer": "Open"}, "row 2: the gold answer 'Open' is not the letter of an option"),
        ({"answer": None}, "row 2: nothing in column answer (columns: index, question, answer, A, B)"),
        ({"index": 0}, "MMVP.tsv: row 2: id '0' is also that of row 1"),
        ({"B": None}, "row 2: options A: expected are A, B and so on without a gap"),
        ({"question": "  "}, "row 2: nothing in column question"),
    ],
)
def test_a_faulty_row_is_named(
    tmp_path: Path, refused: Callable[..., str], change: dict[str, Any], message: str
) -> None:
    rows = [row(0, A="Open", B="Closed"), row(1, A="Open", B="Closed") | change]
    assert message in refused(MMVP.read, published.tsv(tmp_path / "MMVP.tsv", rows))


def test_nothing_and_nothing_of_this_benchmark(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "nothing at" in refused(MMVP.read, tmp_path / "none")
    message = refused(MMVP.read, tmp_path)
    assert "no data of MMVP at" in message
    assert "tsv: MMVP.tsv; hub: **/train*.parquet or" in message
    assert "`blindspot data get mmvp`" in message


def test_a_file_without_rows(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "MMVP.tsv"
    path.write_text("index\timage\tquestion\tA\tB\tanswer\n", encoding="utf-8")
    assert "holds no rows" in refused(MMVP.read, path)


def test_a_shard_that_is_missing_makes_a_form_absent(tmp_path: Path, refused: Callable[..., str]) -> None:
    published.parquet(tmp_path / "data" / "train-00000-of-00002.parquet", [asked(1)])
    assert "no data of MMVP" in refused(MMVP.read, tmp_path)
    published.parquet(tmp_path / "data" / "train-00001-of-00002.parquet", [asked(2)])
    assert len(MMVP.read(tmp_path).questions) == 2


def test_forms_on_disk_read_the_same(tmp_path: Path) -> None:
    """Parquet, save_to_disk of a split and of a dictionary, and the cache of datasets."""
    rows = [asked(n) for n in (1, 2)]
    made = published.dataset(rows)
    published.parquet(tmp_path / "parquet" / "train.parquet", rows)
    made.save_to_disk(tmp_path / "split")
    DatasetDict({"train": made, "test": made.select([0])}).save_to_disk(tmp_path / "splits")
    cached = tmp_path / "cache" / "default" / "0.0.0" / "abc"
    cached.mkdir(parents=True)
    shutil.copy(tmp_path / "split" / "data-00000-of-00001.arrow", cached / "mmvp-train.arrow")
    read = [MMVP.read(tmp_path / name) for name in ("parquet", "split", "splits", "cache")]
    assert len({collection.digest for collection in read}) == 1
    for one in read:
        assert one.form == "hub"
        assert [one.images.read(q.images[0]) for q in one.questions] == [picture(1), picture(2)]


def test_of_two_versions_in_the_cache_of_datasets_the_newer_one_is_read(tmp_path: Path) -> None:
    for number, version in enumerate(["f" * 40, "0" * 40]):
        published.dataset([asked(1, image=picture(number))]).save_to_disk(tmp_path / "made" / version)
        folder = tmp_path / "cache" / "default" / "0.0.0" / version
        folder.mkdir(parents=True)
        shutil.copy(tmp_path / "made" / version / "data-00000-of-00001.arrow", folder / "mmvp-train.arrow")
        os.utime(folder, (number, number))
    (question,) = (read := MMVP.read(tmp_path / "cache")).questions
    assert read.images.read(question.images[0]) == picture(1)


def test_a_broken_or_foreign_data_set(tmp_path: Path, refused: Callable[..., str]) -> None:
    for name, content in (("train.parquet", b"PAR1 not really"), ("mmvp-train.arrow", b"nothing")):
        (tmp_path / name).write_bytes(content)
        assert "cannot read" in refused(MMVP.read, tmp_path)
        (tmp_path / name).unlink()
    published.parquet(tmp_path / "train.parquet", [{"image": picture(0), "text": "t"}])
    assert "no column Index, Question, Options, Correct Answer (columns:" in refused(MMVP.read, tmp_path)


def test_rows_without_a_picture_are_counted(tmp_path: Path, refused: Callable[..., str]) -> None:
    published.parquet(tmp_path / "train.parquet", [asked(1), asked(2, image=None)])
    assert "1 of 2 rows have no picture, the first is row 2" in refused(MMVP.read, tmp_path)


@pytest.mark.parametrize("content", ["{", "[1, 2]", '{"a": 1}', "[" * 200_000])
def test_json_that_is_not_rows(tmp_path: Path, refused: Callable[..., str], content: str) -> None:
    (tmp_path / "test.json").write_text(content, encoding="utf-8")
    assert "get the file again" in refused(TALLYQA.read, tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "content"),
    [
        ("seedbench_img", "SEED-Bench.json", {"questions": [1]}),
        ("topviewrs", "released_realistic_datasets.json", {"top_view_recognition": [1]}),
        ("gqa", "testdev_balanced_questions.json", {"201": 1}),
    ],
)
def test_json_whose_rows_are_no_objects(
    tmp_path: Path, refused: Callable[..., str], name: str, file: str, content: Any
) -> None:
    published.json(tmp_path / file, content)
    assert f"{file}: " in refused(find(name).read, tmp_path)


@pytest.mark.parametrize("answer", ["9" * 5000, -2, "+2", 2.5, "two"])
def test_a_gold_count_that_no_profile_could_score(tmp_path: Path, refused: Callable[..., str], answer: Any) -> None:
    published.json(tmp_path / "test.json", [counted(answer=answer)])
    published.pictures(tmp_path, ["1.png"])
    assert "test.json: row 1: answer is '" in refused(TALLYQA.read, tmp_path)


def test_half_a_character_in_a_text(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = published.json(tmp_path / "test.json", [counted(question="q \ud800")])
    published.pictures(tmp_path, ["1.png"])
    assert f"{path}: " in refused(TALLYQA.read, tmp_path)


def test_a_row_with_more_cells_than_the_header(tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "Questions.csv"
    path.write_text("Index,Question,Options,Correct Answer\n1,q,(a) x (b) y,(a),more\n", encoding="utf-8")
    published.pictures(tmp_path / "MMVP Images", ["1.jpg"])
    assert f"{path}: row 1 has more cells than the header" in refused(MMVP.read, tmp_path)


def test_pictures_of_one_name_are_told_apart_by_their_folders(tmp_path: Path, refused: Callable[..., str]) -> None:
    rows = [counted(f"{scene}/0.png", question_id=scene) for scene in ("a", "b", "ab")]
    published.json(tmp_path / "test.json", rows)
    made = published.pictures(tmp_path / "unpacked", ["ab/0.png", "a/0.png", "b/0.png"])
    read = TALLYQA.read(tmp_path)
    assert [read.images.read(q.images[0]) for q in read.questions] == [made[one["image"]] for one in rows]
    published.json(tmp_path / "test.json", [counted("elsewhere/0.png")])
    assert "1 of 1 pictures are not below" in refused(TALLYQA.read, tmp_path)


def test_names_and_sets(refused: Callable[..., str]) -> None:
    assert 'unknown benchmark "vsrr"; did you mean "vsr"?' in refused(find, "vsrr")
    assert [b.name for b in select("vsr, spatial,mme")] == ["vsr", *(n for n in SETS["spatial"] if n != "vsr"), "mme"]
    assert 'did you mean "spatial"' in refused(select, "spatia")
    assert "no benchmark is named" in refused(select, "")
    assert set(SETS["all"]) == set(BENCHMARKS)


@pytest.mark.parametrize("name", ["../secret.png", "{folder}/secret.png", "x" * 5000 + ".png", "a\0b.png"])
def test_a_picture_is_taken_from_the_folder_of_the_data_alone(
    tmp_path: Path, refused: Callable[..., str], name: str
) -> None:
    (tmp_path / "secret.png").write_bytes(picture(0))
    path = published.json(tmp_path / "tallyqa" / "test.json", [counted(name.format(folder=tmp_path))])
    assert "1 of 1 pictures are not below" in refused(TALLYQA.read, path)


@pytest.mark.parametrize("link", ["tallyqa", "tallyqa/images", "tallyqa/images/VG", "tallyqa/images/VG/1.png"])
def test_a_picture_behind_a_link_out_of_the_folder_is_not_taken(
    tmp_path: Path, refused: Callable[..., str], link: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    published.json(tmp_path / "tallyqa" / "test.json", [counted("VG/1.png")])
    published.pictures(tmp_path / "tallyqa" / "images", ["VG/1.png"])
    inside = (tmp_path / link).rename(tmp_path / "elsewhere" / "it")
    (tmp_path / link).symlink_to(inside)
    if link == "tallyqa":  # the folder itself may lie anywhere
        assert len(TALLYQA.read(tmp_path / link).questions) == 1
    else:
        assert "VG/1.png leads out of it by a symbolic link" in refused(TALLYQA.read, tmp_path / "tallyqa")


def test_links_of_the_hubs_cache_are_followed(tmp_path: Path) -> None:
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "abc"
    published.json(snapshot / "test.json", [counted()])
    published.pictures(tmp_path / "datasets--a--b" / "blobs", ["0123.png"])
    (snapshot / "1.png").symlink_to("../../blobs/0123.png")
    assert len(TALLYQA.read(snapshot).questions) == 1


def test_a_picture_is_not_downloaded_to_another_folder(tmp_path: Path, refused: Callable[..., str]) -> None:
    published.json(tmp_path / "test.jsonl", {"image": "../x.jpg", "image_link": "http://localhost/x.jpg"})
    assert "the picture '../x.jpg' lies outside of the folder" in refused(links, tmp_path)


@pytest.mark.parametrize("bbox", [[0, 0, 0.001, 4], [5, 0, -3, 4], [0, 0, float("nan"), 4], [0, 0, 4, float("inf")]])
def test_a_box_that_nothing_could_be_scored_against_is_not_asked_for(tmp_path: Path, bbox: list[float]) -> None:
    image = {"id": 1, "file_name": "1.png", "width": 8, "height": 6}
    boxes = [
        {"id": n, "image_id": 1, "category_id": n, "bbox": each, "area": each[2]}
        for n, each in enumerate([[0, 0, 4, 4], bbox], start=1)
    ]
    categories = [{"id": n, "name": name} for n, name in ((1, "cup"), (2, "cat"))]
    published.json(tmp_path / "instances.json", {"images": [image], "categories": categories, "annotations": boxes})
    (tmp_path / "1.png").write_bytes(picture(0))
    assert [q.id for q in find("coco_boxes").read(tmp_path).questions] == ["1"]


def test_a_table_without_rows_beside_labels(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "tallyqa_data.tsv").write_text("index\timage\tquestion\tanswer\n", encoding="utf-8")
    published.json(tmp_path / "test.json", [counted()])
    assert "holds no rows" in refused(TALLYQA.read, tmp_path)


def test_the_digest_sees_labels_that_another_file_gives(tmp_path: Path) -> None:
    published.tsv(tmp_path / "tallyqa_data.tsv", [row(0, answer=1)])
    digests = [TALLYQA.read(tmp_path).digest]
    for simple in (True, False):
        published.json(tmp_path / "test.json", [counted(issimple=simple)])
        digests.append(TALLYQA.read(tmp_path).digest)
    assert len(set(digests)) == 3


def test_rows_whose_labels_are_not_found_are_counted(tmp_path: Path) -> None:
    published.tsv(tmp_path / "tallyqa_data.tsv", [row(n, question=f"How many {n}?", answer=1) for n in range(3)])
    published.json(tmp_path / "test.json", [counted(question="How many 1?")])
    notes = TALLYQA.read(tmp_path).notes
    assert "2 questions have no label 'complexity': simple and the like are of the other 1" in notes


def test_labels_that_no_metric_knows_are_counted(tmp_path: Path) -> None:
    categories = ("Scene Understanding", "Scenes", "Scenes")
    rows = [row(n, A="a", B="b", category=category) for n, category in enumerate(categories)]
    notes = find("seedbench_img").read(published.tsv(tmp_path / "SEEDBench_IMG.tsv", rows)).notes
    assert "2 questions have the dimension 'scenes', which no metric reports" in notes
    assert not any("scene_understanding" in note and "no metric" in note for note in notes)
