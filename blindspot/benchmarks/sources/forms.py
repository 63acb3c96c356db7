"""From a published form of a benchmark to a table: rows of cells, each with its pictures, which are never re-encoded.

VLMEvalKit's TSV, data sets of the Hugging Face Hub, and the authors' own files of JSON or CSV beside pictures.
"""

import base64
import csv
import hashlib
import os
import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from blindspot import files
from blindspot.benchmarks.base import Pictures, Row, Source, Table, digest
from blindspot.errors import UserError, explained
from blindspot.question import Question

if TYPE_CHECKING:
    import pyarrow as pa


# VLMEvalKit's TSV: one row a question, pictures as base64 text, in files of up to several gigabytes. A file is read
# once, row by row. Of a picture only its place in the file is kept; its bytes are read and decoded again when they are
# asked for. (`pyarrow.csv` reads the same texts, but says of no cell where it lies, so it would hold the pictures.)

LONGEST_REFERENCE = 64
"""VLMEvalKit's limit: a shorter image cell is the index of the row that holds the picture."""

_ALPHABET = (string.ascii_letters + string.digits + "+/").encode()
_CELL = re.compile(rb'(?:"((?:[^"]++|"")*+)"([^\t\n]*+)|(?!")([^\t\n]*+))(\t|\n|\Z)')
_CLOSING = re.compile(rb'(?<!")"(?:"")*+(?!")')
_BASE64 = re.compile(rb"[A-Za-z0-9+/=]{2,}")


class TsvCell(NamedTuple):
    """A cell as it lies in the file: its first byte's offset, its bytes, and whether quotes stood around it."""

    offset: int
    raw: bytes
    quoted: bool

    def text(self) -> str:
        return (self.raw.replace(b'""', b'"') if self.quoted else self.raw).decode("utf-8")


def tsv(
    name: str,
    md5: str,
    counts: Mapping[str, int],
    question: Callable[[Row], Question],
    *needed: str,
    keep: Callable[[Row], bool] = lambda row: True,
    notes: tuple[str, ...] = (),
    easi: bool = False,
) -> Source:
    """A file where VLMEvalKit's developers or EASI's keep theirs; ``keep`` says whether a row is of the benchmark."""

    def kept(paths: Sequence[Path]) -> Table:
        whole = read_tsv(paths[0], *needed)
        return replace(whole, rows=list(filter(keep, whole.rows)))

    repository = "lmms-lab-si/EASI-Leaderboard-Data" if easi else None
    file = name if easi else f"https://opencompass.openxlab.space/utils/VLMEval/{name}"
    return Source("tsv", kept, question, repository, (file,), {name: md5}, counts, (name,), notes=notes)


def cells(lines: Iterable[bytes]) -> Iterator[list[TsvCell]]:
    """The cells of each row of a tab-separated file, as `csv` and pandas read it, in time proportional to its length.

    A cell that begins with a quote ends at the next single one; tabs, line breaks and doubled quotes before it belong
    to the cell. An empty line is no row. A file that ends inside quotes is a ValueError.
    """
    row: list[TsvCell] = []
    held: list[bytes] = []  # lines from the beginning of a cell whose quotes are not closed yet
    offset = 0  # of the first of them
    for line in lines:
        held.append(line)
        if len(held) > 1 and not _CLOSING.search(line):
            continue
        raw, end, separator = b"".join(held), 0, b"\t"
        while separator == b"\t" and (match := _CELL.match(raw, end)):
            quoted, behind, plain, separator = match.groups()
            rest = behind if plain is None else plain  # text after a closing quote: csv takes it as part of the cell
            rest = rest if separator == b"\t" else rest.rstrip(b"\r")
            start = offset + match.start(3 if quoted is None else 1)
            row.append(TsvCell(start, rest, False) if quoted is None else TsvCell(start, quoted + rest, True))
            end = match.end()
        offset += end
        held = [] if separator != b"\t" else [raw[end:]]
        if not held:
            if len(row) > 1 or row[0].raw or row[0].quoted:
                yield row
            row = []
    if held:
        raise ValueError("the file ends inside a quoted cell")


