"""What a page asks of models and shows of them, without a browser."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from blindspot.app.guests import AS_IT_IS, BLIND, EXCHANGED, MIRRORED, Guest, Shown, exchanged
from blindspot.app.page import heat
from blindspot.app.runs import file_below, found_runs, recent_runs
from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.scenes.render import render
from blindspot.scenes.world import Scene, Thing
from tests.diagnostics.test_photo_truth import MIRROR, READ

pytestmark = pytest.mark.usefixtures("one_thread", "quick")
SCENE = Scene((Thing("red", "square", *READ, 8, 16, 8), Thing("blue", "square", *MIRROR, 8, 8, 8)), 30)


def test_a_model_is_asked_as_it_is_mirrored_blind_and_with_sides_exchanged(model: Path) -> None:
    said = {
        one.condition: one
        for one in Guest(str(model), "reader").ask(Shown.of(SCENE), "red left-of blue", ["left", "right"])
    }
    assert [*said] == [AS_IT_IS, MIRRORED, BLIND, EXCHANGED]
    assert said[AS_IT_IS].raw.startswith("left") and said[MIRRORED].raw.startswith("right")
    shares = {name: one.shares for name, one in said.items()}
    assert all(sum(one.values()) == pytest.approx(1) for one in shares.values())
    assert shares[AS_IT_IS]["left"] > 0.9 > 0.1 > shares[MIRRORED]["left"]
    assert shares[BLIND]["left"] == pytest.approx(0.5, abs=0.05)


def test_a_drawn_world_is_seen_in_the_size_that_the_model_was_trained_on(model: Path) -> None:
    guest, shown = Guest(str(model), "reader"), Shown.of(SCENE)
    assert shown.picture.size == (448, 448) and np.array_equal(
        np.asarray(guest._seen(shown)), np.asarray(shown.picture)
    )
    guest.open()
    assert np.array_equal(np.asarray(guest._seen(shown)), render(SCENE)) and guest.scale(shown) == 14


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("Is the cup LEFT of the bowl?", "Is the cup right of the bowl?"),
        ("red in front of blue", "red behind blue"),
        ("left above", "right below"),
        ("What is it?", None),
        ("leftovers", None),
    ],
)
def test_sides_are_exchanged_word_by_word(question: str, other: str | None) -> None:
    assert exchanged(question) == other


def test_mistakes_are_one_line(model: Path, tmp_path: Path) -> None:
    guest, shown = Guest(str(model), "reader"), Shown.of(SCENE)
    for question, options, said in (
        (" ", [], "the question is empty"),
        ("red of-the blue", [], "does not know the word 'of-the'"),
        ("red left-of blue", ["perhaps"], "does not know the word 'perhaps'"),
    ):
        with pytest.raises(UserError, match=said):
            guest.ask(shown, question, options)
    served = Guest("http://127.0.0.1:9/v1", "served", "toy")
    with pytest.raises(UserError, match="a server"):
        served.find(shown, "red")
    with pytest.raises(UserError, match="ConnectError"):  # asked, if without the options
        served.ask(shown, "x", ["yes"])
    with pytest.raises(UserError, match="runs here"):
        served.look(shown, "red left-of blue", tmp_path, lambda *told: None)


def test_looking_leaves_the_page_and_the_maps(model: Path, tmp_path: Path) -> None:
    told: list[Any] = []
    sentences = Guest(str(model), "reader").look(
        Shown.of(SCENE), "red left-of blue", tmp_path / "look", lambda *at: told.append(at)
    )
    assert any("It answers “left" in one for one in sentences) and told
    assert (tmp_path / "look" / "index.html").is_file()
    assert (tmp_path / "look" / "figures" / "photo_patching.csv").is_file(), "of a scene"
    with np.load(tmp_path / "look" / "photo.npz") as arrays:
        assert np.unravel_index(arrays["occlusion"].argmax(), arrays["occlusion"].shape) == READ
        assert np.allclose(arrays["heads"].mean(axis=1), arrays["attention"])


def test_a_map_lies_over_what_the_model_sees_of_the_picture(model: Path) -> None:
    guest = Guest(str(model), "reader")
    guest.open()
    assert guest.window(Shown.of(SCENE)) == (0, 0, 448, 448)
    assert guest.window(Shown("wide.png", Image.new("RGB", (96, 64)))) == (0, 0, 96, 64), "squashed"
    processor = guest._loaded[1].image_processor
    processor.do_center_crop, processor.crop_size, processor.size = (
        True,
        {"height": 32, "width": 32},
        {"shortest_edge": 32},
    )
    assert guest.window(Shown("wide.png", Image.new("RGB", (96, 64)))) == pytest.approx((16, 0, 80, 64)), "cut out"
    assert 'x="16.0" y="0.0" width="32.0"' in heat(np.ones((2, 2)), (16, 0, 80, 64))


def test_a_map_is_darkest_where_it_is_largest_and_hides_what_is_below_nothing() -> None:
    drawn = heat(np.array([[-1.0, 0.0], [1.0, 2.0]]), (0, 0, 100, 50))
    assert [part.split('"')[0] for part in drawn.split('opacity="')[1:]] == ["0.00", "0.00", "0.40", "0.80"]
    assert 'x="50.0" y="25.0" width="50.0" height="25.0"' in drawn
    assert 'opacity="0.80"' not in heat(np.zeros((2, 2)), (0, 0, 8, 8))


def test_runs_are_found_with_their_pages_and_nothing_else_is_given_away(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    for name, mark, page in (
        ("mine", "plan.json", None),
        ("eval/a", "run.json", "index.html"),
        ("diagnose/b", "diagnosis.json", None),
        ("eval #1, 50%", "run.json", "index.html"),
        ("../elsewhere", "run.json", "index.html"),
        ("../private", "other.json", "index.html"),
    ):
        (runs / name).mkdir(parents=True)
        (runs / name / mark).write_text(json.dumps({}))
        if page:
            (runs / name / page).write_text("<p>page</p>")
    (tmp_path / "secret.json").write_text("secret")
    for name in ("elsewhere", "private"):
        (runs / name).symlink_to(tmp_path / name)
    (runs / "mine" / "model.safetensors").write_text("weights")
    found = {name: (said, page) for name, said, page in found_runs(runs)}
    assert found["eval/a"] == ("evaluation", "/runs/eval/a/index.html") and found["diagnose/b"] == ("diagnosis", None)
    assert "plan.json" in found["mine"][0], "which is damaged"
    assert [*found_runs(runs / "eval" / "a")] == [("a", "evaluation", "/runs/./index.html")], "the folder may be a run"
    assert recent_runs(runs) == [*found_runs(runs)]
    assert found["eval #1, 50%"][1] == "/runs/eval%20%231%2C%2050%25/index.html" and found["elsewhere"][1]
    for name in ("eval/a/index.html", "eval #1, 50%/index.html", "elsewhere/index.html"):
        assert file_below(runs, name).status_code == 200
    for name in (
        "private/index.html",
        "elsewhere/../secret.json",
        "\0.html",
        "a" * 300 + ".html",
        "../secret.json",
        "mine/model.safetensors",
        "mine",
        "nothing.html",
        "/etc/hosts.json",
    ):
        assert file_below(runs, name).status_code == 404


def test_what_is_missing_is_said_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blindspot.cli.models.find_spec", lambda name: None)
    for arguments, said in (
        ([], "pip install '.[app]' -c constraints.txt"),
        (["http://127.0.0.1:9/v1"], "name one with --model"),
    ):
        result = CliRunner().invoke(app, ["app", *arguments])
        assert result.exit_code == 2 and said in result.output and "Traceback" not in result.output
    monkeypatch.setattr("blindspot.cli.models.find_spec", lambda name: True)
    result = CliRunner().invoke(app, ["app", "./no-model"])
    assert result.exit_code == 2 and "is not a model folder" in result.output


def test_a_picture_of_ones_own_is_shown_as_it_is(model: Path) -> None:
    guest, picture = Guest(str(model), "reader"), Image.new("RGB", (96, 64), "red")
    guest.open()
    assert guest._seen(Shown("red.png", picture)) is picture
