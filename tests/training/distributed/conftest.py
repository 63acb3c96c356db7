"""What the tests of this folder share: a tiny variant and data set, and one thread."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # toy_training, which processes that tests start import too


@pytest.fixture(autouse=True, scope="module")
def _one_thread(one_thread: None) -> None: ...
