"""Rows of an answers file: what our own runs write, and what `scored_answers.jsonl` and VLMEvalKit call them."""

import re
from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from blindspot.benchmarks.points import is_region, polygon
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rules import Item
from blindspot.errors import UserError

_NAMES = {alias: each.name for each in BENCHMARKS.values() for alias in (each.name, each.title, each.vlmevalkit)}
_LONGEST_SHOWN = 60
_LONGEST_COUNT = 18

KINDS = {kind: kind for kind in ("mcq", "yes_no", "count", "number", "text", "points", "boxes")}
"""Of rows of no benchmark that is known here."""
NO_BENCHMARK = "no benchmark"
"""Stands for the name where a row has none."""


def read_row(row: Mapping[str, Any], where: str = "row") -> Item:
    """Check a row.

    Columns: ``benchmark`` (our name or VLMEvalKit's, whose first word counts: ``CV-Bench-2D count``; any other name,
    or none, is kept), ``kind``, ``answer``, ``raw``; ``choices`` (a list of texts, or texts by letter) of ``mcq``;
    ``likelihood`` where asked for. A ``circular_group`` has lists in ``answer`` and ``raw`` and, to match option texts,
    in ``choices``: one entry a pass; without it only letters A to D are matched.

    A missing or wrong column is a UserError that starts with ``where``.
    """
    if not isinstance(row, Mapping):
        raise UserError(f"{where}: an answer is a JSON object, not {_shown(row)}")
    named = row.get("benchmark", NO_BENCHMARK)
    if not (isinstance(named, str) and named.strip()):
        raise UserError(
            f"{where}: benchmark must be a name, not {_shown(named)}; leave the column out if there is none"
        )
    benchmark = _NAMES.get(named.partition(" ")[0], named[:_LONGEST_SHOWN])
    kinds = BENCHMARKS[benchmark].kinds if benchmark in BENCHMARKS else KINDS
    given, answer, raw = (_column(row, name, where) for name in ("kind", "answer", "raw"))
    kind = kinds.get(given) if isinstance(given, str) else None
    if kind is None:
        raise UserError(f"{where}: {benchmark} has no rows of kind {_shown(given)} (one of: {', '.join(kinds)})")
    if kind == "circular":
        return Item(benchmark, kind, "", "", passes=_passes(benchmark, row, where), where=where)
    if not isinstance(raw, str):
        raise UserError(f"{where}: raw must be text, not {_shown(raw)}")
    choices = _choices(_column(row, "choices", where), where) if kind == "mcq" else {}
    golds = tuple(map(str, answer)) if kind == "text" and isinstance(answer, list) else ()
    gold = _gold(kind, answer, choices, where)
    seen: tuple[Any, Any] = ("", "")
    if kind == "points":
        gold, golds, seen = _regions(gold, row.get("groups"), where)
    if kind == "boxes":
        groups = row.get("groups")
        seen = (groups.get("convention"), groups.get("view")) if isinstance(groups, Mapping) else (None, None)
        if not all(isinstance(label, str) for label in seen):
            raise UserError(f"{where}: groups of a boxes row need the labels convention and view, as a run writes them")
    likelihood = row.get("likelihood")
    if likelihood is not None:
        values = likelihood.values() if isinstance(likelihood, Mapping) else ()
        # A value that is not NaN equals itself; isnan() refuses integers beyond floats.
        if not values or not all(isinstance(value, int | float) and value == value for value in values):
            raise UserError(f"{where}: likelihood must hold a number for each label, not {_shown(likelihood)}")
    return Item(benchmark, kind, gold, raw, choices, golds, likelihood, seen=seen, where=where)


def further(row: Mapping[str, Any], where: str) -> list[tuple[str, str]]:
    """The answers to a question behind the first, and what stopped each."""
    said = row.get("further", [])
    if not isinstance(said, list) or not all(isinstance(one, dict) and isinstance(one.get("raw"), str) for one in said):
        raise UserError(f"{where}: further must be a list of answers, each with its raw text")
    return [(one["raw"], str(one.get("stopped"))) for one in said]


