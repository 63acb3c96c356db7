"""TopViewRS: where things are on top-view maps of rooms, photographed or drawn by class; four options.

Groups: ``task``, ``subtask``, ``map`` (realistic, semantic), as far as the form says them; ``cluster`` (the map).

There is no script: for the rule ``official`` the option is read as VLMEvalKit does, and partial match compares it with
the gold one. VLMEvalKit takes the letter for partial match from its log line, which repeats the answer: what stands
between the first pair of square brackets, else the last word, full stops dropped.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, Wording, by, slug
from blindspot.benchmarks.rules import LIKELIHOOD, NOT_FOUND, OFFICIAL, Item, Scored, both, likeliest, option
from blindspot.benchmarks.sources.forms import read_rows, tsv, with_pictures
from blindspot.question import Question

TASKS = {
    "top_view_recognition": ("object_recognition", "scene_recognition"),
    "top_view_localization": ("object_localization", "scene_localization"),
    "static_spatial_reasoning": ("scene_counting", "relative_spatial_relations"),
    "dynamic_spatial_reasoning": (
        "dynamic_action_counting",
        "dynamic_relative_spatial_reasoning",
        "dynamic_spatial_localization",
    ),
}
MAPS = ("realistic", "semantic")
ROWS = "released_{}_datasets.json"

_TASK_OF = {name: task for task, subtasks in TASKS.items() for name in (task, *subtasks)}


def _original(paths: Sequence[Path]) -> Table:
    """Both files, the authors' realistic one first."""
    folder = paths[0].parent
    rows: list[dict[str, Any]] = []
    for kind in MAPS:
        if (path := folder / ROWS.format(kind)).is_file():
            rows += read_rows(
                path,
                lambda value, kind=kind: [
                    {"task": task, "map": kind, **row} for task, part in value.items() for row in part
                ],
            )
    return with_pictures(
        folder / ROWS.format("*"),
        rows,
        lambda row: row.get("map_path") or row.get("image_path"),
        "unpack data.zip of chengzu/topviewrs beside it",
    )


def _question(row: Row) -> Question:
    if "labels" not in row.cells:  # VLMEvalKit's TSV
        identifier, options, gold = row.text("index"), row.lettered(), row.letter("answer")
        said = ("category", "l2-category", "task", "split")
    else:
        identifier, options, labels = str(row.number), tuple(row.strings("choices")), row.strings("labels")
        if len(labels) != 1 or labels[0] not in options:
            raise row.error(f"labels {labels} are not one of the choices {list(options)}")
        gold = chr(ord("A") + options.index(labels[0]))
        said = ("question_ability", "subtask", "task", "map")
    groups: dict[str, Any] = {}
    for label in [slug(label) for name in said if (label := row.find(name))]:
        if label in _TASK_OF:
            groups.setdefault("task", _TASK_OF[label])
            if label not in TASKS:
                groups.setdefault("subtask", label)
        elif label in MAPS:
            groups.setdefault("map", label)
    groups["cluster"] = row.cluster
    return Question(identifier, "topviewrs", "mcq", row.asked, gold, options, row.images, groups)


def _vlmevalkit(item: Item, said: bool) -> Scored:
    letter, raw = option(item.raw, item.choices, said), item.raw
    if "[" in raw and "]" in raw:
        logged = raw[raw.index("[") + 1 : raw.index("]")]
    else:
        logged = (raw.rstrip(". ").rsplit(maxsplit=1) or [""])[-1]
    match = _match(item, logged) if letter else 0.0
    return Scored(letter or NOT_FOUND, float(letter == item.gold), letter in item.choices, partial=match)


def _official(item: Item) -> Scored:
    letter = option(item.raw, item.choices)
    if letter is None or letter not in item.choices:
        return Scored(None, 0.0, False, partial=0.0)
    return Scored(letter, float(letter == item.gold), True, partial=_match(item, letter))


def _likeliest(item: Item) -> Scored:
    found = likeliest(item)
    return replace(found, partial=_match(item, str(found.extracted)))


def _match(item: Item, letter: str) -> float:
    """Words that an option has in common with the gold one by the larger number of words, whatever their case."""
    if letter not in item.choices:
        return 0.0
    a, b = (set(item.choices[each].lower().split()) for each in (letter, item.gold))
    return len(a & b) / max(len(a), len(b), 1)


TOPVIEWRS = Benchmark(
    name="topviewrs",
    title="TopViewRS",
    licence="MIT",
    citation="Li et al., TopViewRS, EMNLP 2024, arxiv.org/abs/2406.02537",
    sources=(
        tsv("TopViewRS.tsv", "5669bc122457979dd2ac3b69b5dc1622", {"questions": 11384}, _question),
        Source(
            "original",
            _original,
            _question,
            "chengzu/topviewrs",
            files=("released_*_datasets.json", "data.zip"),
            counts={"questions": 11384, "map=realistic": 5539, "map=semantic": 5845},
            marks=(ROWS.format("realistic"), ROWS.format("semantic")),
            page="data.zip must be unpacked beside the two JSON files",
            notes=(
                "the authors' files were not at hand when this reader was written; their field names are unverified",
            ),
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), 0.25),
        Metric("partial_match", (Term(value="partial"),), None),
        *by("map", MAPS, 0.25),
        *by("task", TASKS, 0.25),
        *(Metric(f"subtask/{name}", (Term({"subtask": name}),), 0.25) for names in TASKS.values() for name in names),
    ),
    kinds={"mcq": "mcq"},
    rules={**both(_vlmevalkit), OFFICIAL: _official, LIKELIHOOD: _likeliest},
    vlmevalkit="TopViewRS",
    wording=Wording(lettered=True),
)
