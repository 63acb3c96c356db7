"""`blindspot doctor`: a whole machine, and broken ones."""

import json
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from blindspot import doctor
from blindspot.cli import app


def _named(name: str, runs: Path) -> doctor.Check:
    return next(check for check in doctor.report(runs) if check.name == name)


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch):
    """Pretend that packages have other versions; None for not installed."""
    real = metadata.version

    def pretend(**other: str | None) -> None:
        def version(name: str) -> str:
            found = other.get(name, "real")
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return real(name) if found == "real" else found

        monkeypatch.setattr(metadata, "version", version)

    return pretend


def test_where_tests_run_the_core_works(tmp_path: Path) -> None:
    checks = doctor.report(tmp_path / "runs")
    assert doctor.works(checks), [check for check in checks if check.state == "fault"]
    names = [check.name for check in checks]
    assert len(set(names)) == len(names)
    assert {"Python", "torch", "transformers", "CPU", "bfloat16", "CUDA", "memory", "disk", "run folder"} <= set(names)
    assert all(check.mend for check in checks if check.state != "ok")
    torch = _named("torch", tmp_path)
    assert torch.found == metadata.version("torch")
    assert not (tmp_path / "runs").exists()


def test_a_missing_package_is_a_fault_with_a_command(versions, tmp_path: Path) -> None:
    versions(transformers=None)
    check = _named("transformers", tmp_path)
    assert (check.state, check.found) == ("fault", "missing")
    assert check.mend.startswith("pip install ")
    assert not doctor.works(doctor.report(tmp_path))


def test_a_version_outside_the_range_is_a_fault_that_names_the_range(versions, tmp_path: Path) -> None:
    versions(torch="1.0.0")
    check = _named("torch", tmp_path)
    assert check.state == "fault"
    assert check.found.startswith("1.0.0, needs ")
    versions(torch="2.99.0+cu130")
    assert _named("torch", tmp_path).state == "ok"


def test_a_missing_extra_is_a_note(versions, tmp_path: Path) -> None:
    versions(pytest=None, ruff=None)
    check = _named("extra dev", tmp_path)
    assert check.state == "note"
    assert "pytest" in check.found and "ruff" in check.found and "hypothesis" not in check.found
    assert check.mend.endswith("[dev]'")
    assert doctor.works([check])


@pytest.mark.parametrize("root", [doctor.ROOT, Path("/no/source")])
def test_what_is_missing_is_installed_from_the_repository(
    versions, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "ROOT", root)
    versions(torch=None)
    assert re.search(r"pip install -c \S*constraints.txt -e '\S+'$", _named("torch", tmp_path).mend)


def test_the_packages_that_read_vicunas_tokenizer_are_an_extra(versions, tmp_path: Path) -> None:
    versions(sentencepiece=None, protobuf=None)
    check = _named("extra vicuna", tmp_path)
    assert (check.state, check.found) == ("note", "optional; without protobuf, sentencepiece")
    assert check.mend.endswith("[vicuna]'")


def test_torch_that_does_not_load_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    faults = [check for check in doctor.report(tmp_path) if check.state == "fault"]
    assert [check.name for check in faults] == ["torch loads"]
    assert "pip install" in faults[0].mend


def test_an_old_python_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("platform.python_version", lambda: "3.9.1")
    check = _named("Python", tmp_path)
    assert check.state == "fault" and check.mend.startswith("install Python >=")


def test_little_disk_and_memory_are_notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**20))
    monkeypatch.setattr(doctor, "_available_memory", lambda: 2**20)
    assert _named("disk", tmp_path).state == "note"
    assert _named("memory", tmp_path).state == "note"


def test_a_run_folder_that_can_not_be_written_is_a_note_with_a_way_out() -> None:
    check = _named("run folder", Path("/proc/runs"))
    assert check.state == "note"
    assert "--out" in check.mend


def test_the_command_prints_a_table_or_json_and_its_status_tells(versions, tmp_path: Path) -> None:
    runner = CliRunner()
    table = runner.invoke(app, ["doctor"], env={"COLUMNS": "120"})
    assert table.exit_code == 0
    assert "transformers" in table.stdout and "fault" not in table.stdout
    versions(transformers=None)
    broken = runner.invoke(app, ["doctor", "--json"])
    assert broken.exit_code == 2
    told = json.loads(broken.stdout)
    assert told["works"] is False
    assert {"name": "transformers", "state": "fault", "found": "missing"}.items() <= next(
        check for check in told["checks"] if check["name"] == "transformers"
    ).items()
