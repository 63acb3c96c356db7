"""The exported folder, read as somebody without Blindspot reads it."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blindspot.errors import UserError
from blindspot.scenes import sampling
from blindspot.scenes.export import export
from blindspot.scenes.render import render
from blindspot.scenes.world import CANVAS, HELD_OUT, Scene, Thing

datasets = pytest.importorskip("datasets")


@pytest.fixture(scope="module", params=[False, True], ids=["parquet", "png"])
def tested(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    out = tmp_path_factory.mktemp("export") / "new" / "scenes"
    export(out, 140, "test", 3, png=request.param)
    return out


def _load(out: Path, split: str) -> Any:
    return datasets.load_dataset(str(out), split=split, cache_dir=str(out.parent / "cache"))


def _scene(row: dict) -> Scene:
    graph = json.loads(row["scene"])
    return Scene(tuple(Thing(**thing) for thing in graph["objects"]), graph["background"])


def test_it_loads_where_blindspot_is_not(tested: Path, tmp_path: Path) -> None:
    code = (
        "import json, sys\n"
        "sys.modules['blindspot'] = None\n"
        "from datasets import load_dataset\n"
        f"data = load_dataset({str(tested)!r}, split='test')\n"
        "row = data[0]\n"
        "question = row['questions'][0]\n"
        "print(json.dumps([len(data), row['image'].size, row['image'].format, sorted(json.loads(row['scene'])),\n"
        "      question['prompt'], question['answer'], json.loads(question['groups'])['split']]))\n"
    )
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=offline, capture_output=True, text=True, check=True)
    count, size, form, graph, prompt, answer, split = json.loads(done.stdout)
    assert 126 <= count <= 154
    assert (size, form, split) == ([CANVAS, CANVAS], "PNG", "iid")
    assert graph == ["background", "objects", "relations"]
    assert prompt and answer


def test_rows_are_the_test_questions_with_their_pictures(tested: Path) -> None:
    data = _load(tested, "test")
    scenes, questions = sampling.test_questions("iid", 10, 3)
    assert [row["questions"][0]["id"] for row in data] == [question.id for question in questions]
    for row, question in zip(data, questions, strict=True):
        scene = _scene(row)
        assert scene == scenes[question.images[0]]
        assert np.array_equal(np.asarray(row["image"]), render(scene))
        (asked,) = row["questions"]
        assert (asked["prompt"], asked["answer"]) == (question.prompt, question.answer)
        assert (asked["column"], asked["kind"]) == (question.benchmark, question.kind)
        assert tuple(asked["choices"]) == question.choices
        assert json.loads(asked["groups"]) == question.groups
    assert len(set(data["id"])) == len(data)


def test_the_card_counts_what_the_folder_holds(tested: Path) -> None:
    card = (tested / "README.md").read_text(encoding="utf-8")
    data = _load(tested, "test")
    counts = Counter((row["questions"][0]["column"], row["questions"][0]["task"]) for row in data)
    for (column, task), count in counts.items():
        assert f"| {column} | {task} | {count} |" in card
    for field in data.features:
        assert f"- `{field}`:" in card
    assert not list(tested.parent.glob(".*")), "a temporary folder is left"


def test_training_pictures_have_many_questions_and_nothing_held_out(tmp_path: Path) -> None:
    export(tmp_path / "train", 40, "train", 0)
    data = _load(tmp_path / "train", "train")
    assert len(data) == 40
    assert sum(len(row["questions"]) for row in data) > 200
    kinds = {(thing.colour, thing.shape) for row in data for thing in _scene(row).things}
    assert not kinds & HELD_OUT
    ids = [question["id"] for row in data for question in row["questions"]]
    assert len(set(ids)) == len(ids)


def test_compositional_pictures_and_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(tmp_path / "out", 40, "compositional", 0)
    data = _load(tmp_path / "out", "compositional")
    shown = [bool(HELD_OUT & {(thing.colour, thing.shape) for thing in _scene(row).things}) for row in data]
    assert sum(shown) > len(shown) / 2


def test_the_same_seed_is_the_same_data(tmp_path: Path) -> None:
    rows = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        export(tmp_path / name, 28, "iid", seed)
        rows.append([(row["scene"], row["questions"]) for row in _load(tmp_path / name, "test")])
    assert rows[0] == rows[1] != rows[2]


@pytest.mark.parametrize(
    ("out", "n", "split", "message"),
    [
        ("full", 10, "test", "full exists and is not an empty folder"),
        ("file", 10, "test", "file exists and is not an empty folder"),
        ("file/below", 10, "test", "cannot write"),
        ("/proc/scenes", 10, "test", "cannot write /proc/scenes"),
        ("new", 0, "test", "--n 0: should be at least 1"),
        ("new", 10, "dev", "--split dev: unknown; one of: train, test, compositional"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(tmp_path: Path, out: str, n: int, split: str, message: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError) as caught:
        export(tmp_path / out, n, split, 0)
    assert message in str(caught.value).replace(f"{tmp_path}/", "")
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, path: Path, **_: object) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datasets.Dataset, "to_parquet", full)
    with pytest.raises(UserError, match="No space left on device"):
        export(tmp_path / "out", 14, "test", 0)
    assert not list(tmp_path.iterdir())
