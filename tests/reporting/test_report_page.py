"""The page: self-contained, escaped, repeatable, quiet in a browser."""

import csv
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest

from blindspot.errors import UserError
from blindspot.reporting import write_report
from blindspot.reporting.run import Column
from blindspot.scenes.tasks import TASKS
from blindspot.studies.loading import load_study
from blindspot.studies.plan import columns
from tests.reporting.checker import Checker, edit_answers, edit_plan, mark_done
from tests.reporting.conftest import CLIP_ARMS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
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
        "relatives of the benchmarks after stage 1",
        "Differences on drawn relatives of the benchmarks after stage 2",
        "How fast, and how well",
    ):
        assert heading in text
    assert checked.tags.count("article") == 12
    assert checked.tags.count("image") == 6 * 9
    assert checked.tags.count("table") == 7
    images = [value.split(";")[0] for name, value in checked.attributes if name == "src"]
    assert images.count("data:image/svg+xml") == 5 and images.count("data:image/png") == 12 + 1


def test_the_first_screen_says_what_was_done_on_what(page: Path, checked: Checker) -> None:
    first = " ".join(page.read_text(encoding="utf-8").split("</header>")[0].split("<header>")[1].split())
    assert "9 small vision-language models were trained" in first
    assert "to compare 2D-RoPE with learned positions." in first
    assert "not the benchmarks themselves" in first and "Scores are points out of 100" in first
    assert "<b>Which square is red?</b>" in first
    assert [first.count(f'<li class="{kind}"') for kind in ("right", "wrong")] == [1, 1]
    assert "Scores on drawn relatives of the benchmarks after stage 2" in checked.text


def test_columns_of_drawn_scenes_are_relatives_and_ask_in_english() -> None:
    assert all(column["relative"] for column in columns(load_study("miniature")))
    assert not any(column["relative"] for column in columns(load_study("nlvr")))
    (asked,) = (Column.model_validate(column) for column in columns(load_study("miniature")) if "english" in column)
    (task,) = (task for task in TASKS if task.column == asked.id)
    item = task.build(Random(0), "left", "iid")[0]
    first, second = item.scene.things[:2]
    assert asked.in_english(item.turn.prompt).startswith(f"Is the {first.colour} object left of, right of, above or")
    assert asked.in_english(item.turn.prompt).endswith(f" the {second.colour} one?")


def test_light_and_dark_colours_can_be_read(page: Path) -> None:
    style = page.read_text(encoding="utf-8").split("</style>")[0]
    palettes = [dict(re.findall(r"--(\w+): (#\w+)", rule)) for rule in re.findall(r":root \{([^}]*)\}", style)]
    assert len(palettes) == 2 and "prefers-color-scheme: dark" in style and palettes[0].keys() == palettes[1].keys()
    for palette in palettes:
        for ink, paper in (("ink", "paper"), ("soft", "paper"), ("good", "paper"), ("bad", "paper"), ("ink", "up"),
                           ("ink", "down"), ("soft", "up"), ("soft", "down"), ("alarm", "alarmed")):  # fmt: skip
            assert _contrast(palette[ink], palette[paper]) >= 4.5, (ink, paper)


