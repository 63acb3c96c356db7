"""The golden facts hold. They are recorded anew, and what changed is printed, by ``python tests/golden/record.py``."""

import shlex
import sys
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import record
from entry import command

WRONG = yaml.safe_load((record.HERE / "wrong_calls.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", record.FACTS)
def test_facts_are_as_recorded(name: str, tmp_path: Path, one_thread: None) -> None:
    found = record.differences(name, record.FACTS[name](tmp_path))
    assert not found, "\n".join(found[:20])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("wrong")
    (made / "empty").mkdir()
    for name, content in WRONG["files"].items():
        (made / name).parent.mkdir(exist_ok=True)
        (made / name).write_text(content, encoding="utf-8")
    return made


@pytest.mark.parametrize(("call", "word"), WRONG["calls"], ids=lambda value: str(value).replace("/", "|"))
def test_a_wrong_call_is_one_line(call: str, word: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("BLINDSPOT_DATA", raising=False)
    before = sorted(folder.rglob("*"))
    result = command(*shlex.split(call))
    assert result.exit_code == 2, result.output
    assert result.stdout == "" and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert word in result.stderr
    assert sorted(folder.rglob("*")) == before
