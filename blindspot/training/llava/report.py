"""The report of a check: what it holds, which rows it leaves, and how it looks on a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table
from rich.text import Text

from blindspot.training.llava.index import LlavaRows
from blindspot.training.llava.pictures import Finding
from blindspot.training.llava.survey import TOKENS_PER_WORD, Measure, Measured
from blindspot.training.order import llava_order, packed_share, padded_share

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


class Named(NamedTuple):
    """Which rows use what: images by path, and ids."""

    images: dict[str, list[int]]
    ids: dict[str, list[int]]
    without_id: list[int]
    repeated: list[tuple[int, str]]


def make_report(
    rows: LlavaRows, measure: Measure, measured: Measured, named: Named, found: Mapping[str, Finding]
) -> dict[str, Any]:
    """The report of `check`, of values that JSON has.

    ``faults`` make a row useless, ``notes`` do not. Both hold entries by kind, each with its ``row`` or ``rows``.

    Args:
        rows: the data set.
        measure: how its rows were measured.
        measured: what came of it, for all rows.
        named: which rows use which images and ids.
        found: the images with which something is wrong.
    """
    images: dict[str, list[dict[str, Any]]] = {"escaping": [], "missing": [], "broken": [], "misnamed": []}
    for name, finding in found.items():
        images[finding.fault].append({"image": name, "why": finding.why, "rows": named.images[name]})
    misnamed = images.pop("misnamed")
    refused, over_long = dict(measured.refused), np.flatnonzero(measured.tokens_r > measure.max_length).tolist()
    id_of = _ids(named, {*refused, *over_long})
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
            "over_long": [
                {"row": row, "id": id_of.get(row), "tokens": int(measured.tokens_r[row])} for row in over_long
            ],
            "misnamed": misnamed,
            "duplicate_ids": [{"id": name, "rows": used} for name, used in named.ids.items() if len(used) > 1],
            "without_id": [{"row": row} for row in named.without_id],
            "repeated_images": [{"row": row, "image": name} for row, name in named.repeated],
        },
    }
    good_r = usable(report)
    tokens_r, words_r, pictures_r = measured.tokens_r[good_r], lengths.words_r[good_r], lengths.pictures_r[good_r]
    report["usable_rows"] = len(good_r)
    report["lengths"] = _lengths(tokens_r, measure) if len(good_r) else None
    report["padding"] = _padding(tokens_r, words_r, pictures_r > 0, measure) if len(good_r) else None
    return report


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


def _ids(named: Named, wanted: set[int]) -> dict[int, str]:
    """The ids of the ``wanted`` rows that have one."""
    return {row: name for name, used in named.ids.items() for row in used if row in wanted} if wanted else {}


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
