"""A model whose answers are known: it says left where one patch is red, and right where it is blue."""

from pathlib import Path

import pytest

from blindspot.model.variant import save
from tests.diagnostics.test_photo_truth import reader


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder."""
    vlm, folder = reader(), tmp_path_factory.mktemp("models") / "reader"
    save(vlm.model, folder)
    vlm.processor.save_pretrained(folder)
    return folder