def _contrast(first: str, second: str) -> float:
    """WCAG 2's contrast of two colours."""
    lights = []
    for colour in (first, second):
        whole = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        levels = [int(whole[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
        lights.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)
    return max(lights) / min(lights)


def test_every_figure_is_also_a_pdf_and_a_csv(page: Path, results: dict[str, Any]) -> None:
    figures = page.parent / "figures"
    names = {path.stem for path in figures.glob("*.svg")}
    assert names == {"scores", "curves", "times", "differences_connector", "differences_instruct"}
    assert names == {path.stem for path in figures.glob("*.pdf")} == {path.stem for path in figures.glob("*.csv")}
    rows = {name: list(csv.DictReader((figures / f"{name}.csv").open(encoding="utf-8"))) for name in names}
    assert len(rows["scores"]) == 9 * 14 and {row["stage"] for row in rows["scores"]} == {"instruct"}
    assert len(rows["curves"]) == 9 * 14 * 11
    assert len(rows["differences_instruct"]) == 5 * 14 * (1 + len(results["seeds"]))


def test_hostile_text_stays_text(make_run: Callable[..., Path]) -> None:
    evil, formula = "<script>alert('1')</script>\"' onload=x \x00\x07\u202e{{ 7 * 7 }}", r"$\frac$ a_b"
    arms = [CLIP_ARMS[0] | {"label": formula}, CLIP_ARMS[1] | {"block": evil, "panel": evil, "marker": evil}]
    columns = [COLUMNS[0] | {"label": evil, "paper": evil, "description": evil, "baselines": {evil: 0.5}}, COLUMNS[1]]
    run = make_run(per_column=20, columns=columns, arms=arms, seeds=(0,))

    def turn_evil(number: int, row: dict[str, Any]) -> None:
        row.update(raw=evil + "x" * 5000 * (number % 2), prompt=evil, choices=[evil])
        if row["benchmark"] == "vsr":
            row.update(answer=evil, score=float(number % 3 == 0))

    edit_answers(run, turn_evil)
    page = write_report(run)
    html, checked = page.read_text(encoding="utf-8"), Checker(page)
    assert "script" not in checked.tags and not any(name.startswith("on") for name, _ in checked.attributes)
    assert not set("\x00\x07\u202e") & set(html) and "xxxx…" in html and formula in html and "x" * 200 not in html
    assert "<script>alert('1')</script>\"' onload=x ���{{ 7 * 7 }}" in "".join(checked.words)


def test_same_results_same_files(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=10, columns=COLUMNS, arms=CLIP_ARMS)
    page = write_report(run)
    made = [page, *run.glob("report/figures/*"), *run.glob("tables/*")]
    assert {path.suffix for path in made} == {".html", ".svg", ".pdf", ".csv", ".tex"}
    before = {path: path.read_bytes() for path in made}
    write_report(run)
    assert {path: path.read_bytes() for path in made} == before


@pytest.mark.usefixtures("quick")
def test_a_scale_without_meaning_is_announced_loudly(make_run: Callable[..., Path], checked: Checker) -> None:
    run = make_run(per_column=4, columns=COLUMNS, arms=CLIP_ARMS, seeds=(0,), meaningful=False)
    smoke = Checker(write_report(run))
    assert ("role", "alert") in smoke.attributes and "These numbers mean nothing" in " ".join(smoke.words)
    assert ("role", "alert") not in checked.attributes


@pytest.mark.usefixtures("quick")
def test_wide_images_two_columns_and_a_majority_row(make_run: Callable[..., Path]) -> None:
    nlvr = {"paper": "NLVR", "chance": 0.5, "baselines": {"majority answer": 0.553}}
    columns = [nlvr | {"id": f"nlvr_{part}", "label": part} for part in ("dev", "test")]
    run = make_run(per_column=20, columns=columns, arms=CLIP_ARMS, seeds=(0,))
    np.save(run / "steps/data/test_images.npy", np.zeros((64, 25, 100, 3), dtype=np.uint8))
    mark_done(run / "steps/data")
    checked = Checker(write_report(run))
    text = " ".join(checked.words)
    assert "themselves" not in text and "relatives" not in text
    assert "majority answer" in text and "55.3" in text and "Where the arms see it" not in text
    sizes = {(name, value) for name, value in checked.attributes if name in ("width", "height")}
    assert sizes == {("width", "256"), ("height", "64")}


def test_missing_test_images_are_one_clear_line(make_run: Callable[..., Path]) -> None:
    run = make_run(per_column=4, columns=COLUMNS, arms=CLIP_ARMS, seeds=(0,))
    (run / "steps/data/test_images.npy").write_bytes(b"cut short")
    mark_done(run / "steps/data")
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


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("clip-axial-0-instruct-evaluate/answers.jsonl", '"raw": "left"', '"raw": "lift"'),
        ("clip-axial-0-instruct/probes.jsonl", "0.", "1."),
        ("data/baselines.json", "0.5", "0.6"),
        ("data/test_images.npy", "\x00", "\x01"),
        ("diagnosis/counterfactuals.json", "0.5", "0.6"),
    ],
)
def test_what_was_edited_is_not_published(make_run: Callable[..., Path], name: str, old: str, new: str) -> None:
    run = make_run(per_column=4, columns=COLUMNS, arms=CLIP_ARMS, seeds=(0,))
    (run / "steps/diagnosis").mkdir()
    (run / "steps/data/baselines.json").write_text('{"vsr": {"rule": 0.5}}')
    rows = [{"move": "mirrored or flipped", "factor": "pixels", "value": 0.5}]
    tables = {"tables": [{"name": "shares", "title": "Shares", "rows": rows}]}
    (run / "steps/diagnosis/counterfactuals.json").write_text(json.dumps(tables))
    for folder in ("data", "diagnosis"):
        mark_done(run / "steps" / folder)
    steps = edit_plan(run)["steps"]
    edit_plan(run, steps=[*steps, {"id": "diagnose", "kind": "diagnose", "folder": "steps/diagnosis"}])
    path = run / "steps" / name
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode(), 1))
    with pytest.raises(UserError, match=f"{name} is not as its step made it .* run the study again"):
        write_report(run)