def read_tsv(path: Path, *needed: str) -> Table:
    """Read a TSV with the ``needed`` columns and ``index``, ``question``, ``answer`` and ``image``."""
    pictures = Pictures(partial(_decoded, path))
    header: list[str] = []
    texts: list[dict[str, str]] = []
    images: list[tuple[int, ...] | str] = []
    try:
        with explained(f"cannot read {path}"), path.open("rb", buffering=2**20) as handle:
            rows = cells(handle)
            header = [cell.text().removeprefix("\ufeff") for cell in next(rows, [])]
            columns = ["index", "question", "answer", *needed, "image"]
            if absent := [name for name in columns if name not in header]:
                raise UserError(
                    f"{path}: no column {', '.join(absent)} (columns: {', '.join(header) or 'none'}); "
                    "expected is VLMEvalKit's TSV of this benchmark"
                )
            for row in rows:
                if len(row) != len(header):
                    raise ValueError(f"{len(row)} cells, but the header has {len(header)}")
                by_name = dict(zip(header, row, strict=True))
                cell = by_name.pop("image")
                text = {name: held.text() for name, held in by_name.items()}
                images.append(_images(cell, pictures))
                texts.append(text)
    except ValueError as error:
        where = f"row {len(texts) + 1}" if header else "header"
        what = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        raise UserError(f"{path}: {where}: {what}; get the file again") from error
    own = {text["index"]: keys for text, keys in zip(texts, images, strict=True) if isinstance(keys, tuple)}
    followed = [own.get(keys, ()) if isinstance(keys, str) else keys for keys in images]
    if lost := [number for number, keys in enumerate(followed) if not keys]:
        named = images[lost[0]]
        what = f"refers to index {named!r}" if named else "is empty there"
        raise UserError(
            f"{path}: {len(lost)} of {len(images)} rows have no picture: row {lost[0] + 1} {what}, "
            "and no row of that index holds one; get the file again"
        )
    found = [Row(path, number, *both) for number, both in enumerate(zip(texts, followed, strict=True), start=1)]
    return Table(path, found, pictures, digest(found, pictures.keys))


def _images(cell: TsvCell, pictures: Pictures) -> tuple[int, ...] | str:
    """Keys of the pictures of a cell, or the index of the row that has them. ValueError: not base64.

    Looking at the characters takes a fraction of the time of decoding, which gigabytes are spared until asked for.
    """
    if len(cell.raw) <= LONGEST_REFERENCE:
        return cell.text().strip()
    listed = cell.raw.lstrip().startswith(b"[")
    keys: list[int] = []
    for begin, end in [match.span() for match in _BASE64.finditer(cell.raw)] if listed else [(0, len(cell.raw))]:
        text = cell.raw[begin:end]
        rest = text.translate(None, _ALPHABET)
        padding = b"".join(rest.split())
        if padding.strip(b"="):
            raise ValueError(f"its image is not base64 text (it has the byte {padding.strip(b'=')[:1]!r})")
        if (len(text) - len(rest) + len(padding)) % 4 or not text.rstrip().endswith(padding) or len(padding) > 2:
            raise ValueError("its image is not base64 text (it is cut off)")
        keys.append(pictures.key(hashlib.sha256(text).hexdigest(), (cell.offset + begin, end - begin)))
    return tuple(keys)


def _decoded(path: Path, place: tuple[int, int]) -> bytes:
    """The bytes of the image file that the base64 text at an offset, of some length, stands for."""
    try:
        with explained(f"cannot read {path}"), path.open("rb") as handle:
            handle.seek(place[0])
            return base64.b64decode(b"".join(handle.read(place[1]).split()), validate=True)
    except ValueError as error:
        raise UserError(f"{path} changed while it was in use; start again") from error


# Hugging Face data sets on this disk: parquet files of a snapshot, Arrow files of the cache or of save_to_disk. Parquet
# files are converted once by `datasets` into its cache, because a picture in a parquet file can only be reached by
# decoding its whole row group. Arrow files are mapped into memory as they are.


def marks(split: str, configuration: str = "") -> tuple[str, ...]:
    """Patterns of the files of a split: a snapshot's parquet, the cache's Arrow, what save_to_disk wrote."""
    folder = f"**/{configuration}/" if configuration else ""
    return (
        f"{folder}**/{split}*.parquet",
        f"{folder}**/*-{split}*.arrow",
        f"{folder}**/{split}/data-*.arrow",
        f"{folder}data-*.arrow",
    )


