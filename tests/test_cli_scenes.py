"""`blindspot scenes` as a user meets it."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from blindspot.cli import app

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
