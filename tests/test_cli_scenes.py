"""`blindspot scenes` as a user meets it."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.scenes.solid import registry

datasets = pytest.importorskip("datasets")


@pytest.mark.parametrize("png", [False, True])
def test_it_writes_a_folder_and_says_so(tmp_path: Path, png: bool) -> None:
    out = tmp_path / "scenes"
    result = CliRunner().invoke(app, ["scenes", str(out), "--n", "14", "--seed", "5", *(["--png"] if png else [])])
    assert result.exit_code == 0
    assert str(out) in result.stdout and "README.md" in result.stdout
    data = datasets.load_dataset(str(out), split="test", cache_dir=str(tmp_path / "cache"))
    assert len(list(out.rglob("*.png"))) == (len(data) if png else 0)
    assert 10 <= len(data) <= 20
    assert all(row["id"].startswith("test/5/") for row in data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--n", "-1"), "--n -1: should be at least 1"),
        (("--split", "tset"), "--split tset: unknown; one of: train, test, compositional"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = CliRunner().invoke(app, ["scenes", str(tmp_path / "out"), *arguments])
    assert result.exit_code == 2
    assert result.stderr == f"error: {message}\n"
    assert not list(tmp_path.iterdir())


def test_a_folder_that_can_not_be_written_is_one_line_and_status_2() -> None:
    result = CliRunner().invoke(app, ["scenes", "/proc/scenes", "--n", "14"])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: cannot write /proc/scenes: ")
    assert result.stderr.count("\n") == 1


def test_help_names_the_splits() -> None:
    result = CliRunner().invoke(app, ["scenes", "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    for part in ("compositional", "--seed", "README.md", "Examples"):
        assert part in result.stdout


def test_solids_come_with_depth_ids_boxes_and_captions(tmp_path: Path) -> None:
    out = tmp_path / "solids"
    command = ["scenes", str(out), "--world", "motion", "--n", "40", "--size", "64", "--seed", "3"]
    assert CliRunner().invoke(app, command).exit_code == 0
    data = datasets.load_dataset(str(out), split="test", cache_dir=str(tmp_path / "cache"))
    assert {question["task"] for row in data for question in row["questions"]} == {*registry.MOTION}
    for row in data.select(range(0, len(data), 5)):
        for place, graph in enumerate(json.loads(row["scene"])):
            ids, depth = np.asarray(row["ids"][place]), np.asarray(row["depth"][place])
            assert row["images"][place].size == (64, 64) and ids.dtype == np.uint8
            for number, (x0, y0, x1, y1) in enumerate(row["boxes"][place], start=1):
                assert (ids[y0:y1, x0:x1] == number).sum() == (ids == number).sum()
                if x1:
                    seen = graph["objects"][number - 1]["seen"]["depth"] * 1000
                    assert abs(np.median(depth[ids == number]) - seen) < 2000
            assert all(own["colour"] in row["captions"][place] for own in graph["objects"])
    card = (out / "README.md").read_text()
    assert "license: apache-2.0" in card and "`boxes`" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world", "round"], '--world: unknown world "round"; one of: flat, solid, motion'),
        (
            ["--world", "solid", "--png"],
            "--world solid has a test split alone, in Parquet files; leave out --split and --png",
        ),
        (["--world", "motion", "--cue", "size"], "--cue size: motion has no task with this cue; leave it out"),
    ],
)
def test_worlds_that_are_not_drawn_are_one_line(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["scenes", str(tmp_path / "out"), *arguments])
    assert (done.exit_code, done.stderr) == (2, f"error: {message}\n")
    assert not list(tmp_path.iterdir())
