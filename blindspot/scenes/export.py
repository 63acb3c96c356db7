"""Scenes as a Hugging Face ``datasets`` folder that needs no Blindspot to be read."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from blindspot.errors import UserError, one_of
from blindspot.files import new_folder
from blindspot.question import Question
from blindspot.scenes.render import render
from blindspot.scenes.sampling import TURNS, TrainingWorld, test_questions
from blindspot.scenes.solid.registry import WORLDS
from blindspot.scenes.tasks import TASKS
from blindspot.scenes.world import CANVAS, HELD_OUT, Scene, Split

ExportSplit = Literal["train", "test", "compositional"]
ROWS = 256
"""In a file of a world with depth."""


def export(
    out: Path,
    n: int,
    split: str,
    seed: int,
    png: bool = False,
    world: str = "flat",
    cue: str = "shadow",
    size: int = 448,
) -> None:
    """Write about ``n`` pictures with their scene graphs and questions to the folder ``out``.

    The folder appears when it is complete; ``datasets.load_dataset(out)`` reads it. Its ``README.md`` says what every
    field is.

    Args:
        out: a folder that is absent or empty.
        n: number of pictures. A test split has one question a picture, spread evenly over its columns.
        split: ``train``, ``test`` (alias ``iid``) or ``compositional``.
        seed: a different seed is different data. Unlike in a study, a test is not compared with training scenes; that
            two are alike happens about once in 50,000 test scenes.
        png: every picture is a file of its own, beside a ``metadata.jsonl``, instead of all in one Parquet file.
        world: ``flat``, ``solid`` or ``motion``; the two with depth have a test split, in Parquet files.
        cue: what tells depth in them.
        size: pixels along a side of their pictures.
    """
    one_of(world, ("flat", *WORLDS), "--world", "world")
    name = "test" if split == "iid" else split
    if name not in get_args(ExportSplit):
        raise UserError(f"--split {split}: unknown; one of: {', '.join(get_args(ExportSplit))}")
    if n < 1:
        raise UserError(f"--n {n}: should be at least 1")
    if world != "flat" and (name != "test" or png):
        raise UserError(f"--world {world} has a test split alone, in Parquet files; leave out --split and --png")
    with new_folder(out, "choose another OUT") as folder:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} exists and is not an empty folder; choose another OUT")
        (folder / name).mkdir()
        if world != "flat":
            return _write_solids(folder, world, n, seed, cue, size)
        drawn = _training(n, seed) if name == "train" else _test("iid" if name == "test" else "compositional", n, seed)
        rows = [_row(f"{name}/{seed}/{image}", scene, asked) for image, (scene, asked) in enumerate(drawn)]
        card = _card(_asked(rows), len(rows), name, seed, "coloured shapes", "image", _FIELDS)
        (folder / "README.md").write_text(card, encoding="utf-8")
        if not png:
            _write_parquet(rows, folder / name / "scenes.parquet")
            return
        with open(folder / name / "metadata.jsonl", "w", encoding="utf-8") as lines:
            for number, row in enumerate(rows):
                file_name = f"{number:07}.png"
                (folder / name / file_name).write_bytes(row.pop("image")["bytes"])
                lines.write(json.dumps({"file_name": file_name, **row}) + "\n")


def _write_solids(folder: Path, world: str, n: int, seed: int, cue: str, size: int) -> None:
    """A file for every few rows, so that memory does not grow with their number."""
    from blindspot.scenes.solid.export import FIELDS, IMAGES, rows

    drawn, asked = rows(world, n, seed, cue, size), Counter()
    for number in count():
        if not (some := list(islice(drawn, ROWS))):
            break
        asked += _asked(some)
        _write_parquet(some, folder / "test" / f"scenes-{number:05}.parquet", IMAGES)
    about = f"solids on a ground ({world}, {size} x {size} pixels, cue: {cue}), in rows of one question"
    card = _card(asked, asked.total(), "test", seed, about, "images", FIELDS)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _asked(rows: Iterable[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """How many questions there are by column and task."""
    return Counter((question["column"], question["task"]) for row in rows for question in row["questions"])


def _training(n: int, seed: int) -> Iterator[tuple[Scene, list[Question]]]:
    world = TrainingWorld(seed, TURNS)
    for image in range(n):
        scene, asked = world.draw()
        questions = []
        for number, (task, turn) in enumerate(asked):
            own, groups = f"{task.name}/train/{image}/{number}", {"task": task.name, "split": "train", **turn.groups}
            questions.append(
                Question(own, task.column, task.kind, turn.prompt, turn.answer, turn.choices, groups=groups)
            )
        yield scene, questions


def _test(split: Split, n: int, seed: int) -> list[tuple[Scene, list[Question]]]:
    columns = {task.column for task in TASKS if split in task.splits}
    scenes, questions = test_questions(split, max(1, round(n / len(columns))), seed)
    return [(scenes[question.images[0]], [question]) for question in questions]


def _write_parquet(rows: list[dict[str, Any]], path: Path, images: tuple[str, ...] = ()) -> None:
    import datasets

    text = datasets.Value("string")
    question = {key: text for key in ("id", "column", "task", "kind", "prompt", "answer", "groups")}
    more = {name: datasets.List(datasets.Image()) for name in images} | {
        "boxes": datasets.List(datasets.List(datasets.List(datasets.Value("int32")))),
        "captions": datasets.List(text),
    }
    features = datasets.Features(
        {
            "id": text,
            **(more if images else {"image": datasets.Image()}),
            "scene": text,
            "questions": datasets.List({**question, "choices": datasets.List(text)}),
        }
    )
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_list(rows, features=features).to_parquet(path)
    finally:
        if shown:
            datasets.enable_progress_bars()


def _row(name: str, scene: Scene, questions: list[Question]) -> dict[str, Any]:
    png = io.BytesIO()
    Image.fromarray(render(scene)).save(png, "PNG")
    return {
        "id": name,
        "image": {"bytes": png.getvalue(), "path": None},
        "scene": json.dumps(scene.graph()),
        "questions": [
            {
                "id": question.id,
                "column": question.benchmark,
                "task": question.groups["task"],
                "kind": question.kind,
                "prompt": question.prompt,
                "answer": question.answer,
                "choices": list(question.choices),
                "groups": json.dumps(question.groups),
            }
            for question in questions
        ],
    }


_KINDS_HELD_OUT = ", ".join(f"{colour} {shape}" for colour, shape in sorted(HELD_OUT))
_FIELDS = f"""## Fields

