"""Look at a whole data set before training on it: every row, and the header of every image."""

import multiprocessing
import os
import signal
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np
from rich.table import Table
from rich.text import Text

from blindspot.errors import UserError
from blindspot.files import write_json
from blindspot.model.conversation import RowError, plain, v1
from blindspot.model.encoding import encode, token_ids
from blindspot.model.tokenizer import END
from blindspot.training.llava.index import NO_OBJECT, LlavaRows, index_rows
from blindspot.training.llava.pictures import Finding, inspect_picture
from blindspot.training.order import llava_order, packed_share, padded_share

ALONE = 20_000
"""Up to this many rows worker processes take longer to start than they save."""
TEMPLATES = ("v1", "plain")
TOKENS_PER_WORD = 1.3
UNMEASURED = 0
_ROWS_A_JOB, _PICTURES_A_JOB = 2000, 500

PUBLISHED_BATCH = {"plain": 32, "v1": 16}
PUBLISHED_RANKS = 8
"""LLaVA's rows a device and devices, for which padding is computed."""
PACKED_ROWS = 2
"""A pack holds this many of the longest rows."""
SEED = 42
BINS = 16

MEANING = {
    "escaping": "image paths that leave the folder",
    "missing": "missing images",
    "broken": "broken images",
    "unlabelled": "rows that cannot be labelled",
    "over_long": "rows that are too long, to be cut",
    "misnamed": "images of another format than named",
    "duplicate_ids": "ids of several rows",
    "without_id": "rows without an id",
    "repeated_images": "rows that name an image twice",
}

Report = Callable[[str, int, int], None]
Item = TypeVar("Item")
Result = TypeVar("Result")


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
        tokens_r, refused = np.empty(len(rows), np.int32), dict[int, str]()
        told = partial(report, "measuring rows")
        for number, (tokens, why) in enumerate(
            _spread(partial(measure, rows), range(len(rows)), _ROWS_A_JOB, workers, told)
        ):
            tokens_r[number] = tokens
            if why is not None:
                refused[number] = why
        named = _named(rows)
        names, told = list(named.images), partial(report, "looking at images")
        findings = _spread(partial(inspect_picture, images), names, _PICTURES_A_JOB, workers, told)
        found = {name: finding for name, finding in zip(names, findings, strict=True) if finding}
        result = _report(rows, measure, tokens_r, refused, named, found)
    if out is not None:
        write_json(out, result)
    return result


def usable(report: Mapping[str, Any]) -> np.ndarray:
    """The numbers of the rows that no fault of a report touches, ascending: those to train on."""
    touched = _rows(entry for entries in report["faults"].values() for entry in entries)
    return np.setdiff1d(np.arange(report["rows"]), np.array(sorted(touched), np.int64))


def as_table(report: Mapping[str, Any]) -> Table:
    """The report for a terminal: kinds of damage with an example each, then lengths and padding."""
    table = Table("", "found", "rows", "for example", title=f"{report['usable_rows']:,} of {report['rows']:,} rows fit")
    for column in table.columns[1:3]:
        column.justify = "right"
    for kinds, style in ((report["faults"], "red"), (report["notes"], "yellow")):
        for kind, entries in kinds.items():
            count, touched = f"{len(entries):,}", f"{len(_rows(entries)):,}"
            table.add_row(Text(MEANING[kind]), Text(count, style if entries else "dim"), touched, _example(entries))
        table.add_section()
    if report["padding"]:
        lengths, padding = report["lengths"], report["padding"]
        span = f"mean {lengths['mean']:,}, median {lengths['median']:,}, longest {lengths['longest']:,}"
        table.add_row(f"length in {lengths['unit']}", "", f"{report['usable_rows']:,}", span)
        ways = {
            "random": f"random batches of {padding['rows_a_device']}",
            "llava": f"LLaVA's grouping, {padding['devices']} x {padding['rows_a_device']}",
            "packed": f"packs of {padding['pack_tokens']:,} tokens at most",
        }
        for way, meaning in ways.items():
            table.add_row("share of padding", f"{padding['shares'][way]:.1%}", "", meaning)
    return table


