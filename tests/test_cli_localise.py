"""``blindspot localise``, and ``ask`` of several models, as a user meets them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from blindspot.cli import app
from blindspot.evaluation.boxes import Subject, names

from .evaluation.local_toy import saved
from .evaluation.tiny_families import checkpoint


@pytest.fixture(scope="module", autouse=True)
def small_and_apart(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every test here computes with small models, and lets no checkpoint's code into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path_factory.mktemp("modules")))
        yield


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A miniature and checkpoints of families, by name."""
    root = tmp_path_factory.mktemp("models")
    miniature = saved(root / "miniature", ["red", "box", "of", *map(str, range(33))])
    folders = [checkpoint(name, root / name) for name in ("llava", "paligemma", "molmo")]
    return {folder.name: str(folder) for folder in (miniature, *folders)}


@pytest.fixture
def picture(tmp_path: Path) -> str:
    Image.new("RGB", (200, 100), "red").save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put words into the mouth of whatever is asked, on top of asking it."""

    def put(words: str) -> None:
        real = Subject.ask

        def answer(self: Subject, path: Path, question: str) -> Any:
            reply = real(self, path, question)
            return type(reply)("", words, reply.stopped)

        monkeypatch.setattr(Subject, "ask", answer)

    return put


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "150"})


def test_every_kind_of_model_is_asked_in_its_own_words_and_drawn(models: dict[str, str], picture: str) -> None:
    out = Path(picture).with_name("figure.png")
    three = [models[name] for name in ("llava", "paligemma", "molmo")]
    options = ("--box", "20,10,120,60", "--out", str(out), "--json", "--trust-remote-code")
    result = invoke("localise", *three, picture, "red", *options)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    told = json.loads(result.stdout)
    assert told["box"] == [20, 10, 120, 60]
    assert [row["convention"] for row in told["models"]] == ["llava-normalised", "paligemma-loc", "molmo-points"]
    assert [row["prompt"] for row in told["models"]][1:] == ["detect red", "Point to red."]
    assert all("right" in row and (row["problems"] or row["boxes"] or row["points"]) for row in told["models"])
    assert Image.open(out).width > 3 * 500


def test_a_miniature_answers_in_pixels_of_its_canvas(
    models: dict[str, str], picture: str, said: Callable[[str], None]
) -> None:
    said("<think>0 0 4 4?</think>8 8 24 16")
    out = Path(picture).with_name("figure.png")
    result = invoke("localise", models["miniature"], picture, "red", "--box", "50,25,150,50", "--out", str(out))
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    assert "8 8 24 16" in result.stdout and "50 25 150 50" in result.stdout and "1.00" in result.stdout
    assert f"Written: {out}" in result.stdout and out.is_file()


def test_what_moves_a_terminal_is_not_printed(
    models: dict[str, str], picture: str, said: Callable[[str], None]
) -> None:
    said("\x1b[2J[red]no[/red] \u202ebox")
    out = str(Path(picture).with_name("figure.png"))
    for arguments in (
        ("localise", models["llava"], picture, "red", "--out", out),
        ("ask", models["llava"], picture, "where?"),
        ("ask", models["llava"], models["miniature"], picture, "red"),
    ):
        result = invoke(*arguments)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        assert "[red]no[/red]" in result.stdout
        assert not {"\x1b", "\u202e"} & set(result.stdout)


def test_several_models_answer_in_a_table_and_one_alone(
    models: dict[str, str], picture: str, said: Callable[[str], None]
) -> None:
    said("to the right")
    assert invoke("ask", models["llava"], picture, "Left or right?").stdout == "to the right\n"
    table = invoke("ask", models["llava"], models["paligemma"], picture, "Left or right?").stdout
    lines = [line.split() for line in table.splitlines() if "right" in line]
    assert lines == [["llava", "to", "the", "right"], ["paligemma", "to", "the", "right"]]


def test_models_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "model").mkdir(parents=True)
    both = [str(tmp_path / parent / "model") for parent in ("a", "b")]
    assert names(both) == both
    assert names([both[0], "org/name"]) == ["model", "org/name"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--box", "1,2,3"), "'1,2,3' is not a box"),
        (("--box", "9,0,1,5"), "has no area"),
        (("--out", "figure.txt"), "not as figure.txt"),
        (("--prompt", "Where is it?"), "has no {phrase} in it"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    models: dict[str, str], picture: str, options: tuple[str, ...], message: str
) -> None:
    result = invoke("localise", models["miniature"], picture, "red", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1 and message in result.stderr


def test_a_prompt_without_a_place_is_said_before_any_model_is_opened(picture: str) -> None:
    result = invoke("localise", "nowhere", picture, "red", "--prompt", "Where is it?")
    assert result.exit_code == 2 and "has no {phrase} in it" in result.stderr


def test_models_image_and_phrase_are_all_needed() -> None:
    assert invoke("localise", "one", "two").exit_code == 2
