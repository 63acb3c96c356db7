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
from typing import Any, TypeVar

import numpy as np
from rich.table import Table
from rich.text import Text

from blindspot.errors import UserError, explained
from blindspot.files import write_json
from blindspot.model.conversation import RowError, plain, v1
from blindspot.model.encoding import encode, token_ids
from blindspot.model.tokenizer import END
from blindspot.training.llava.pictures import inspect_picture
from blindspot.training.llava.rows import NO_OBJECT, LlavaRows, index_rows
from blindspot.training.order import balanced_packs, llava_order

ALONE = 20_000
"""Up to this many rows worker processes take longer to start than they save."""
PUBLISHED_BATCH = {"v1": 16, "plain": 32}
PUBLISHED_RANKS = 8
"""By template LLaVA's rows a device, and devices, for which padding is computed."""
PACKED_ROWS = 2
"""A pack holds this many of the longest rows."""
TOKENS_PER_WORD = 1.3
UNMEASURED = 0
SEED = 42
BINS = 16
ESTIMATED_BATCHES = 200

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

Entry = dict[str, Any]
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
    workers: int | None = None,
    report: Callable[[str, int, int], None] = lambda what, done, total: None,
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
        workers: processes; by default one per core, for large sets. More than one import the main module anew.
        report: told what is done, and how much of how much.
    """
    if template not in PUBLISHED_BATCH:
        raise UserError(f"no template {template!r}; choose one of {', '.join(PUBLISHED_BATCH)}")
    if not images.is_dir():
        raise UserError(f"no image folder at {images}")
    measure = Measure(tokenizer, template, max_length, image_tokens)
    with tempfile.TemporaryDirectory(prefix="blindspot-") as temporary:
        index_rows(json_path, Path(temporary), partial(report, "indexing"))
        rows = LlavaRows(Path(temporary), images)
        workers = workers or (1 if len(rows) <= ALONE else os.cpu_count() or 1)
        measured = _spread(partial(measure, rows), range(len(rows)), 2000, workers, partial(report, "measuring rows"))
        tokens_r, refused = np.empty(len(rows), np.int32), dict[int, str]()
        for number, (tokens, why) in enumerate(measured):
            tokens_r[number] = tokens
            if why is not None:
                refused[number] = why
        result, named = _of_rows(rows, measure, tokens_r, refused)
        told = partial(report, "looking at images")
        findings = _spread(partial(inspect_picture, images), list(named), 500, workers, told)
        for name, finding in zip(named, findings, strict=True):
            if finding:
                kinds = result["notes" if finding.fault == "misnamed" else "faults"]
                kinds[finding.fault].append({"image": name, "why": finding.why, "rows": named[name]})
        _add_lengths(result, rows, measure, tokens_r)
    if out is not None:
        write_json(out, result)
    return result


def usable(report: Mapping[str, Any]) -> np.ndarray:
    """The numbers of the rows that no fault of a report touches, ascending: those to train on."""
    touched = _rows(entry for entries in report["faults"].values() for entry in entries)
    return np.setdiff1d(np.arange(report["rows"]), np.array(sorted(touched), np.int64))


def _rows(entries: Iterable[Entry]) -> set[int]:
    """The rows that entries are about."""
    return {row for entry in entries for row in (entry["rows"] if "rows" in entry else [entry["row"]])}


def as_table(report: Mapping[str, Any]) -> Table:
    """The report for a terminal: kinds of damage with an example each, then lengths and padding."""
    table = Table("", "found", "rows", "for example", title=f"{report['usable_rows']:,} of {report['rows']:,} rows fit")
    for column in table.columns[1:3]:
        column.justify = "right"
    for kinds, style in ((report["faults"], "red"), (report["notes"], "yellow")):
        for kind, entries in kinds.items():
            words = ""
            for entry in entries[:1]:
                rows = [entry["row"]] if "row" in entry else entry["rows"]
                more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
                subject = entry.get("image") or entry.get("why") or entry.get("id") or ""
                if "tokens" in entry:
                    subject = f"{entry['tokens']:,} tokens"
                words = f"row {rows[0]}{more}: {subject}".rstrip(": ")
            safe = "".join(letter if letter.isprintable() else "?" for letter in words)  # others steer the terminal
            count = Text(f"{len(entries):,}", style if entries else "dim")
            table.add_row(Text(MEANING[kind]), count, f"{len(_rows(entries)):,}", Text(safe))
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


@dataclass(frozen=True)
class Measure:
    """How rows become tokens, see `check`; without a tokenizer a word counts as `TOKENS_PER_WORD` tokens."""

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

    with explained(f"cannot use the tokenizer in {folder}", UserError):
        return read_tokenizer(folder)


def _spread(
    work: Callable[[Item], Result], items: Sequence[Item], size: int, workers: int, report: Callable[[int, int], None]
) -> Iterator[Result]:
    """The results of ``work`` for each item, in order: by ``workers`` processes in jobs of ``size``, by this one if 1.

    With more than one worker, ``work`` and the main module must be importable.
    """
    context = multiprocessing.get_context("spawn")  # a fork would copy the locks of tokenizers' and torch's threads
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the parent's to see to
    pool = None if workers == 1 else ProcessPoolExecutor(workers, context, initializer=ignore)
    try:
        results = pool.map(work, items, chunksize=size) if pool else map(work, items)
        for done, result in enumerate(results, start=1):
            yield result
            if done % size == 0 or done == len(items):
                report(done, len(items))
    except BrokenProcessPool as error:
        raise UserError("a worker process died, perhaps for want of memory; use fewer workers") from error
    finally:
        if pool:
            pool.shutdown(cancel_futures=True)


def _of_rows(
    rows: LlavaRows, measure: Measure, tokens_r: np.ndarray, refused: Mapping[int, str]
) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """What `check` returns, as far as rows tell it, of values that JSON has; and the rows that name each image.

    ``faults`` make a row useless, ``notes`` do not. Both hold entries by kind, each with its ``row`` or ``rows``.
    """
    images, ids = defaultdict[str, list[int]](list), defaultdict[str, list[int]](list)
    without_id: list[Entry] = []
    repeated: list[Entry] = []
    columns = (rows.column(name) for name in ("id", "images", "problem"))
    for number, (identity, listed, problem) in enumerate(zip(*columns, strict=True)):
        if identity is not None:
            ids[identity].append(number)
        elif problem != NO_OBJECT:
            without_id.append({"row": number})
        paths = [str(PurePosixPath(image)) for image in listed]  # one spelling
        for path in dict.fromkeys(paths):
            images[path].append(number)
            if paths.count(path) > 1:
                repeated.append({"row": number, "image": path})
    over_long = np.flatnonzero(tokens_r > measure.max_length).tolist()
    wanted = {*refused, *over_long}
    id_of = {row: name for name, used in ids.items() for row in used if row in wanted}
    report: dict[str, Any] = {
        "source": rows.source._asdict(),
        "images_root": str(rows.images_root),
        "rows": len(rows),
        "rows_with_images": int((rows.lengths()[1] > 0).sum()),
        "images": len(images),
        "faults": {
            "escaping": [],
            "missing": [],
            "broken": [],
            "unlabelled": [{"row": row, "id": id_of.get(row), "why": why} for row, why in refused.items()],
        },
        "notes": {
            "over_long": [{"row": row, "id": id_of.get(row), "tokens": int(tokens_r[row])} for row in over_long],
            "misnamed": [],
            "duplicate_ids": [{"id": name, "rows": used} for name, used in ids.items() if len(used) > 1],
            "without_id": without_id,
            "repeated_images": repeated,
        },
    }
    return report, images


def _add_lengths(report: dict[str, Any], rows: LlavaRows, measure: Measure, tokens_r: np.ndarray) -> None:
    """Statistics of usable rows before they are cut, and the share of padding in LLaVA's batches of them."""
    good_r = usable(report)
    report |= {"usable_rows": len(good_r), "lengths": None, "padding": None}
    if not len(good_r):
        return
    tokens_r, (words_r, pictures_r), longest = tokens_r[good_r], rows.lengths(), measure.max_length
    edges = np.linspace(0, longest, BINS + 1).astype(int)
    counts = np.histogram(tokens_r[tokens_r <= longest], bins=edges + 0.5)[0]
    bins = [
        {"from": low + 1, "to": high, "rows": count}
        for low, high, count in zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), strict=True)
    ]
    kept_r = tokens_r.clip(max=longest)
    report["lengths"] = {
        "unit": "tokens" if measure.tokenizer else f"tokens (estimate: words x {TOKENS_PER_WORD})",
        "estimated": measure.tokenizer is None,
        "tokenizer": str(measure.tokenizer) if measure.tokenizer else None,
        "template": measure.template,
        "image_tokens": measure.image_tokens,
        "max_length": longest,
        "total": int(tokens_r.sum()),
        "total_kept": int(kept_r.sum()),
        "mean": round(float(tokens_r.mean()), 1),
        "median": int(np.median(tokens_r)),
        "longest": int(tokens_r.max()),
        "histogram": [*bins, {"from": longest + 1, "to": None, "rows": int((tokens_r > longest).sum())}],
    }
    batch, capacity = PUBLISHED_BATCH[measure.template], PACKED_ROWS * longest
    shuffled = np.random.default_rng(SEED).permutation(len(kept_r))
    grouped = llava_order(words_r[good_r], pictures_r[good_r] > 0, batch, PUBLISHED_RANKS, SEED)
    shares = {
        "random": padded_share(kept_r, shuffled, batch),
        "llava": padded_share(kept_r, grouped, batch),
        "packed": packed_share(kept_r, shuffled, batch, PUBLISHED_RANKS, capacity),
    }
    report["padding"] = {
        "rows_a_device": batch,
        "devices": PUBLISHED_RANKS,
        "pack_tokens": capacity,
        "shares": {way: round(share, 4) for way, share in shares.items()},
    }


def padded_share(tokens_r: np.ndarray, order: np.ndarray, batch: int) -> float:
    """The share of padding where every ``batch`` rows of ``order`` are padded to their longest."""
    starts_b = np.arange(0, len(order), batch)
    sizes_b = np.diff(starts_b, append=len(order))
    room = int(np.maximum.reduceat(tokens_r[order], starts_b) @ sizes_b)
    return 1 - int(tokens_r[order].sum()) / room


def packed_share(tokens_r: np.ndarray, order: np.ndarray, batch: int, ranks: int, capacity: int) -> float:
    """The share of waiting where each ``batch * ranks`` rows of ``order`` are packed, and packs wait for the longest.

    A pack needs no padding; this is the time that the others of a step are idle, in tokens. Over
    `ESTIMATED_BATCHES` global batches, as it hardly varies.
    """
    used = room = 0
    for start in range(0, min(len(order), ESTIMATED_BATCHES * batch * ranks), batch * ranks):
        tokens = tokens_r[order[start : start + batch * ranks]].tolist()
        lengths = [sum(tokens[place] for place in pack) for pack in balanced_packs(tokens, capacity, ranks)]
        used += sum(tokens)
        room += max(lengths) * len(lengths)
    return 1 - used / room
