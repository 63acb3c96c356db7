"""Solids as rows of a data set: pictures with depth, ids, boxes, captions, scene graphs and questions in English."""

import io
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from blindspot.scenes.solid import registry, rules
from blindspot.scenes.solid.cast import GROUND, render
from blindspot.scenes.solid.tasks import SolidExample, SolidTask
from blindspot.scenes.solid.world import Shot

IMAGES = ("images", "depth", "ids")
MILLI, NO_GROUND = 1000, 255
_POINTS = ("south", "south-east", "east", "north-east", "north", "north-west", "west", "south-west")
FIELDS = """## Fields

- `id`: names the row: a question with its pictures.
- `images`: PNG, one or several, in the order that the question means.
- `depth`: of each picture a PNG of 16 bits: depth along the camera's axis in thousandths; 65535 is the sky.
- `ids`: of each a PNG of 8 bits: 0 the ground, 255 the sky, else the number of the object in `scene`, from 1.
- `boxes`: of each a list of `[x0, y0, x1, y1]`, one an object: what is seen of it, in pixels; zeros where nothing is.
- `captions`: what each shows, in a sentence.
- `scene`: JSON, a list with a graph of each picture. Each of `objects` has `colour`, `shape`, its centre (`x` east, `y`
  north, `height`; the ground is 0), `radius`, `heading` (degrees, counter-clockwise from east), whether a dark `nose`
  shows its front, and what is `seen` of it: `u`, `v`, `size` and the foot in half pictures from the middle (right and
  down), `x` and `y` in the camera's frame, `depth`, `facing` (relative to the line of sight; 90 is to the left).
- `questions`: a list of one: `id`, `column`, `task`, `kind`, `prompt`, `answer`, `choices`, and `groups` (JSON), where
  `cluster` names twins, which are right only together.
"""


def rows(world: str, n: int, seed: int, cue: str, size: int) -> Iterator[dict[str, Any]]:
    """About ``n`` pictures of a world, row by row."""
    asked = registry.asked(world, cue, "leave it out")
    each = max(1, round(n / sum(column.frames for _, column in asked.values())))
    for name, (task, _) in asked.items():
        for place, cluster in enumerate(rules.questions(task, each, f"{world}/{seed}", cue)):
            for step, example in enumerate(cluster):
                group = {"cluster": f"{name}/{place}", "cue": cue}
                yield _row(f"{world}/{seed}/{name}/{place}/{step}", task, example, group, size)


def caption(shot: Shot) -> str:
    """What a picture shows, in a sentence."""
    names = [f"a {own.name.removeprefix('the ')}" for own in shot.scene.solids]
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    side = _POINTS[round(shot.camera.azimuth / 45) % 8]
    return f"{listed} on a grey ground, seen from the {side}, {shot.camera.elevation:g} degrees from above"


def _row(name: str, task: SolidTask, example: SolidExample, groups: dict[str, str], size: int) -> dict[str, Any]:
    picture = render(example.shots, size)
    depth, ids = picture.depth[:, ::2, ::2], picture.ids[:, ::2, ::2]
    milli = np.where(np.isfinite(depth), np.minimum(depth * MILLI, 65534), 65535).astype(np.uint16)
    known = np.where(ids >= GROUND, ids + 1, NO_GROUND).astype(np.uint8)
    prompt, choices = task.in_english(example)
    said = dict(zip(example.turn.choices, choices, strict=True)).get(example.turn.answer, example.turn.answer)
    question = {"id": name, "column": task.name, "task": task.name, "kind": task.kind, "prompt": prompt}
    return {
        "id": name,
        "images": list(map(_png, picture.rgb)),
        "depth": list(map(_png, milli)),
        "ids": list(map(_png, known)),
        "boxes": [_boxes(own, len(shot.scene.solids)) for own, shot in zip(known, example.shots, strict=True)],
        "captions": list(map(caption, example.shots)),
        "scene": json.dumps([shot.graph() for shot in example.shots]),
        "questions": [question | {"answer": said, "choices": list(choices), "groups": json.dumps(groups)}],
    }


def _boxes(ids: np.ndarray, count: int) -> list[list[int]]:
    found = []
    for place in range(1, count + 1):
        y, x = np.nonzero(ids == place)
        found.append([int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1] if len(x) else [0, 0, 0, 0])
    return found


def _png(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}
