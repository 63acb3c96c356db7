"""Look at a whole data set before training on it: every row, and the header of every image."""

import os
import tempfile
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from blindspot.errors import UserError
from blindspot.files import write_json
from blindspot.training.llava.index import NO_OBJECT, LlavaRows, index_rows
from blindspot.training.llava.pictures import Finding
from blindspot.training.llava.report import Named, make_report
from blindspot.training.llava.survey import TEMPLATES, Measure, Measured, inspect_pictures, measure_rows, spread

ALONE = 20_000
"""Up to this many rows worker processes take longer to start than they save."""
_ROWS_A_JOB, _PICTURES_A_JOB = 2000, 500

Report = Callable[[str, int, int], None]


def check(
    json_path: Path,
    images: Path,
    out: Path | None = None,
    tokenizer: Path | None = None,
    template: str = "v1",
    max_length: int = 2048,
    image_tokens: int = 256,
    index: Path | None = None,
    workers: int | None = None,
    report: Report = lambda what, done, total: None,
) -> dict[str, Any]:
    """What is wrong with a data set in LLaVA's form, how long its rows are, and what batching them wastes.

    Each damage is listed once, with the rows that it touches: an image under its path, a row under its number, counted
    from 0. Rows listed under ``escaping``, ``missing``, ``broken`` and ``unlabelled`` cannot be trained on (`usable`);
    the others can: a row that is too long is cut, and LLaVA's own file has many ids twice.

    Args:
        json_path: an array of rows, or one row a line.
        images: the folder that image paths are relative to.
        out: where the report is written as JSON, when it is complete.
        tokenizer: a folder; without one, lengths are estimated from words, and reasons that need tokens are not found.
        template: ``v1`` or ``plain``.
        max_length: tokens that are kept of a row.
        image_tokens: that an image takes.
        index: a folder for the indexed rows (`index_rows`), kept for training; a temporary one if None.
        workers: processes; by default one per core, for large sets. More than one import the main module anew.
        report: told what is done, and how much of how much.

    Raises:
        UserError: if the file cannot be read or is no JSON, a folder is missing, or ``out`` cannot be written.
    """
    if template not in TEMPLATES:
        raise UserError(f"no template {template!r}; choose one of {', '.join(TEMPLATES)}")
    if not images.is_dir():
        raise UserError(f"no image folder at {images}")
    measure = Measure(tokenizer, template, max_length, image_tokens)
    with tempfile.TemporaryDirectory(prefix="blindspot-") as temporary:
        folder = index or Path(temporary)
        index_rows(json_path, folder, partial(report, "indexing"))
        rows = LlavaRows(folder, images)
        workers = workers or (1 if len(rows) <= ALONE else os.cpu_count() or 1)
        measured = _measured(rows, measure, workers, partial(report, "measuring rows"))
        named = _named(rows)
        found = _inspected(images, list(named.images), workers, partial(report, "looking at images"))
        result = make_report(rows, measure, measured, named, found)
    if out is not None:
        write_json(out, result)
    return result


def _measured(rows: LlavaRows, measure: Measure, workers: int, report: Callable[[int, int], None]) -> Measured:
    jobs = [range(start, min(start + _ROWS_A_JOB, len(rows))) for start in range(0, len(rows), _ROWS_A_JOB)]
    told = partial(_tell, report, _ROWS_A_JOB, len(rows))
    parts = list(spread(partial(measure_rows, measure, rows), jobs, workers, told))
    refused = [row for part in parts for row in part.refused]
    return Measured(np.concatenate([part.tokens_r for part in parts]), refused)


def _inspected(root: Path, names: list[str], workers: int, report: Callable[[int, int], None]) -> dict[str, Finding]:
    """What is wrong, for each image with which something is."""
    jobs = [names[start : start + _PICTURES_A_JOB] for start in range(0, len(names), _PICTURES_A_JOB)]
    told = partial(_tell, report, _PICTURES_A_JOB, len(names))
    findings = (found for part in spread(partial(inspect_pictures, root), jobs, workers, told) for found in part)
    return {name: found for name, found in zip(names, findings, strict=True) if found}


def _tell(report: Callable[[int, int], None], size: int, total: int, jobs: int) -> None:
    report(min(jobs * size, total), total)


def _named(rows: LlavaRows) -> Named:
    named = Named(defaultdict(list), defaultdict(list), [], [])
    columns = (rows.column(name) for name in ("id", "images", "problem"))
    for number, (identity, images, problem) in enumerate(zip(*columns, strict=True)):
        if identity is not None:
            named.ids[identity].append(number)
        elif problem != NO_OBJECT:
            named.without_id.append(number)
        paths = [_one_spelling(image) for image in images]
        for path in dict.fromkeys(paths):
            named.images[path].append(number)
            if paths.count(path) > 1:
                named.repeated.append((number, path))
    return named


def _one_spelling(name: str) -> str:
    """``./a//b.jpg`` as ``a/b.jpg``."""
    return str(PurePosixPath(name))