- `id`: names the picture.
- `image`: PNG, {CANVAS} x {CANVAS} pixels.
- `scene`: JSON. `background` is its grey level. Each of `objects` has `colour`, `shape`, the `row` and `column` of its
  cell (from 0, top left), and its box in pixels: `x`, `y` (top left corner) and `size`. `relations` lists
  `[subject, relation, object]` by index. One object is left of another if their columns differ by more than their
  rows; likewise above; an exact diagonal has no relation and is never asked about.
- `questions`: a list, one in a test split.
  - `id`: names the question.
  - `column`: the benchmark that the question is a miniature of; `task`: the template.
  - `kind`: how the answer reads: `choice`, `yes_no`, `count`, `text` or `boxes` (`x0 y0 x1 y1` in pixels).
  - `prompt`, `answer`: words separated by single spaces.
  - `choices`: the allowed answers when they are few and fixed, else empty.
  - `groups`: JSON, labels to report by. `cluster` names questions that belong together (minimal pairs: both must be
    right). Where `balanced` is true, the place, colour or shape of a single object says little.

The answers of every task of a test split come equally often. The splits `train` and `test` never show a
{_KINDS_HELD_OUT}; in the split `compositional` these are what is asked about.
"""


def _card(
    asked: Counter[tuple[str, str]], rows: int, split: str, seed: int, about: str, image: str, fields: str
) -> str:
    """What the folder holds, as a dataset card."""
    table = "\n".join(f"| {column} | {task} | {count} |" for (column, task), count in sorted(asked.items()))
    return f"""---
license: apache-2.0
task_categories:
- visual-question-answering
tags:
- spatial-reasoning
- synthetic
configs:
- config_name: default
  data_files:
  - split: {split}
    path: {split}/*
---

# Scenes: {split}, seed {seed}

{rows} drawn pictures of {about}, each with its scene graph and questions about it. Written by
`blindspot scenes`.

## Load

```python
import json
from datasets import load_dataset

data = load_dataset("path/to/this/folder", split="{split}")
row = data[0]
row["{image}"]{" " * (17 - len(image))}    # a PIL image, or a list of them
json.loads(row["scene"])     # the scene graph
row["questions"][0]["prompt"], row["questions"][0]["answer"]
```

Nothing but `datasets` and `pillow` is needed.

{fields}
## Questions

| column | task | questions |
|---|---|---|
{table}
"""
