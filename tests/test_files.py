"""Lines of JSON that cannot be read."""

import json
from pathlib import Path

import pytest

from blindspot.errors import UserError
from blindspot.files import read_jsonl


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes"),
        ('{"n": 1' + "0" * 5000 + "}", "an integer has too many digits"),
        ("[" * 200_000, "nested too deeply"),
    ],
)
def test_a_line_that_python_cannot_read_is_named(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{json.dumps({'n': 1})}\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError) as refused:
        list(read_jsonl(path))
    assert str(refused.value) == f"{path}:2: not a JSON line ({reason})"
