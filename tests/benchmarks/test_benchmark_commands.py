"""``blindspot benchmarks`` and ``blindspot data get``."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.cli import app

run = CliRunner(env={"COLUMNS": "200"})


def test_the_list_says_what_is_on_this_disk(tmp_path: Path) -> None:
    (tmp_path / "MME.tsv").touch()
    done = run.invoke(app, ["benchmarks", "--data", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    found = {facts["name"]: facts for facts in json.loads(done.stdout)}
    assert len(found) == len(BENCHMARKS)
    assert found["mme"]["on_disk"] == str(tmp_path / "MME.tsv")
    assert found["vsr"]["on_disk"] is None
    assert found["gqa"]["forms"][0]["counts"]["questions"] == 12578
    table = run.invoke(app, ["benchmarks", "--data", str(tmp_path)]).stdout
    assert "12,578" in table
    assert "hub 491" in table
    assert "not stated" in table
    narrow = run.invoke(app, ["benchmarks", "--data", str(tmp_path)], env={"COLUMNS": "80"}).stdout.split("\nmmvp:")[0]
    assert "…" not in narrow.split("on this disk")[0] and all(f" {name} " in narrow for name in found)


def test_get_says_that_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "mme").mkdir()
    (tmp_path / "mme" / "MME.tsv").touch()
    done = run.invoke(app, ["data", "get", "mme", "--data", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (0, f"Already there: {tmp_path / 'mme'}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vrs"], 'did you mean "vsr"?'),
        (["gqa", "--form", "original"], "cannot be downloaded by itself"),
        (["mme", "--form", "hub"], "cannot download huggingface.co/datasets/lmms-lab/MME"),
    ],
)
def test_get_ends_in_one_line(tmp_path: Path, arguments: list[str], message: str, capfd: Any) -> None:
    done = run.invoke(app, ["data", "get", *arguments, "--data", str(tmp_path)])
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]
