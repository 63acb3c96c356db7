"""Several runs at a glance: models by columns, what a test cannot tell from the best, and samples of the answers."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Collection, Draw
from blindspot.benchmarks.own import own as own_benchmark
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.scoring import DEFAULT, borrows
from blindspot.benchmarks.sources.download import locate
from blindspot.errors import UserError
from blindspot.evaluation.paper import BASELINE, load
from blindspot.evaluation.run.folder import ANSWERS, PLACE
from blindspot.evaluation.scores.answers import ScoredRun, load_run
from blindspot.evaluation.scores.compare import difference, names_of, together
from blindspot.evaluation.scores.report import metric_row
from blindspot.evaluation.statistics import correct
from blindspot.files import read_jsonl, write_via
from blindspot.model.images import decode
from blindspot.text import clean, clean_json, data_uri, letters, rounded

MOST_SAMPLES = 200
"""Of a benchmark; a quarter of them is kept for what no model gets right."""
MOST_BYTES = 17 * 2**20
"""Of all samples as HTML holds them: a third of it text, the rest pictures."""
_PIXELS, _QUALITY = 256, 75
_LONGEST_PROMPT, _LONGEST_ANSWER = 1500, 400
Key = tuple[str, str]
"""Of a column: benchmark and metric."""
Cells = dict[Key, list[dict[str, Any] | None]]
"""By column what `metric_row` says of each run, None where the run has no such number."""


def glance(paths: Sequence[Path], data: Path, profile: str = DEFAULT) -> dict[str, Any]:
    """What a page about the runs of ``blindspot evaluate`` at ``paths`` shows.

    Args:
        data: the folder of benchmarks, for pictures; what is not there is said in a note.
        profile: the rules that answers are scored by.

    Returns:
        ``profile``; ``models`` (``name``, ``model``); ``columns``; ``samples`` by benchmark; ``notes``. A column has
        ``chance``, ``constant`` and ``constant_answer`` of the run with most questions, ``paper`` (printed cells by the
        paper's model), ``shortcuts`` (what rules score that do not read what is asked for) and ``cells``, one a run:
        `metric_row`, ``p_holm`` against the best, corrected over the column, and ``mark``: ``best``, ``tie`` if that
        does not tell the two apart, or None.
    """
    runs = [load_run(path, [profile]) for path in paths]
    names = names_of(runs)
    notes = [f"{name}: {note}" for name, run in zip(names, runs, strict=True) for note in run.notes]
    pair = cache(lambda a, b: together(runs[a], runs[b]))  # by their places
    for place, name in enumerate(names[1:], start=1):
        notes += [f"{name} against {names[0]}: {note}" for note in pair(0, place)[1]]
    lent: dict[str, list[str]] = {}
    for name in dict.fromkeys(name for run in runs for name in run.answers):
        if lender := borrows(profile, name):
            lent.setdefault(lender, []).append(name)
    notes += [f"{', '.join(own)}: not of {profile}; scored as {lender} does" for lender, own in lent.items()]
    cells = _cells(runs, profile)
    _mark(cells, pair, profile)
    paper, models = load(), [run.model for run in runs]
    own = [" ".join(each) for each in zip(names, models, strict=True)]
    rows = [one for one in paper.roles if one == BASELINE or any(letters(one) in letters(each) for each in own)]
    columns = []
    for key, there in cells.items():
        most = max((cell for cell in there if cell), key=lambda cell: cell["n"])
        shared = {name: most[name] for name in ("n", "scale", "most", "chance", "constant", "constant_answer")}
        printed = {model: cell for model in rows if (cell := paper.row(model).get(key))}
        rules = next((found for run in runs if (found := run.shortcuts(*key))), {})
        columns.append(
            {"benchmark": key[0], "metric": key[1], **shared, "shortcuts": rules, "paper": printed, "cells": there}
        )
    found = {
        "profile": profile,
        "models": [{"name": name, "model": model} for name, model in zip(names, models, strict=True)],
        "columns": columns,
        "notes": notes,
    }
    samples = _samples(runs, profile, data, notes)
    return clean_json(rounded(found)) | {"samples": samples}


def _cells(runs: Sequence[ScoredRun], profile: str) -> Cells:
    """The paper's columns, and of what it has no column for the score; of what is drawn, every task's.

    Benchmarks come in the paper's order.
    """
    known = [column.key for column in load().columns]
    wanted: dict[Key, None] = {}
    for run in runs:
        for name, answers in run.answers.items():
            score, *others = answers.metrics()
            wanted |= {(name, score.name): None} | {
                (name, one.name): None for one in others if (name, one.name) in known or run.shortcuts(name, one.name)
            }
    order = list(dict.fromkeys(name for name, _ in (*known, *wanted)))
    cells: Cells = {}
    for key in sorted(wanted, key=lambda key: order.index(key[0])):
        rows = [_cell(run, key, profile) for run in runs]
        if any(rows):
            cells[key] = rows
    return cells


def _cell(run: ScoredRun, key: Key, profile: str) -> dict[str, Any] | None:
    answers = run.answers.get(key[0])
    metric = next((one for one in answers.metrics() if one.name == key[1]), None) if answers else None
    row = metric_row(answers, profile, metric) if answers and metric else None
    return row | {"mark": None, "p_holm": None} if row and row["value"] is not None else None


def _mark(cells: Cells, pair: Callable[[int, int], tuple[Mapping[str, Any], list[str]]], profile: str) -> None:
    """Mark the best of each column, and those that a paired test on shared questions cannot tell from it.

    ``pair`` gives what two runs have `together`.
    """
    best_of: dict[Key, int] = {}
    for key, rows in cells.items():
        if sum(row is not None for row in rows) < 2:
            continue
        best_of[key] = max(range(len(rows)), key=lambda place: (rows[place] or {"value": -1.0})["value"])
        rows[best_of[key]]["mark"] = "best"  # pyright: ignore[reportOptionalSubscript]
    tests: list[dict[str, Any]] = []
    for best in sorted({*best_of.values()}):
        for other in range(len(next(iter(cells.values())))):
            shared = pair(best, other)[0] if other != best else {}
            for key in (
                key for key, place in best_of.items() if place == best and key[0] in shared and cells[key][other]
            ):
                a, b = shared[key[0]]
                if metric := next((one for one in a.metrics() if one.name == key[1]), None):
                    tests.append(difference(a, b, profile, metric) | {"key": key, "cell": cells[key][other]})
    correct(tests, lambda test: test["key"])
    for test in tests:
        if test["p"] is not None:
            level = "best" if test["a_value"] == test["b_value"] == test["cell"]["value"] else "tie"
            test["cell"] |= {"p_holm": test["p_holm"], "mark": None if test["significant"] else level}


def _samples(runs: Sequence[ScoredRun], profile: str, data: Path, notes: list[str]) -> list[dict[str, Any]]:
    """Of each benchmark some questions, with every run's answer: None where a run was not asked, or of other data."""
    found = []
    benchmarks = list(dict.fromkeys(name for run in runs for name in run.answers))
    for name in benchmarks:
        digests = [run.of(name).get("digest") for run in runs]
        digest = next((one for one, run in zip(digests, runs, strict=True) if name in run.answers), None)
        files = [run.path / name / ANSWERS for run in runs]
        asked = [name in run.answers and own == digest and file.is_file()
                 for run, own, file in zip(runs, digests, files, strict=True)]  # fmt: skip
        score_of: list[dict[str, float]] = [
            dict(zip(run.answers[name].row_of, run.answers[name].scores_q[profile]["score"].tolist(), strict=True))
            if there
            else {}
            for run, there in zip(runs, asked, strict=True)
        ]
        right_of = {
            own: tuple(scores[own] >= 1 if own in scores else None for scores in score_of)
            for own in dict.fromkeys(own for scores in score_of for own in scores)
        }
        chosen = _chosen(right_of)
        wanted = {*chosen}
        rows_of = [
            {own: row for row in read_jsonl(file) if (own := str(row.get("id"))) in wanted} if there else {}
            for file, there in zip(files, asked, strict=True)
        ]
        place = next((own for run in runs if (own := run.of(name).get(PLACE))), None)
        collection, why = _pictures(name, data, digest, place)
        notes += [f"{name}: no pictures, as {why}"] if why else []
        kinds = [{*pattern} - {None} for pattern in right_of.values()]
        told = {
            "name": clean(name),
            "questions": len(right_of),
            "differ": sum(len(kind) > 1 for kind in kinds),
            "wrong": sum(kind == {False} for kind in kinds),
        }
        found.append(told | _embedded(chosen, rows_of, score_of, collection, MOST_BYTES // len(benchmarks)))
    return found


def _chosen(right_of: Mapping[str, tuple[bool | None, ...]]) -> list[str]:
    """Questions on which runs differ first, each pattern of right and wrong in its turn; then what none gets right."""
    ids_of: dict[tuple[bool | None, ...], list[str]] = {}
    for own, pattern in right_of.items():
        ids_of.setdefault(pattern, []).append(own)

    def turns(wanted: Callable[[set[bool | None]], bool]) -> list[str]:
        held = (ids for pattern, ids in ids_of.items() if wanted({*pattern} - {None}))
        return [own for each in zip_longest(*held) for own in each if own is not None]

    differ, wrong, right = (turns(one) for one in (lambda p: len(p) > 1, lambda p: p == {False}, lambda p: p == {True}))
    kept = MOST_SAMPLES - min(len(wrong), MOST_SAMPLES // 4)
    return [*differ[:kept], *wrong, *right][:MOST_SAMPLES]


def _pictures(name: str, data: Path, digest: str | None, own: str | None = None) -> tuple[Collection | None, str]:
    """The benchmark as the runs were asked it, a user's ``own`` from its place, or why it cannot be had."""
    try:
        benchmark = BENCHMARKS.get(name) or (own_benchmark(Path(own)) if own else None)
        place = locate(benchmark, data) if benchmark else None
        if benchmark is None or place is None:
            return None, f"the benchmark is not found in {data}; say where it is with --data"
        collection = benchmark.read(place, Draw.of(digest or ""))
    except UserError as error:
        return None, str(error)
    return (collection, "") if collection.digest == digest else (None, f"{place} is not the data that was asked")


def keep_pictures(
    wanted: Mapping[Path, tuple[str, str, int]], data: Path, tell: Callable[[str], object], own: Mapping[str, str]
) -> list[str]:
    """Write pictures of benchmarks, small, to files.

    Args:
        wanted: by file the benchmark, the digest of the data that were asked, and the key of the picture.
        data: the folder of benchmarks.
        tell: told of every benchmark before it is read.
        own: where those of a user's own lie.

    Returns:
        Why benchmarks have no pictures.
    """
    keys_of: dict[tuple[str, str], dict[Path, int]] = {}
    for path, (name, digest, key) in wanted.items():
        keys_of.setdefault((name, digest), {})[path] = key
    notes = []
    for (name, digest), keys in keys_of.items():
        tell(name)
        collection, why = _pictures(name, data, digest, own.get(name))
        notes += [f"{name}: no pictures, as {why}"] if why else []
        for path, key in keys.items():
            if collection and (picture := _small(collection, key)):
                write_via(path, lambda temporary, picture=picture: temporary.write_bytes(picture))
    return notes


def _embedded(
    chosen: Sequence[str],
    rows_of: Sequence[Mapping[str, Mapping[str, Any]]],
    score_of: Sequence[Mapping[str, float]],
    collection: Collection | None,
    most_bytes: int,
) -> dict[str, Any]:
    """Samples, and the pictures that they name, each once, as far as the bytes reach."""
    keys_of = {one.id: one.images for one in collection.questions} if collection else {}
    samples: list[dict[str, Any]] = []
    pictures: dict[str, str] = {}
    text, drawn = most_bytes // 3, most_bytes - most_bytes // 3
    for own in chosen:
        rows = [rows.get(own) for rows in rows_of]
        first = next((row for row in rows if row), None)
        if first is None:
            continue
        gold, choices = first.get("answer"), first.get("choices") or {}
        option = choices.get(gold) if isinstance(choices, dict) and isinstance(gold, str) else None
        answers = [
            {"raw": _lines(str(row.get("raw")), _LONGEST_ANSWER), "score": round(scores[own], 4)} if row else None
            for row, scores in zip(rows, score_of, strict=True)
        ]
        sample = {
            "id": clean(own, 100),
            "prompt": _lines(str(first.get("prompt")), _LONGEST_PROMPT),
            "gold": clean(f"{gold} ({option})" if option else str(gold), 200),
            "answers": answers,
            "pictures": [str(key) for key in keys_of.get(own, ())],
        }
        written = json.dumps(sample)
        text -= len(written) + 5 * sum(map(written.count, "<>&'"))  # which HTML holds as \u003c
        if text < 0:
            break
        for key in keys_of.get(own, ()):
            if drawn > 0 and str(key) not in pictures and collection and (picture := _small(collection, key)):
                uri = data_uri(picture, "image/jpeg")
                drawn -= len(uri)
                pictures |= {str(key): uri} if drawn >= 0 else {}
        samples.append(sample)
    return {"samples": samples, "pictures": pictures}


def _small(collection: Collection, key: int) -> bytes | None:
    """A picture as JPEG in few bytes; None if it is broken, which the run has told."""
    try:
        picture = decode(io.BytesIO(collection.images.read(key)), "the picture")
    except UserError:
        return None
    picture.thumbnail((_PIXELS, _PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def _lines(text: str, limit: int) -> str:
    """A text that is safe to show, with its line breaks."""
    return "\n".join(map(clean, (text if len(text) <= limit else f"{text[: limit - 1]}…").split("\n")))