def _example(entries: list[dict[str, Any]]) -> Text:
    """The first entry in words; characters that would steer the terminal are replaced."""
    if not entries:
        return Text("")
    entry = entries[0]
    rows = [entry["row"]] if "row" in entry else entry["rows"]
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    subject = entry.get("image") or entry.get("why") or entry.get("id") or ""
    if "tokens" in entry:
        subject = f"{entry['tokens']:,} tokens"
    words = f"row {rows[0]}{more}: {subject}".rstrip(": ")
    return Text("".join(letter if letter.isprintable() else "?" for letter in words))


def _rows(entries: Iterable[Mapping[str, Any]]) -> set[int]:
    """The rows that entries are about."""
    return {row for entry in entries for row in (entry["rows"] if "rows" in entry else [entry["row"]])}


@dataclass(frozen=True)
class Measure:
    """How rows become tokens.

    Attributes:
        tokenizer: its folder; without one, a word counts as `TOKENS_PER_WORD` tokens.
        template: a name of `TEMPLATES`.
        max_length: the most tokens that are kept of a row.
        image_tokens: that an image takes.
    """

    tokenizer: Path | None
    template: str
    max_length: int
    image_tokens: int

    def __call__(self, rows: LlavaRows, number: int) -> tuple[int, str | None]:
        """Tokens of a row before it is cut, `UNMEASURED` if that cannot be said, and why it cannot be trained on."""
        tokens = UNMEASURED
        try:
            messages = rows[number].messages
            tokenizer = self.tokenizer and _tokenizer(self.tokenizer)
            end = tokenizer.eos_token if tokenizer else END
            spans = v1(messages, end=end) if self.template == "v1" else plain(messages)
            pictures = [self.image_tokens] * sum(span.picture for span in spans)
            if tokenizer is None:
                words = sum(len(span.text.split()) for span in spans if not span.picture)
                return round(words * TOKENS_PER_WORD) + sum(pictures), None
            ids, supervised = token_ids(spans, tokenizer, pictures)
            tokens = len(ids)
            if tokens > self.max_length or not any(supervised):
                encode(spans, tokenizer, pictures, self.max_length)  # for what it refuses
        except RowError as error:
            return tokens, str(error)
        return tokens, None


@cache
def _tokenizer(folder: Path) -> Any:
    from blindspot.model.formats.llava import read_tokenizer  # takes torch along

    try:
        return read_tokenizer(folder)
    except UserError as error:
        raise UserError(f"cannot use the tokenizer in {folder}: {error}") from error


def _spread(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    size: int,
    workers: int,
    report: Callable[[int, int], None],
) -> Iterator[Result]:
    """The results of ``work`` for each item, in order, by ``workers`` processes; by this one if it is 1.

    Args:
        work: what to do. With more than one worker it must be importable, and so must the main module.
        items: what to do it with.
        size: items of a job.
        workers: how many processes.
        report: told how many items of how many are done.
    """
    jobs, done = [items[start : start + size] for start in range(0, len(items), size)], 0
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of tokenizers' and torch's threads
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the parent's to see to
    pool = None if workers == 1 else ProcessPoolExecutor(workers, context, initializer=ignore)
    try:
        for results in (pool.map if pool else map)(partial(_each, work), jobs):
            yield from results
            done += len(results)
            report(done, len(items))
    except BrokenProcessPool as error:
        raise UserError("a worker process died, perhaps for want of memory; use fewer workers") from error
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def _each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    return [work(item) for item in items]


class Named(NamedTuple):
    """Which rows use what: images by path, and ids."""

    images: dict[str, list[int]]
    ids: dict[str, list[int]]
    without_id: list[int]
    repeated: list[tuple[int, str]]


def _named(rows: LlavaRows) -> Named:
    named = Named(defaultdict(list), defaultdict(list), [], [])
    columns = (rows.column(name) for name in ("id", "images", "problem"))
    for number, (identity, images, problem) in enumerate(zip(*columns, strict=True)):
        if identity is not None:
            named.ids[identity].append(number)
        elif problem != NO_OBJECT:
            named.without_id.append(number)
        paths = [str(PurePosixPath(image)) for image in images]  # one spelling
        for path in dict.fromkeys(paths):
            named.images[path].append(number)
            if paths.count(path) > 1:
                named.repeated.append((number, path))
    return named


