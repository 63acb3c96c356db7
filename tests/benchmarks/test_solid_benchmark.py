"""The drawn worlds as benchmarks: what is asked, scored beside shortcuts, and shown."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from blindspot.benchmarks.base import Draw
from blindspot.benchmarks.registry import find
from blindspot.benchmarks.rules import VLMEVALKIT
from blindspot.benchmarks.scoring import profile
from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.files import write_jsonl
from blindspot.scenes.solid import rules


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "LEARNED", 40)


def test_it_is_drawn_as_told_and_again_from_its_digest() -> None:
    solid = find("solid")
    drawn = solid.read(Path("anywhere"), Draw(questions=36, size=128, cue="none", seed=1))
    assert solid.read(Path("elsewhere"), Draw.of(drawn.digest)) == drawn
    assert solid.read(Path("."), Draw(questions=36, size=128, cue="none", seed=2)).digest != drawn.digest
    assert len(drawn.questions) == 36
    assert {len(Image.open(io.BytesIO(drawn.images.read(0))).size), drawn.images.read(0)[:4]} == {2, b"\x89PNG"}
    for one in drawn.questions:
        assert one.answer in "ABCD"[: len(one.choices)]
        others = [each for each in drawn.questions if each.groups["set"] == one.groups["set"]]
        assert len(others) == len({each.answer for each in others}) > 1
    pair = [np.asarray(Image.open(io.BytesIO(drawn.images.read(key)))).astype(int) for key in (0, 1)]
    assert (abs(pair[0] - pair[1]) > 1).mean() < 1e-3  # nothing tells the twins of the control apart


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (Draw(size=64), r"^--size 64: should be at least 96, or objects have fewer than eight pixels$"),
        (Draw(cue="shadows"), r'^--cue: unknown cue "shadows"; did you mean "shadow"\?'),
    ],
)
def test_what_cannot_be_drawn_is_one_line(draw: Draw, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find("solid").read(Path("."), draw)


def test_answers_are_scored_beside_shortcuts_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    drawn = find("solid").read(Path("."), Draw(questions=24, size=96, cue="none"))
    write_jsonl(tmp_path / "said.jsonl", ({"id": one.id, "raw": "A"} for one in drawn.questions))
    command = ["evaluate", "said.jsonl", "--recorded", "--benchmarks", "solid", "--size", "96", "--cue", "none"]
    done = CliRunner().invoke(app, [*command, "--limit", "24", "--out", "run"])
    assert done.exit_code == 0, done.output
    assert "best shortcut" in done.stdout and "solid closer" in done.stdout
    scores = json.loads((tmp_path / "run" / "scores.json").read_text())["benchmarks"]["solid"]["metrics"]
    assert scores["task/nearer"]["value"] == 0.5 and scores["pairs/nearer"]["value"] == 0.0
    assert scores["task/nearer"]["chance"] == 0.5 and scores["task/nearest"]["chance"] == 0.25
    assert scores["task/nearer"]["shortcuts"]["lower in the picture"] == 0.5
    assert CliRunner().invoke(app, ["report", "run", "--out", "page.html"]).exit_code == 0
    page = (tmp_path / "page.html").read_text()
    assert "The best shortcut on the same questions" in page and "data:image/jpeg" in page
    other = CliRunner().invoke(app, ["evaluate", "said.jsonl", "--recorded", "--benchmarks", "vsr", "--cue", "none"])
    assert other.stderr == "error: --size and --cue say how solid, motion are drawn; add one to --benchmarks\n"


def test_numbers_and_yes_or_no_are_read_from_sentences() -> None:
    rows = [("number", "1.7", "It is about 1.8 times as far.", 0.9), ("yes_no", "No", "No, it is not.", 1.0)]
    for kind, gold, raw, score in rows:
        row = {"benchmark": "solid", "kind": kind, "answer": gold, "raw": raw}
        assert [profile(name).score(row).score for name in VLMEVALKIT] == [score, score]


def test_motion_asks_about_several_pictures_in_their_order() -> None:
    drawn = find("motion").read(Path("."), Draw(questions=21, size=96))
    behind = [one for one in drawn.questions if one.groups["task"] == "behind"]
    assert {len(one.images) for one in behind} == {4}
    firsts, seconds, lasts = ({drawn.images.read(one.images[k]) for one in behind[:3]} for k in (0, 1, -1))
    assert len(firsts) == len(lasts) == 1 < len(seconds) and firsts != lasts
    with pytest.raises(UserError, match=r"^--cue size: motion has no task with this cue; leave it out or ask solid$"):
        find("motion").read(Path("."), Draw(cue="size"))
