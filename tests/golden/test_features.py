"""Every feature of ``tests/features.yaml`` has a test that is there; and what no room's tests prove."""

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))

import record
from entry import command

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
FEATURES: dict[str, dict[str, Any]] = yaml.safe_load((TESTS / "features.yaml").read_text(encoding="utf-8"))


@cache
def _functions(path: Path) -> set[str]:
    """Tests of a file as pytest names them."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        inside = node.body if isinstance(node, ast.ClassDef) else []
        found |= {f"{node.name}::{one.name}" for one in inside if isinstance(one, ast.FunctionDef)}  # pyright: ignore
        found |= {node.name} if isinstance(node, ast.FunctionDef) else set()
    return found


def test_every_feature_has_a_test_that_is_there() -> None:
    tests = {one["test"] if isinstance(one, dict) else one for lines in FEATURES.values() for one in lines.values()}
    absent = [
        test
        for test in sorted(tests)
        for path, _, name in [test.partition("::")]
        if not (ROOT / path).is_file() or name not in _functions(ROOT / path)
    ]
    assert not absent


@pytest.mark.parametrize(
    ("second", "arguments", "status"),
    [
        ("tests/test_b.py::test_skipped", [], 1),
        ("tests/test_b.py::test_skipped", ["tests/test_a.py"], 0),
        ("{test: 'tests/test_b.py::test_skipped', needs: [no_such_package]}", [], 0),
        ("tests/test_b.py::test_other", ["-p", "xdist", "-n", "2", "--dist", "loadfile"], 0),
    ],
    ids=["alone", "part", "needs", "proved on workers"],
)
def test_a_whole_run_in_which_a_features_test_did_not_pass_fails(
    tmp_path: Path, second: str, arguments: list[str], status: int
) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    shutil.copy(TESTS / "conftest.py", tests)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\ntestpaths = ["tests"]\n')
    (tests / "test_a.py").write_text("def test_one(): pass\n")
    (tests / "test_b.py").write_text("import pytest\ndef test_other(): pass\ndef test_skipped(): pytest.skip('no')\n")
    (tests / "features.yaml").write_text(f"all:\n  one: tests/test_a.py::test_one\n  two: {second}\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stdout
    assert ("all, two: tests/test_b.py::test_skipped did not pass" in done.stdout) == (status == 1)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_takes_an_interpreter_and_an_environment(tmp_path: Path) -> None:
    arguments = ["make", "-n", "test", "PYTHON=/some/python", f"VENV={tmp_path}/own"]
    planned = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert f"{tmp_path}/own/bin/pytest" in planned and "for python in /some/python;" in planned


def test_every_block_is_compiled_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    import torch

    compiled: list[Any] = []
    monkeypatch.setattr(torch, "compile", lambda forward: compiled.append(forward) or forward)
    record.write_llava(tmp_path)
    made = command(*record.trained(tmp_path), "--stage", "connector", "--steps", 1, "--compile")
    assert made.exit_code == 0, made.output
    assert len(compiled) == 2 * record.LAYERS