def _passes(benchmark: str, row: Mapping[str, Any], where: str) -> tuple[Item, ...]:
    answers, raws, choices = row["answer"], row["raw"], row.get("choices")
    if not (isinstance(answers, list) and isinstance(raws, list) and answers and len(answers) == len(raws)):
        raise UserError(f"{where}: a circular_group needs lists of equal length in answer and raw")
    if choices is not None and not (isinstance(choices, list) and len(choices) == len(raws)):
        raise UserError(f"{where}: choices of a circular_group must be a list with the options of each pass")
    passes = []
    for number, (answer, raw) in enumerate(zip(answers, raws, strict=True)):
        options = dict.fromkeys("ABCD", "") if choices is None else _choices(choices[number], where)
        if not isinstance(raw, str):
            raise UserError(f"{where}: raw of pass {number + 1} must be text, not {_shown(raw)}")
        passes.append(Item(benchmark, "mcq", _gold("mcq", answer, options, where), raw, options, where=where))
    return tuple(passes)


def _choices(given: Any, where: str) -> Mapping[str, str]:
    options = dict(zip(ascii_uppercase, given, strict=False)) if isinstance(given, list | tuple) else given
    if not (
        isinstance(options, Mapping)
        and 0 < len(given) == len(options)
        and all(isinstance(text, str | int | float) for text in options.values())
        and all(isinstance(letter, str) and len(letter) == 1 and letter in ascii_uppercase for letter in options)
    ):
        raise UserError(
            f"{where}: choices must be up to 26 texts, as a list or by letter A, B, ..., not {_shown(given)}"
        )
    return {letter: str(text) for letter, text in options.items()}


def _gold(kind: str, answer: Any, choices: Mapping[str, str], where: str) -> str:
    if isinstance(answer, bool) or not isinstance(answer, str | int | float | list):
        raise UserError(f"{where}: answer must be text or a number, not {_shown(answer)}")
    gold = str(answer)
    if kind == "mcq" and gold not in choices:
        raise UserError(f"{where}: the gold letter {_shown(answer)} is not among the options {', '.join(choices)}")
    if kind == "yes_no" and gold.lower() not in ("yes", "no"):
        raise UserError(f"{where}: the gold answer of a yes_no row is Yes or No, not {_shown(answer)}")
    if kind == "count" and not (gold.isascii() and gold.isdecimal() and len(gold) <= _LONGEST_COUNT):
        raise UserError(f"{where}: the gold answer of a count row is a whole number, not {_shown(answer)}")
    if kind == "number" and not re.fullmatch(r"[-+]?(\d*\.\d+|\d+\.?)([eE][-+]?\d{1,2})?", gold.strip(), re.ASCII):
        raise UserError(f"{where}: the gold answer of a number row is a number, not {_shown(answer)}")
    return gold.capitalize() if kind == "yes_no" else gold


def _regions(answer: str, groups: Any, where: str) -> tuple[str, tuple[str, ...], tuple[str, str]]:
    """Of a points row: the region and the polygon, if it has them; which parser is official, and how it was asked.

    The region is the answer or ``groups["mask"]``, which may leave out a size that ``groups`` have.
    """
    groups = groups if isinstance(groups, Mapping) else {}
    size = f"{groups.get('width')} {groups.get('height')}"
    texts = [text for mask in (groups.get("mask"), answer) for text in (str(mask), f"{size} {mask}")]
    region = next(filter(is_region, texts), "")
    corners = (answer,) if polygon(answer) else ()
    if not region and not corners:
        raise UserError(
            f"{where}: the gold answer of a points row is a region (W H x0 y0 x1 y1) or a polygon, not {_shown(answer)}"
        )
    return region, corners, (str(groups.get("official_parser", "text2pts")), str(groups.get("asked", "")))


def _column(row: Mapping[str, Any], name: str, where: str) -> Any:
    if name not in row:
        raise UserError(f"{where}: no {name!r} column")
    return row[name]


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "..."
