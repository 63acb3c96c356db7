"""Small data in the layouts that the benchmarks are published in, written without our readers."""

import base64
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

Rows = Sequence[dict[str, Any]]


def picture(number: int, kind: str = "PNG") -> bytes:
    """A small image file; equal numbers give equal bytes."""
    made = io.BytesIO()
    Image.new("RGB", (8, 6), (number % 256, number // 256, 77)).save(made, kind)
    return made.getvalue()


def text64(content: bytes) -> str:
    """As VLMEvalKit writes a picture."""
    return base64.b64encode(content).decode()


def write_tsv(path: Path, rows: Rows) -> Path:
    """As VLMEvalKit writes its data: pandas, tab-separated, no index column."""
    import pandas as pd

    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(path, sep="\t", index=False)
    return path


def make_dataset(rows: Rows, images: Sequence[str] = ("image",), lists: Sequence[str] = ()) -> Any:
    """A Hugging Face data set with columns of pictures."""
    from datasets import Dataset, Features
    from datasets import Image as Picture
    from datasets import List as Many

    plain = Dataset.from_list([{k: v for k, v in row.items() if k not in (*images, *lists)} for row in rows])
    features = Features(
        {
            **plain.features,
            **{name: Picture() for name in images},
            **{name: Many(Picture()) for name in lists},
        }
    )

    def wrapped(value: Any) -> Any:
        if isinstance(value, list):
            return [wrapped(item) for item in value]
        return None if value is None else {"bytes": value, "path": None}

    data = [{k: wrapped(row.get(k)) if k in (*images, *lists) else row[k] for k in features} for row in rows]
    return Dataset.from_list(data, features=features)


def write_parquet(path: Path, rows: Rows, **columns: Sequence[str]) -> Path:
    """As a snapshot of the Hub holds a split."""
    path.parent.mkdir(parents=True, exist_ok=True)
    make_dataset(rows, **columns).to_parquet(str(path))
    return path


def write_json(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def write_pictures(folder: Path, names: Sequence[str]) -> dict[str, bytes]:
    """A JPEG for every name; returns their bytes."""
    made = {name: picture(number, "JPEG") for number, name in enumerate(names)}
    for name, content in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return made


class Published:
    """The writers above, for tests."""

    picture = staticmethod(picture)
    text64 = staticmethod(text64)
    tsv = staticmethod(write_tsv)
    dataset = staticmethod(make_dataset)
    parquet = staticmethod(write_parquet)
    json = staticmethod(write_json)
    pictures = staticmethod(write_pictures)


@pytest.fixture(scope="session")
def published() -> Published:
    return Published()


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caches of datasets and huggingface_hub, empty for every test, and no network."""
    import datasets
    from datasets import config
    from huggingface_hub import constants

    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setattr(config, "HF_DATASETS_CACHE", folder / "datasets")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
    monkeypatch.delenv("BLINDSPOT_DATA", raising=False)
    datasets.disable_progress_bars()
    return folder


@pytest.fixture
def refused() -> Callable[..., str]:
    """The one line that a call is refused with."""
    from blindspot.errors import UserError

    def call(action: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(UserError) as caught:
            action(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call
