"""What every test of benchmarks stands on: caches of its own, no network, and refusals in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import config
from huggingface_hub import constants

from blindspot.errors import UserError


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The caches of datasets and huggingface_hub, empty for every test, and no network."""
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

    def call(action: Callable[..., Any], *arguments: Any) -> str:
        with pytest.raises(UserError) as caught:
            action(*arguments)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return call
