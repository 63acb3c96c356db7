"""Scenes as a Hugging Face ``datasets`` folder that needs no Blindspot to be read."""

import io
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

from PIL import Image

from blindspot.errors import UserError
from blindspot.files import new_folder
from blindspot.question import Question
from blindspot.scenes.render import render
from blindspot.scenes.sampling import TURNS, TrainingWorld, test_questions
from blindspot.scenes.tasks import TASKS
from blindspot.scenes.world import CANVAS, HELD_OUT, Scene, Split

ExportSplit = Literal["train", "test", "compositional"]


def export(out: Path, n: int, split: str, seed: int, png: bool = False) -> None:
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
    """
    name = "test" if split == "iid" else split
    if name not in get_args(ExportSplit):
        raise UserError(f"--split {split}: unknown; one of: {', '.join(get_args(ExportSplit))}")
    if n < 1:
        raise UserError(f"--n {n}: should be at least 1")
    drawn = _training(n, seed) if name == "train" else _test("iid" if name == "test" else "compositional", n, seed)
    with new_folder(out, "choose another OUT") as folder:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UserError(f"{out} exists and is not an empty folder; choose another OUT")
        rows = [_row(f"{name}/{seed}/{image}", scene, asked) for image, (scene, asked) in enumerate(drawn)]
        (folder / "README.md").write_text(_card(rows, name, seed), encoding="utf-8")
        (folder / name).mkdir()
        if not png:
            _write_parquet(rows, folder / name / "scenes.parquet")
            return
        with open(folder / name / "metadata.jsonl", "w", encoding="utf-8") as lines:
            for number, row in enumerate(rows):
                file_name = f"{number:07}.png"
                (folder / name / file_name).write_bytes(row.pop("image")["bytes"])
                lines.write(json.dumps({"file_name": file_name, **row}) + "\n")


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


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> None:
    import datasets

    text = datasets.Value("string")
    question = {key: text for key in ("id", "column", "task", "kind", "prompt", "answer", "groups")}
    features = datasets.Features(
        {
            "id": text,
            "image": datasets.Image(),
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


def _card(rows: list[dict[str, Any]], split: str, seed: int) -> str:
    """What the folder holds, as a dataset card."""
    asked = Counter((question["column"], question["task"]) for row in rows for question in row["questions"])
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

{len(rows)} drawn pictures of coloured shapes, each with its scene graph and questions about it. Written by
`blindspot scenes`.

## Load

```python
import json
from datasets import load_dataset

data = load_dataset("path/to/this/folder", split="{split}")
row = data[0]
row["image"]                 # a PIL image, {CANVAS} x {CANVAS} pixels
json.loads(row["scene"])     # the scene graph
row["questions"][0]["prompt"], row["questions"][0]["answer"]
```

Nothing but `datasets` and `pillow` is needed.

{_FIELDS}
## Questions

| column | task | questions |
|---|---|---|
{table}
"""
