"""The authors' own files: rows of JSON or CSV beside folders of pictures."""

import csv
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from blindspot import files
from blindspot.benchmarks.sources.table import Pictures, Row, Table, table
from blindspot.errors import UserError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


def _picture(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read the picture {path}: {error.strerror or error}") from error


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: if it cannot be read or is not JSON.
    """
    try:
        return files.parse_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); get the file again") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV file, of a JSON file that holds an array, or of a file with one JSON object a line.

    Raises:
        UserError: if the file cannot be read or a row is not an object.
    """
    if path.suffix == ".csv":
        rows: Any = _csv_rows(path)
    else:
        rows = list(files.read_jsonl(path)) if path.suffix == ".jsonl" else read_json(path)
    if not is_rows(rows):
        raise UserError(f"{path}: not an array of rows; get the file again")
    return rows


def is_rows(value: Any) -> bool:
    """Whether a JSON value is a list of objects."""
    return isinstance(value, list) and all(isinstance(row, dict) for row in value)


def reader(
    picture: Callable[[Mapping[str, Any]], Any],
    where: str,
    rows: Callable[[Path], Sequence[Mapping[str, Any]]] | None = None,
) -> Callable[[Sequence[Path]], Table]:
    """Read one file of rows, by `read_rows` if nothing else is given, with its pictures as `with_pictures` does."""
    return lambda paths: with_pictures(paths[0], (rows or read_rows)(paths[0]), picture, where)


def with_pictures(
    source: Path, rows: Sequence[Mapping[str, Any]], picture: Callable[[Mapping[str, Any]], Any], where: str
) -> Table:
    """Rows with pictures that are files at or below the folder of ``source``.

    Args:
        source: the file of the rows; their numbers in messages count from 1.
        rows: its rows.
        picture: the path of a row's picture, as the row names it.
        where: where to get the pictures, for the message.

    Raises:
        UserError: if pictures are missing (how many, one of them, and where to get them), or a text is none.
    """
    names = [str(picture(row)) for row in rows]
    paths = _located(source.parent, set(names), where)
    pictures = Pictures(_picture)
    keys = {name: pictures.key(files.sha256_file(path), path) for name, path in sorted(paths.items())}
    found = [
        Row(source, number, row, (keys[name],)) for number, (row, name) in enumerate(zip(rows, names, strict=True), 1)
    ]
    try:
        return table(source, found, pictures)
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise UserError(f"{source}: a text cannot be written in UTF-8 ({error}); get the file again") from error


def pictures_below(folder: Path) -> dict[str, list[Path]]:
    """Every picture at or below a folder by its name, those of one name in sorted order of their folders."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if name.lower().endswith(PICTURE_SUFFIXES):
                found[name].append(Path(parent, name))
    return found


def _located(folder: Path, names: Iterable[str], where: str) -> dict[str, Path]:
    """The file of each name: at that path below the folder or its ``images``, else of that file name anywhere below.

    Of several files the one whose folders agree with the name; a file stands for one name alone. A name that leads out
    of the folder counts as a file name only, and no link may: data must not reach what else is on the disk.
    """
    wanted = sorted(names)
    tried = [(name, base / name) for name in wanted if files.inside(name) for base in (folder / "images", folder)]
    places = {name: path for name, path in tried if os.path.isfile(path)}  # Path.is_file raises for names too long
    if absent := [name for name in wanted if name not in places]:
        anywhere = pictures_below(folder)
        likest = {name: path for name in absent if (path := _likest(name, anywhere.get(Path(name).name, [])))}
        named = Counter(likest.values())
        places |= {name: path for name, path in likest.items() if named[path] == 1}
    if absent := [name for name in wanted if name not in places]:
        raise UserError(
            f"{len(absent):,} of {len(wanted):,} pictures are not below {folder} or not told apart by their folders, "
            f"for example {absent[0]}; {where}"
        )
    files.refuse_links_out(places.values(), folder)
    return places


def _likest(name: str, paths: Sequence[Path]) -> Path | None:
    """The file whose path agrees with the name for most parts from its end; None if that holds for unequal files."""

    def agreeing(path: Path) -> int:
        pairs = zip(path.parts[::-1], PurePath(name).parts[::-1], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    most = max(map(agreeing, paths), default=0)
    found = [path for path in paths if agreeing(path) == most]
    return found[0] if len(found) == 1 or len(set(map(files.sha256_file, found))) == 1 else None


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error}); get the file again") from error
    if long := [number for number, row in enumerate(rows, start=1) if None in row]:
        raise UserError(f"{path}: row {long[0]} has more cells than the header; get the file again")
    return rows