def hub(
    repository: str,
    split: str,
    counts: Mapping[str, int],
    question: Callable[[Row], Question],
    needed: Sequence[str],
    optional: Sequence[str] = (),
    images: Sequence[str] = ("image",),
    keep: Callable[[Mapping[str, Any]], bool] | None = None,
    configuration: str = "",
    notes: tuple[str, ...] = (),
) -> Source:
    """A split of a data set of the Hub, in parquet files; ``needed`` to ``keep`` as in `read_hub`."""
    folder = f"{configuration}/" if configuration else ""
    # As huggingface_hub matches: * passes over slashes.
    names = (f"{folder}{split}*.parquet", f"{folder}*/{split}*.parquet")
    reading = partial(read_hub, needed=needed, optional=optional, images=images, keep=keep)
    known: dict[str, Any] = {"counts": counts, "marks": marks(split, configuration), "notes": notes}
    return Source("hub", reading, question, repository, names, **known)


def read_hub(
    paths: Sequence[Path],
    needed: Sequence[str],
    optional: Sequence[str] = (),
    images: Sequence[str] = ("image",),
    keep: Callable[[Mapping[str, Any]], bool] | None = None,
) -> Table:
    """Read the columns of a data set.

    Args:
        paths: its files of one split, all parquet or all Arrow, in order.
        needed: columns that must be there.
        optional: columns that are read where they are there.
        images: columns of pictures (an image or a list of images); empty ones are skipped.
        keep: says by its other cells whether a row belongs to the benchmark.
    """
    held = load_hub(paths, [*needed, *images[:1]], [*optional, *images[1:]])
    folder = paths[0].parent
    columns = [name for name in images if name in held.column_names]
    rows = enumerate(held.drop_columns(columns).to_pylist(), start=1)
    texts = {number: cells for number, cells in rows if keep is None or keep(cells)}

    def picture(place: tuple[str, int, int]) -> bytes:
        column, row, position = place
        return _contents(held.column(column)[row].as_py())[position]

    pictures = Pictures(picture)
    own: dict[int, tuple[int, ...]] = dict.fromkeys(texts, ())
    for column in columns:
        values = (value for chunk in held.column(column).chunks for value in chunk)
        for number, value in enumerate(values, start=1):
            for position, content in enumerate(_contents(value.as_py()) if number in own else ()):
                key = pictures.key(hashlib.sha256(content).hexdigest(), (column, number - 1, position))
                own[number] = (*own[number], key)
    if absent := [number for number, keys in own.items() if not keys]:
        raise UserError(
            f"{folder}: {len(absent):,} of {len(own):,} rows have no picture, the first is row {absent[0]}; "
            "get the data set again"
        )
    found = [Row(folder, number, cells, own[number]) for number, cells in texts.items()]
    return Table(folder, found, pictures, digest(found, pictures.keys))


