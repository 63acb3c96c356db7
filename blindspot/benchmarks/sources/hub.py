"""Hugging Face data sets on this disk: parquet files of a snapshot, Arrow files of the cache or of save_to_disk.

Parquet files are converted once by `datasets` into its cache, because a picture in a parquet file can only be reached
by decoding its whole row group. Arrow files are mapped into memory as they are.
"""

import hashlib
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blindspot.benchmarks.base import Source
from blindspot.benchmarks.sources.table import Pictures, Row, Table, table
from blindspot.errors import UserError
from blindspot.question import Question

if TYPE_CHECKING:
    import pyarrow as pa


def _picture(table: "pa.Table", place: tuple[str, int, int]) -> bytes:
    """The bytes of the image file in a column, a row, and a position in a list of pictures."""
    column, row, position = place
    return _contents(table.column(column)[row].as_py())[position]


def read(
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

    Raises:
        UserError: if a file or a column is missing or broken, or a row has no picture.
    """
    held = load(paths, [*needed, *images[:1]], [*optional, *images[1:]])
    folder = paths[0].parent
    columns = [name for name in images if name in held.column_names]
    texts = {
        number: cells
        for number, cells in enumerate(held.drop_columns(columns).to_pylist(), start=1)
        if keep is None or keep(cells)
    }
    pictures = Pictures(partial(_picture, held))
    own: dict[int, tuple[int, ...]] = dict.fromkeys(texts, ())
    for column in columns:
        for number, position, content in _pictures(held.column(column), own):
            key = pictures.key(hashlib.sha256(content).hexdigest(), (column, number - 1, position))
            own[number] = (*own[number], key)
    if absent := [number for number, keys in own.items() if not keys]:
        raise UserError(
            f"{folder}: {len(absent):,} of {len(own):,} rows have no picture, the first is row {absent[0]}; "
            "get the data set again"
        )
    return table(folder, [Row(folder, number, cells, own[number]) for number, cells in texts.items()], pictures)


def load(paths: Sequence[Path], needed: Sequence[str], optional: Sequence[str] = ()) -> "pa.Table":
    """The columns of a data set as one table, memory-mapped.

    Raises:
        UserError: if a file or a needed column is missing or broken.
    """
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


def _pictures(column: "pa.ChunkedArray", rows: Container[int]) -> Iterator[tuple[int, int, bytes]]:
    """Row (from 1), position in its list, and bytes of every picture of a column in those rows."""
    values = (value for chunk in column.chunks for value in chunk)
    for number, value in enumerate(values, start=1):
        if number in rows:
            for position, content in enumerate(_contents(value.as_py())):
                yield number, position, content


def _contents(value: Any) -> list[bytes]:
    """The pictures of a cell: bytes, ``{"bytes": ..., "path": ...}`` as `datasets` stores them, or a list of those."""
    if isinstance(value, list):
        return [content for item in value for content in _contents(item)]
    content = value.get("bytes") if isinstance(value, dict) else value
    return [content] if isinstance(content, bytes) and content else []


def marks(split: str, configuration: str = "") -> tuple[str, ...]:
    """Patterns of the files of a split: a snapshot's parquet, the cache's Arrow, what save_to_disk wrote."""
    folder = f"**/{configuration}/" if configuration else ""
    return (
        f"{folder}**/{split}*.parquet",
        f"{folder}**/*-{split}*.arrow",
        f"{folder}**/{split}/data-*.arrow",
        f"{folder}data-*.arrow",
    )


def source(
    repository: str,
    split: str,
    counts: Mapping[str, int],
    question: Callable[[Row], Question],
    needed: Sequence[str],
    optional: Sequence[str] = (),
    images: Sequence[str] = ("image",),
    keep: Callable[[Mapping[str, Any]], bool] | None = None,
    configuration: str = "",
) -> Source:
    """A split of a data set of the Hub, in parquet files.

    Args:
        repository, split, counts, configuration: of the data set.
        question: from a row to a question.
        needed, optional, images, keep: see `read`.
    """
    folder = f"{configuration}/" if configuration else ""
    # As huggingface_hub matches: * passes over slashes.
    files = (f"{folder}{split}*.parquet", f"{folder}*/{split}*.parquet")
    reading = partial(read, needed=needed, optional=optional, images=images, keep=keep)
    return Source("hub", reading, question, repository, files, counts=counts, marks=marks(split, configuration))
