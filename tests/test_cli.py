"""The command line as a user meets it: exit statuses and single lines."""

import functools
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from blindspot.cli import app
from blindspot.cli.common import one_line_errors

ROOT = Path(__file__).parents[1]
TOY = ROOT / "tests" / "studies" / "toy_cli.py"

Run = Callable[..., subprocess.CompletedProcess[str]]


def command(*arguments: str) -> Result:
    """The command line in this process."""
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "100"})


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run the command line over toy steps to its end."""

    def call(
        *arguments: str, stdout: Any = subprocess.PIPE, preexec_fn: Any = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(TOY), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment},
            stdout=stdout,
            stderr=subprocess.PIPE,
            preexec_fn=preexec_fn,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def test_a_study_runs_reports_and_is_found_done_without_loading_torch(run: Run, tmp_path: Path) -> None:
    first = run("study", "miniature", "--scale", "smoke")
    assert (first.returncode, first.stderr) == (0, "")
    assert "The page: runs/miniature-smoke/report/index.html" in first.stdout
    assert (tmp_path / "runs/miniature-smoke/plan.json").is_file()
    second = run("study", "miniature", "--scale", "smoke", TOY_SHOW_TORCH="1")
    assert "everything is done already" in second.stdout
    assert "torch loaded: False" in second.stdout
    third = run("report", "runs/miniature-smoke")
    assert third.returncode == 0
    assert "tables of" in third.stdout


def test_a_bug_is_one_line_and_status_1(run: Run) -> None:
    result = run("study", "miniature", "--scale", "smoke", TOY_BREAK="data=bug")
    assert result.returncode == 1
    assert result.stderr.startswith("error: data failed: ZeroDivisionError: toy bug")
    assert result.stderr.count("\n") == 1


def test_wrong_usage_is_status_2() -> None:
    assert command("study").exit_code == 2
    assert command("study", "miniature", "--no-such-option").exit_code == 2


def test_help_and_version() -> None:
    help_page = command("study", "--help")
    assert help_page.exit_code == 0
    for part in ("--scale", "report/index.html", "Examples", "130 interrupted"):
        assert part in help_page.stdout
    version = command("--version")
    assert version.exit_code == 0 and version.stdout.startswith("blindspot ")


@pytest.mark.parametrize("arguments", [("--help",), ("compare-arms", "why", "--json")])
def test_output_that_cannot_be_written_is_one_line(run: Run, arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        result = run(*arguments, stdout=full)
    assert result.returncode == 2
    assert result.stderr.startswith("error: No space left on device") and result.stderr.count("\n") == 1


def test_output_in_ascii_loses_marks_and_nothing_else(run: Run) -> None:
    results = [run("benchmarks", PYTHONIOENCODING=encoding) for encoding in ("ascii", "utf-8")]
    assert [(result.returncode, result.stderr) for result in results] == [(0, "")] * 2
    words, expected = (re.findall(r"[A-Za-z0-9_.]+", result.stdout) for result in results)
    assert words == expected and not results[1].stdout.isascii()


def test_too_little_memory_is_one_line(run: Run) -> None:
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_AS, (2 * 10**8, 2 * 10**8))
    result = run("encoders", preexec_fn=limit)
    assert result.returncode == 2
    assert result.stderr.startswith("error: out of memory") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("work", [lambda torch: torch.empty(2**50), lambda torch: "x" * 2**50])
def test_a_failed_allocation_is_one_line(capsys: pytest.CaptureFixture[str], work: Callable[[Any], object]) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(typer.Exit) as ended, one_line_errors():
        work(torch)
    said = capsys.readouterr().err
    assert (ended.value.exit_code, said.count("\n")) == (2, 1) and said.startswith("error: out of memory")
