"""The page: self-contained, escaped, repeatable, quiet in a browser."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindspot.errors import UserError
from blindspot.reporting import write_report
from tests.reporting.checker import Checker

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARMS = [
    {
        "id": "clip-learned",
        "label": "LLaVA-CLIP",
        "axes": {"family": "clip", "positions": "learned"},
        "replicate_of": None,
    },
    {
        "id": "clip-axial",
        "label": "LLaVA-CLIP-2D-RoPE",
        "axes": {"family": "clip", "positions": "axial"},
        "replicate_of": None,
    },
]
COLUMNS = [
    {"id": "vsr", "label": "Statements", "paper": "VSR", "chance": 0.5},
    {"id": "boxes", "label": "IoU", "paper": "Boxes", "metric": "mean_iou", "chance": 0.1, "box_units": 16},
]


@pytest.fixture(scope="module")
def page(run_folder: Path, results: dict[str, Any]) -> Path:
    assert results["meaningful"]
    return write_report(run_folder)


@pytest.fixture(scope="module")
def checked(page: Path) -> Checker:
    return Checker(page)


def test_nothing_is_loaded_and_nothing_runs(checked: Checker) -> None:
    assert not {"script", "iframe", "object", "embed", "base", "form"} & set(checked.tags)
    for name, value in checked.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "srcset", "data", "poster", "action"):
            assert value.startswith("data:")
    style = "".join(checked.words)
    assert "url(" not in style and "@import" not in style


def test_it_is_fit_for_small_screens_and_paper_and_forbids_what_it_does_not_hold(checked: Checker) -> None:
    style = "".join(checked.words)
    assert "@media print" in style and re.search(r"@media \(max-width: \d+px\)", style)
    assert any("default-src 'none'" in value for name, value in checked.attributes if name == "content")


def test_results_are_of_the_version_that_the_docs_describe(results: dict[str, Any]) -> None:
    docs = (Path(__file__).parents[2] / "docs" / "results.md").read_text(encoding="utf-8")
    assert re.findall(r"\| `version` \| (\d+);", docs) == [str(results["version"])]


def test_it_has_every_section_and_picture(checked: Checker) -> None:
    text = " ".join(checked.words)
    for heading in (
        "Scores after stage 2",
        "Scores after stage 1",
        "Differences after stage 2",
        "Score against training",
    ):
        assert heading in text
    assert checked.tags.count("article") == 12
    assert checked.tags.count("image") == 6 * 9
    assert checked.tags.count("table") == 6
    images = [value.split(";")[0] for name, value in checked.attributes if name == "src"]
    assert images.count("data:image/svg+xml") == 4 and images.count("data:image/png") == 12


def test_every_figure_is_also_a_pdf_and_a_csv(page: Path, results: dict[str, Any]) -> None:
    figures = page.parent / "figures"
    names = {path.stem for path in figures.glob("*.svg")}
    assert names == {"scores", "curves", "differences_connector", "differences_instruct"}
    assert names == {path.stem for path in figures.glob("*.pdf")} == {path.stem for path in figures.glob("*.csv")}
    rows = {name: list(csv.DictReader((figures / f"{name}.csv").open(encoding="utf-8"))) for name in names}
    assert len(rows["scores"]) == 9 * 14 and {row["stage"] for row in rows["scores"]} == {"instruct"}
    assert len(rows["curves"]) == 9 * 14 * 11
    assert len(rows["differences_instruct"]) == 5 * 14 * (1 + len(results["seeds"]))


def test_hostile_text_stays_text(make_run: Callable[..., Path]) -> None:
    evil = "<script>alert('1')</script>\"' onload=x \x00\x07\u202e{{ 7 * 7 }}"
    arms = [ARMS[0] | {"label": evil}, ARMS[1] | {"block": evil, "panel": evil, "marker": evil}]
    columns = [COLUMNS[0] | {"label": evil, "paper": evil, "description": evil, "baselines": {evil: 0.5}}, COLUMNS[1]]
    run = make_run(per_column=20, columns=columns, arms=arms, seeds=(0,))
    for path in run.glob("steps/*-evaluate/answers.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for number, row in enumerate(rows):
            row.update(raw=evil + "x" * 5000 * (number % 2), prompt=evil, choices=[evil])
            if row["benchmark"] == "vsr":
                row.update(answer=evil, score=float(number % 3 == len(path.parent.name) % 2))
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    page = write_report(run)
    html, checked = page.read_text(encoding="utf-8"), Checker(page)
    assert "script" not in checked.tags and not any(name.startswith("on") for name, _ in checked.attributes)
    assert not set("\x00\x07\u202e") & set(html) and "xxxx…" in html and "x" * 200 not in html
    assert "<script>alert('1')</script>\"' onload=x ���{{ 7 * 7 }}" in "".join(checked.words)


def test_labels_with_dollars_are_no_formulas(make_run: Callable[..., Path]) -> None:
    arms = [ARMS[0] | {"label": r"$\frac$ a_b"}, ARMS[1]]
    page = write_report(make_run(per_column=4, columns=COLUMNS, arms=arms, seeds=(0,)))
    assert r"$\frac$ a_b" in page.read_text(encoding="utf-8")


def test_same_results_same_files(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=10, columns=COLUMNS, arms=ARMS)
    page = write_report(run)
    made = [page, *run.glob("report/figures/*"), *run.glob("tables/*")]
    assert {path.suffix for path in made} == {".html", ".svg", ".pdf", ".csv", ".tex"}
    before = {path: path.read_bytes() for path in made}
    write_report(run)
    assert {path: path.read_bytes() for path in made} == before


def test_a_scale_without_meaning_is_announced_loudly(make_run: Callable[..., Path], checked: Checker) -> None:
    run = make_run(per_column=4, columns=COLUMNS, arms=ARMS, seeds=(0,), meaningful=False)
    smoke = Checker(write_report(run))
    assert ("role", "alert") in smoke.attributes and "These numbers mean nothing" in " ".join(smoke.words)
    assert ("role", "alert") not in checked.attributes


def test_wide_images_two_columns_and_a_majority_row(make_run: Callable[..., Path]) -> None:
    columns = [
        {
            "id": f"nlvr_{part}",
            "label": part,
            "paper": "NLVR",
            "chance": 0.5,
            "baselines": {"majority answer": majority},
        }
        for part, majority in (("dev", 0.553), ("test", 0.562))
    ]
    run = make_run(per_column=20, columns=columns, arms=ARMS, seeds=(0,))
    np.save(run / "steps/data/test_images.npy", np.zeros((64, 25, 100, 3), dtype=np.uint8))
    checked = Checker(write_report(run))
    text = " ".join(checked.words)
    assert "majority answer" in text and "55.3" in text and "Where the arms see it" not in text
    sizes = {(name, value) for name, value in checked.attributes if name in ("width", "height")}
    assert sizes == {("width", "256"), ("height", "64")}


def test_missing_test_images_are_one_clear_line(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=4, columns=COLUMNS, arms=ARMS, seeds=(0,))
    (run / "steps/data/test_images.npy").write_bytes(b"cut short")
    with pytest.raises(UserError, match=r"cannot read the test images .*test_images\.npy"):
        write_report(run)


@pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")
def test_a_browser_opens_it_without_a_word(page: Path, tmp_path: Path) -> None:
    command = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --dump-dom"
    )
    ran = subprocess.run(
        [str(CHROMIUM), *command.split(), f"--user-data-dir={tmp_path}", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "How to read this" in ran.stdout
    assert not re.findall(r".*CONSOLE.*", ran.stderr)
