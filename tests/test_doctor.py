"""`blindspot doctor`: a whole machine, and broken ones."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image
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


@pytest.mark.parametrize(
    ("package", "version", "found"), [("transformers", None, "missing"), ("torch", "1.0.0", "1.0.0, needs ")]
)
@pytest.mark.parametrize("root", [doctor.ROOT, Path("/no/source")])
def test_a_package_that_is_missing_or_of_another_version_is_a_fault_with_a_command(
    versions, package: str, version: str | None, found: str, root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    versions(**{package: version})
    source = doctor.report(tmp_path)
    monkeypatch.setattr(doctor, "ROOT", root)
    check = _named(package, tmp_path)
    assert check.state == "fault" and check.found.startswith(found) and not doctor.works(source)
    assert re.search(r"pip install -c \S*constraints.txt -e '\S+'$", check.mend)


def test_a_local_build_of_torch_is_as_good(versions, tmp_path: Path) -> None:
    versions(torch="2.99.0+cu130")
    assert _named("torch", tmp_path).state == "ok"


@pytest.fixture
def beside_a_strange_torchvision(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs commands where torchvision is installed and does not load: not here, since transformers would remember."""
    for name, text in {
        "torchvision/__init__.py": "raise RuntimeError('operator torchvision::nms does not exist')",
        "torchvision-0.1.dist-info/METADATA": "Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1\n",
    }.items():
        (tmp_path / "site" / name).parent.mkdir(parents=True)
        (tmp_path / "site" / name).write_text(text, encoding="utf-8")

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(tmp_path / "site"), str(Path(doctor.__file__).parents[1])])
        return subprocess.run(
            [sys.executable, "-m", "blindspot", *command],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_what_is_installed_and_does_not_load_is_a_fault(beside_a_strange_torchvision: Callable[..., Any]) -> None:
    checks = {
        check["name"]: check for check in json.loads(beside_a_strange_torchvision("doctor", "--json").stdout)["checks"]
    }
    assert checks["torchvision"]["state"] == "fault" and checks["torch"]["state"] == "ok"
    assert "operator torchvision::nms does not exist" in checks["torchvision"]["found"]
    assert "pip uninstall torchvision" in checks["torchvision"]["mend"]


def test_a_command_that_it_ends_says_so_in_one_line(
    beside_a_strange_torchvision: Callable[..., Any], tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "picture.png")
    (tmp_path / "model").mkdir()
    done = beside_a_strange_torchvision("ask", "model", "picture.png", "what?")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "operator torchvision::nms does not exist" in done.stderr and "blindspot doctor" in done.stderr


@pytest.mark.parametrize(
    ("extra", "missing", "there"),
    [("dev", ("pytest", "ruff"), "hypothesis"), ("vicuna", ("protobuf", "sentencepiece"), "torch")],
)
def test_a_missing_extra_is_a_note(versions, extra: str, missing: tuple[str, ...], there: str, tmp_path: Path) -> None:
    versions(**dict.fromkeys(missing))
    check = _named(f"extra {extra}", tmp_path)
    assert check.state == "note" and all(name in check.found for name in missing) and there not in check.found
    assert check.mend.endswith(f"[{extra}]'") and doctor.works([check])
    assert check.mend in CliRunner().invoke(app, ["doctor"], env={"COLUMNS": "300"}).stdout


def test_torch_that_does_not_load_is_a_fault(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    faults = [check for check in doctor.report(tmp_path) if check.state == "fault"]
    assert "torch" in [check.name for check in faults]
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
