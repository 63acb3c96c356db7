"""The authors' own files: rows of JSON or CSV beside folders of pictures."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from blindspot import files
from blindspot.benchmarks.forms.table import Pictures, Row, Table, digest
from blindspot.errors import UserError

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")


@dataclass(frozen=True, slots=True)
class FileImages:
    """Pictures that are files."""

    paths: tuple[Path, ...]

    def read(self, key: int) -> bytes:
        """The bytes of the file.

        Raises:
            UserError: if it cannot be read.
        """
        try:
            return self.paths[key].read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the picture {self.paths[key]}: {error.strerror or error}") from error

    def __len__(self) -> int:
        return len(self.paths)


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        UserError: if it cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
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
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: not an array of rows; get the file again")
    return rows


def table(source: Path, rows: Sequence[Mapping[str, Any]], names: Sequence[Sequence[str]], where: str) -> Table:
    """Rows with pictures that are files at or below the folder of ``source``.

    Args:
        source: the file of the rows; their numbers in messages count from 1.
        rows: its rows.
        names: of each row, the pictures' paths as the rows name them.
        where: where to get the pictures, for the message.

    Raises:
        UserError: if pictures are missing: how many, one of them, and where to get them.
    """
    paths = _located(source.parent, {name for row in names for name in row}, where)
    pictures = Pictures()
    keys = {name: pictures.key(files.sha256_file(path), path) for name, path in sorted(paths.items())}
    found = [
        Row(f"{source}: row {number}", number, row, tuple(keys[name] for name in own))
        for number, (row, own) in enumerate(zip(rows, names, strict=True), start=1)
    ]
    return Table(source, found, FileImages(tuple(pictures.places)), digest(found, pictures.digests))


def below(folder: Path, keep: Callable[[str], bool]) -> dict[str, Path]:
    """Every file at or below a folder whose name passes, by its name; the first of equal names in sorted order."""
    found: dict[str, Path] = {}
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        for name in sorted(filter(keep, names)):
            found.setdefault(name, Path(parent, name))
    return found


def inside(name: str) -> bool:
    """Whether a path that a data set names stays in the folder that it is relative to."""
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def _located(folder: Path, names: Iterable[str], where: str) -> dict[str, Path]:
    """The file of each name: at that path below the folder or its ``images``, else of that file name anywhere below.

    A name that leads out of the folder counts as a file name only: data must not reach what else is on the disk.
    """
    wanted = sorted(names)
    tried = [(name, base / name) for name in wanted if inside(name) for base in (folder / "images", folder)]
    places = {name: path for name, path in tried if os.path.isfile(path)}  # Path.is_file raises for names too long
    if absent := [name for name in wanted if name not in places]:
        anywhere = below(folder, is_picture)
        places |= {name: anywhere[Path(name).name] for name in absent if Path(name).name in anywhere}
    if absent := [name for name in wanted if name not in places]:
        raise UserError(
            f"{len(absent):,} of {len(wanted):,} pictures are not below {folder}, for example {absent[0]}; {where}"
        )
    return places


def _csv_rows(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            return list(csv.DictReader(handle))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not a CSV file in UTF-8 ({error}); get the file again") from error
