"""Writers of small data in the layouts that the benchmarks are published in, without our readers."""

import base64
import io
import json as standard
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset, Features
from datasets import Image as Picture
from datasets import List as Many
from PIL import Image

Rows = Sequence[dict[str, Any]]


def picture(number: int, kind: str = "PNG") -> bytes:
    """A small image file; equal numbers give equal bytes."""
    made = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, number // 256, 77)).save(made, kind)
    return made.getvalue()


def text64(number: int, kind: str = "PNG") -> str:
    """A picture as VLMEvalKit writes it."""
    return base64.b64encode(picture(number, kind)).decode()


def row(number: int = 0, **cells: Any) -> dict[str, Any]:
    """A row of VLMEvalKit's."""
    return {"index": number, "image": text64(number), "question": "q", "answer": "A", **cells}


def tsv(path: Path, rows: Rows) -> Path:
    """As VLMEvalKit writes its data: pandas, tab-separated, no index column."""
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return path


def dataset(rows: Rows, images: Sequence[str] = ("image",), lists: Sequence[str] = ()) -> Any:
    """A Hugging Face data set with columns of pictures, or of lists of pictures."""
    pictures = {name: Picture() for name in images} | {name: Many(Picture()) for name in lists}
    plain = Dataset.from_list([{name: cell for name, cell in row.items() if name not in pictures} for row in rows])

    def wrapped(value: Any) -> Any:
        if isinstance(value, list):
            return [wrapped(item) for item in value]
        return None if value is None else {"bytes": value, "path": None}

    data = [{**row, **{name: wrapped(row.get(name)) for name in pictures}} for row in rows]
    return Dataset.from_list(data, features=Features({**plain.features, **pictures}))


def parquet(path: Path, rows: Rows, **columns: Sequence[str]) -> Path:
    """As a snapshot of the Hub holds a split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset(rows, **columns).to_parquet(str(path))
    return path


def csv(path: Path, rows: Rows) -> Path:
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


def json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(standard.dumps(value), encoding="utf-8")
    return path


def pictures(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """A JPEG for every name; returns their bytes."""
    made = {name: picture(number, "JPEG") for number, name in enumerate(names)}
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return made