def _report(
    rows: LlavaRows,
    measure: Measure,
    tokens_r: np.ndarray,
    refused: Mapping[int, str],
    named: Named,
    found: Mapping[str, Finding],
) -> dict[str, Any]:
    """What `check` returns, of values that JSON has.

    ``faults`` make a row useless, ``notes`` do not. Both hold entries by kind, each with its ``row`` or ``rows``.
    """
    images: dict[str, list[dict[str, Any]]] = {"escaping": [], "missing": [], "broken": [], "misnamed": []}
    for name, finding in found.items():
        images[finding.fault].append({"image": name, "why": finding.why, "rows": named.images[name]})
    misnamed = images.pop("misnamed")
    over_long = np.flatnonzero(tokens_r > measure.max_length).tolist()
    wanted = {*refused, *over_long}
    id_of = {row: name for name, used in named.ids.items() for row in used if row in wanted}
    lengths = rows.lengths()
    report: dict[str, Any] = {
        "source": rows.source._asdict(),
        "images_root": str(rows.images_root),
        "rows": len(rows),
        "rows_with_images": int((lengths.pictures_r > 0).sum()),
        "images": len(named.images),
        "faults": {
            **images,
            "unlabelled": [{"row": row, "id": id_of.get(row), "why": why} for row, why in refused.items()],
        },
        "notes": {
            "over_long": [{"row": row, "id": id_of.get(row), "tokens": int(tokens_r[row])} for row in over_long],
            "misnamed": misnamed,
            "duplicate_ids": [{"id": name, "rows": used} for name, used in named.ids.items() if len(used) > 1],
            "without_id": [{"row": row} for row in named.without_id],
            "repeated_images": [{"row": row, "image": name} for row, name in named.repeated],
        },
    }
    good_r = usable(report)
    tokens_r, words_r, pictures_r = tokens_r[good_r], lengths.words_r[good_r], lengths.pictures_r[good_r]
    report["usable_rows"] = len(good_r)
    report["lengths"] = _lengths(tokens_r, measure) if len(good_r) else None
    report["padding"] = _padding(tokens_r, words_r, pictures_r > 0, measure) if len(good_r) else None
    return report


def _lengths(tokens_r: np.ndarray, measure: Measure) -> dict[str, Any]:
    """Statistics of rows before they are cut."""
    edges = np.linspace(0, measure.max_length, BINS + 1).astype(int)
    counts = np.histogram(tokens_r[tokens_r <= measure.max_length], bins=edges + 0.5)[0]
    bins = [
        {"from": low + 1, "to": high, "rows": rows}
        for low, high, rows in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    ]
    beyond = int((tokens_r > measure.max_length).sum())
    return {
        "unit": "tokens" if measure.tokenizer else f"tokens (estimate: words x {TOKENS_PER_WORD})",
        "estimated": measure.tokenizer is None,
        "tokenizer": str(measure.tokenizer) if measure.tokenizer else None,
        "template": measure.template,
        "image_tokens": measure.image_tokens,
        "max_length": measure.max_length,
        "total": int(tokens_r.sum()),
        "total_kept": int(tokens_r.clip(max=measure.max_length).sum()),
        "mean": round(float(tokens_r.mean()), 1),
        "median": int(np.median(tokens_r)),
        "longest": int(tokens_r.max()),
        "histogram": [*bins, {"from": measure.max_length + 1, "to": None, "rows": beyond}],
    }


def _padding(tokens_r: np.ndarray, words_r: np.ndarray, pictured_r: np.ndarray, measure: Measure) -> dict[str, Any]:
    """The share of padding in what a device computes, for LLaVA's batch."""
    kept_r = tokens_r.clip(max=measure.max_length)
    batch, ranks, capacity = PUBLISHED_BATCH[measure.template], PUBLISHED_RANKS, PACKED_ROWS * measure.max_length
    shuffled = np.random.default_rng(SEED).permutation(len(kept_r))
    grouped = llava_order(words_r, pictured_r, batch, ranks, SEED)
    shares = {
        "random": padded_share(kept_r, shuffled, batch),
        "llava": padded_share(kept_r, grouped, batch),
        "packed": packed_share(kept_r, shuffled, batch, ranks, capacity),
    }
    return {
        "rows_a_device": batch,
        "devices": ranks,
        "pack_tokens": capacity,
        "shares": {way: round(share, 4) for way, share in shares.items()},
    }
