"""The page about training runs: from logs alone, of runs that are over, going on, or cut off."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from blindspot.errors import UserError
from blindspot.reporting.training import is_training_run, write_training_page


def _row(step: int, steps: int, **more: Any) -> dict[str, Any]:
    return {
        "step": step, "steps": steps, "loss": 2 + math.exp(-step / 9), "lr": 1e-3, "grad_norm": 1.5, "seconds": 2.0,
        "data_seconds": 0.5, "tokens": 900, "supervised_tokens": 300, "tokens_per_second": 450.0, "padding": 0.1,
        "tflops_per_device": 0.1, "mfu": None, "memory_gib": 1.25, "seconds_left": 2.0 * (steps - step), **more,
    }  # fmt: skip


def _write(folder: Path, rows: list[dict[str, Any]], cut: str = "") -> None:
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"batch": 8, "lr": 1e-3, "frozen": ["vision_tower"], "arm": "a<b>"}))
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + cut)


def test_every_run_below_the_folder_is_on_the_page(tmp_path: Path) -> None:
    evil = {"row": 4, "id": "<script>", "why": "it has no answer"}
    _write(tmp_path / "a-seed0" / "connector", [_row(step, 20) for step in range(1, 21)])
    going_on = [_row(step, 1000, skipped=[evil], mfu=0.4) for step in range(1, 901)]
    _write(tmp_path / "a-seed0" / "instruct", going_on, cut='{"step": 901, "lo')
    (tmp_path / "rows").mkdir()
    assert is_training_run(tmp_path) and is_training_run(tmp_path / "a-seed0" / "connector")
    assert not is_training_run(tmp_path / "rows")
    page = write_training_page(tmp_path).read_text()
    assert "a-seed0/connector" in page and "900 of 1,000" in page and "20 of 20" in page
    assert "10.0 %" in page and "25.0 %" in page and "40.0 %" in page
    assert f"{2 + math.exp(-20 / 9):.4f}" in page, "the last twentieth of 20 steps is one"
    assert page.count("it has no answer") == 1 and "<script>" not in page and "&lt;script&gt;" in page
    assert "a&lt;b&gt;" in page and "data:image/svg+xml;base64," in page and "</html>" in page
    rows = list(csv.DictReader((tmp_path / "report" / "curves.csv").open()))
    assert len(rows) == 920 and rows[-1]["step"] == "900" and rows[0]["run"] == "a-seed0/connector"
    assert (tmp_path / "report" / "figures" / "training.svg").is_file()


def test_the_same_logs_make_the_same_bytes(tmp_path: Path) -> None:
    _write(tmp_path / "run", [_row(1, 2), _row(2, 2, tokens=0, padding=1.0)])
    first = write_training_page(tmp_path / "run").read_bytes()
    assert write_training_page(tmp_path / "run").read_bytes() == first


def test_where_nothing_was_trained_it_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no training log"):
        write_training_page(tmp_path)
    _write(tmp_path / "run", [])
    with pytest.raises(UserError, match="no training log"):
        write_training_page(tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("[")
    with pytest.raises(UserError, match="cannot read the training run"):
        write_training_page(tmp_path / "run")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ([1, 2], "dictionary"),
        ({"step": 1}, "loss: Field required"),
        (_row(1, 2, loss=None), "loss"),
        (_row(1, 2, loss=math.nan), "loss"),
        (_row(1, 2, seconds=0.0), "seconds"),
    ],
)
def test_a_row_that_no_training_writes_is_named(tmp_path: Path, damage: Any, said: str) -> None:
    _write(tmp_path / "run", [_row(1, 2), damage])
    with pytest.raises(UserError, match=rf"log\.jsonl:2: .*{said}"):
        write_training_page(tmp_path / "run")


def test_the_title_says_how_far_the_loss_fell_and_names_are_no_formulas(tmp_path: Path) -> None:
    _write(tmp_path / "run" / r"$\frac$ a", [_row(step, 40, grad_norm=10.0**step) for step in range(1, 5)])
    _write(tmp_path / "run" / "b", [_row(step, 40) for step in range(1, 41)])
    page = write_training_page(tmp_path / "run").read_text()
    assert r"Loss fell from 2.89 to 2.64 ($\frac$ a) and from 2.89 to 2.01 (b)" in page