def load_hub(paths: Sequence[Path], needed: Sequence[str], optional: Sequence[str] = ()) -> "pa.Table":
    """The columns of a data set as one table, memory-mapped."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset
    from datasets.exceptions import DatasetsError

    parquet, held = paths[0].suffix == ".parquet", []
    path, columns = paths[0], []
    try:
        for path in paths:
            if not parquet:
                held.append(pa.ipc.open_stream(pa.memory_map(str(path))).read_all())
            names = pq.read_schema(path).names if parquet else held[-1].column_names
            if absent := [name for name in needed if name not in names]:
                raise UserError(
                    f"{path}: no column {', '.join(absent)} (columns: {', '.join(names)}); "
                    "is this the data set that `blindspot benchmarks` names?"
                )
            columns = columns or [name for name in names if name in {*needed, *optional}]
        if parquet:
            data: Any = Dataset.from_parquet(list(map(str, paths)), columns=columns)
            held = [data.data.table]
        return pa.concat_tables(each.select(columns) for each in held)
    except (OSError, KeyError, ValueError, pa.ArrowException, DatasetsError) as error:
        raise UserError(f"cannot read {path}: {error}; get the data set again") from error


def _contents(value: Any) -> list[bytes]:
    """The pictures of a cell: bytes, ``{"bytes": ..., "path": ...}`` as `datasets` stores them, or a list of those."""
    if isinstance(value, list):
        return [content for item in value for content in _contents(item)]
    content = value.get("bytes") if isinstance(value, dict) else value
    return [content] if isinstance(content, bytes) and content else []


# The authors' own files: rows of JSON or CSV beside folders of pictures.


def original(
    question: Callable[[Row], Question],
    picture: Callable[[Mapping[str, Any]], Any],
    where: str,
    pick: Callable[[Any], Iterable[Any]] = list,
    **known: Any,
) -> Source:
    """One file of rows, read by `read_rows` and `with_pictures`, with what else is ``known`` of the `Source`."""

    def table(paths: Sequence[Path], blind: bool = False) -> Table:
        return with_pictures(paths[0], read_rows(paths[0], pick), picture, where, blind)

    return Source("original", table, question, blind=partial(table, blind=True), **known)


def read_rows(path: Path, pick: Callable[[Any], Iterable[Any]] = list) -> list[dict[str, Any]]:
    """The rows of a CSV or parquet file, of JSON lines, or of a JSON file, from whose value ``pick`` takes them."""
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as handle:
                rows: list[Any] = list(csv.DictReader(handle))
            if long := [number for number, row in enumerate(rows, start=1) if None in row]:
                raise UserError(f"{path}: row {long[0]} has more cells than the header; get the file again")
        elif path.suffix == ".jsonl":
            rows = list(files.read_jsonl(path))
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            rows = pq.read_table(path).to_pylist()
        else:
            rows = list(pick(files.parse_json(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, csv.Error, KeyError, TypeError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not as it was published ({reason}); get the file again") from error
    if not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: its rows are no objects; get the file again")
    return rows


def with_pictures(
    source: Path,
    rows: Sequence[Mapping[str, Any]],
    picture: Callable[[Mapping[str, Any]], Any],
    where: str,
    blind: bool = False,
) -> Table:
    """Rows with pictures that are files at or below the folder of ``source``.

    Args:
        source: the file of the rows; their numbers in messages count from 1.
        rows: its rows.
        picture: the path of a row's picture, or a list of them, as the row names it.
        where: where to get the pictures, for the message that says how many are missing, and one of them.
        blind: the pictures are not looked for: each is known by its name.
    """
    found = map(picture, rows)
    names = [list(map(str, own)) if isinstance(own, list | tuple) else [str(own)] for own in found]
    asked = sorted({name for own in names for name in own})
    places = {name: source.parent / name for name in asked} if blind else _located(source.parent, asked, where)

    def content(path: Path) -> bytes:
        with explained(f"cannot read the picture {path}"):
            return path.read_bytes()

    pictures = Pictures(content)
    keys = {name: pictures.key(name if blind else files.sha256_file(path), path)
            for name, path in sorted(places.items())}  # fmt: skip
    numbered = enumerate(zip(rows, names, strict=True), start=1)
    table = [Row(source, number, row, tuple(keys[name] for name in own)) for number, (row, own) in numbered]
    try:
        return Table(source, table, pictures, digest(table, pictures.keys))
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise UserError(f"{source}: a text cannot be written in UTF-8 ({error}); get the file again") from error


def pictures_below(folder: Path) -> dict[str, list[Path]]:
    """Every picture at or below a folder by its name, those of one name in sorted order of their folders."""
    found: defaultdict[str, list[Path]] = defaultdict(list)
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in names:
            if name.lower().endswith((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")):
                found[name].append(Path(parent, name))
    return found


def _located(folder: Path, names: Sequence[str], where: str) -> dict[str, Path]:
    """The file of each name: at that path below the folder or its ``images``, else of that file name anywhere below.

    Of several files the one whose folders agree with the name; a file stands for one name alone. A name that leads out
    of the folder counts as a file name only, and no link may: data must not reach what else is on the disk.
    """

    def likest(name: str, paths: Sequence[Path]) -> Path | None:
        """The file whose path agrees with the name for most parts from its end; None if that holds for unequal ones."""
        parts = PurePath(name).parts[::-1]
        agreeing = [
            len(list(takewhile(lambda pair: pair[0] == pair[1], zip(path.parts[::-1], parts, strict=False))))
            for path in paths
        ]
        most = max(agreeing, default=0)
        best = [path for path, count in zip(paths, agreeing, strict=True) if count == most]
        return best[0] if len(best) == 1 or len(set(map(files.sha256_file, best))) == 1 else None

    tried = [(name, base / name) for name in names if files.inside(name) for base in (folder / "images", folder)]
    places = {name: path for name, path in tried if os.path.isfile(path)}  # Path.is_file raises for names too long
    if absent := [name for name in names if name not in places]:
        anywhere = pictures_below(folder)
        alike = {name: path for name in absent if (path := likest(name, anywhere.get(Path(name).name, [])))}
        named = Counter(alike.values())
        places |= {name: path for name, path in alike.items() if named[path] == 1}
    if absent := [name for name in names if name not in places]:
        raise UserError(
            f"{len(absent):,} of {len(names):,} pictures are not below {folder} or not told apart by their folders, "
            f"for example {absent[0]}; {where}"
        )
    files.refuse_links_out(places.values(), folder)
    return places
