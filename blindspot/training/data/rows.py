"""Rows of an indexed LLaVA JSON file, by number."""

from collections.abc import Iterator
from dataclasses import dataclass
from operator import index
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from blindspot.errors import UserError
from blindspot.model.conversation import Message, RowError, from_llava
from blindspot.training.data.index import BATCH, ROWS, source_of


@dataclass(frozen=True)
class Row:
    """A row to train on.

    Attributes:
        id: as in the file; ``row 17`` if it has none.
        messages: as `from_llava` makes them, with as many places of pictures as there are ``images``.
        images: paths below the image folder, none for a row of text.
    """

    id: str
    messages: list[Message]
    images: tuple[str, ...]


class Lengths(NamedTuple):
    """For each row the words of its turns as LLaVA counts them, and its pictures."""

    words_r: np.ndarray
    pictures_r: np.ndarray


class LlavaRows:
    """What `index_rows` wrote, mapped into memory: a row costs the same in a set of any size.

    Can be pickled: the copy maps the file again.

    Args:
        folder: that of the index.
        images_root: the folder that the rows' image paths are relative to, for those who open them.

    Attributes:
        source: the JSON file that was indexed.

    Raises:
        UserError: if there is no index of this version.
    """

    def __init__(self, folder: Path, images_root: Path | None = None) -> None:
        self.folder, self.images_root = folder, images_root
        path = folder / ROWS
        if not path.is_file():
            raise UserError(f"no indexed rows in {folder}; index the JSON file first")
        try:
            self._file = pa.ipc.open_file(pa.memory_map(str(path)))
            source = source_of(self._file.schema)
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); delete it and index the JSON file again") from error
        if source is None:
            raise UserError(f"{path} is of another version; index the JSON file again")
        self.source = source
        batches = self._file.num_record_batches
        self._count = (batches - 1) * BATCH + self._file.get_batch(batches - 1).num_rows

    def __reduce__(self) -> tuple[Any, ...]:
        return LlavaRows, (self.folder, self.images_root)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> Row:
        """Row ``number``, counted from 0.

        Raises:
            RowError: if it cannot be trained on. The message is the reason.
            IndexError: if there is no such row.
        """
        number = index(number)
        if not 0 <= number < self._count:
            raise IndexError(f"row {number} of {self._count}")
        batch = self._file.get_batch(number // BATCH)
        values = {name: batch.column(name)[number % BATCH].as_py() for name in ("id", "images", "listed", "problem")}
        if values["problem"]:
            raise RowError(values["problem"])
        images = values["images"]
        turns = batch.column("conversations")[number % BATCH].as_py()
        named = images if values["listed"] else images[0] if images else None
        name = f"row {number}" if values["id"] is None else values["id"]
        return Row(name, from_llava({"image": named, "conversations": turns}), tuple(images))

    def lengths(self) -> Lengths:
        """Words and pictures of every row, without reading the texts."""
        words = [batch.column("words").to_numpy() for batch in self._batches()]
        pictures = [batch.column("images").value_lengths().to_numpy() for batch in self._batches()]
        return Lengths(np.concatenate(words), np.concatenate(pictures))

    def column(self, name: str) -> Iterator[Any]:
        """A column of the index (see `index`) from the first row to the last."""
        for batch in self._batches():
            yield from batch.column(name).to_pylist()

    def _batches(self) -> Iterator[pa.RecordBatch]:
        return (self._file.get_batch(number) for number in range(self._file.num_record_batches))
