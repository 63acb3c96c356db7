"""A toy study whose steps take no time, and ways to run it."""

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from blindspot.studies import study
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.schema import Study
from blindspot.studies.step import StepContext

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STUDY = """
name: toy
title: A toy study
source: scenes
arms:
  families: [clip]
  positions: [learned, axial]
  replicate: clip-learned
seeds: 1
data: {train: 10, test: 10}
model: {image: 32, patch: 8, width: 64, heads: 2, mlp: 172, encoder_layers: 2, language_layers: 3, rotary_base: 100}
text: {about: plain, steps: 3, batch: 2, lr: 5e-3}
encoder: {captions: objects, steps: 3, batch: 2, lr: 3e-3}
connector: {steps: 3, batch: 2, lr: 5e-3}
instruct: {encoder: trained, steps: 3, batch: 2, lr: 4e-3}
scales:
  smoke: {instruct: {steps: 1}}
"""
REAL = """
# A comment.
extends: paper
name: small
title: Two arms
arms:
  base: {image_size: 64, connector: mlp, language_model: lmsys/vicuna-7b-v1.5}
  named:
    - {id: siglip, label: SigLIP, encoder: google/siglip-base-patch16-256}
    - {id: axial, label: "SigLIP, 2D-RoPE", encoder: google/siglip-base-patch16-256, positions: axial}
benchmarks: [mmvp, vsr]
"""
"""A study of real size."""


@pytest.fixture
def study_file(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(STUDY)
    return path


@pytest.fixture
def study_of(study_file: Path) -> Callable[..., Study]:
    """The toy study with other arms, or other values."""

    def make(arms: dict[str, Any] | None = None, **values: Any) -> Study:
        raw = yaml.safe_load(study_file.read_text())
        path = study_file.with_name("made.yaml")
        path.write_text(yaml.safe_dump({**raw, "arms": raw["arms"] if arms is None else arms, **values}))
        return load_study(path)

    return make


@pytest.fixture
def run_toy(study_file: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run the toy study in this process into a folder; returns what was printed."""
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setattr(study, "code_version", lambda: "toy")

    def run(out: Path, workers: int | None = 1, terminal: bool = False, **where: Any) -> str:
        console = Console(force_terminal=terminal, width=100, record=True, file=io.StringIO())
        try:
            study.run_study(
                str(study_file), out=out, workers=workers, console=console, registry="toy_steps:STEPS", **where
            )
        finally:
            printed = console.export_text()
        return printed

    return run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[set[str], str]]:
    """Run a study of real size over toy steps; returns which steps were carried out, and what was printed."""
    monkeypatch.syspath_prepend(HERE)
    trace = tmp_path / "trace"
    monkeypatch.setenv("TOY_TRACE", str(trace))

    def call(text: str = REAL, scale: str | None = "rehearsal", **options: Any) -> tuple[set[str], str]:
        trace.write_text("")
        (tmp_path / "small.yaml").write_text(text)
        console, name = Console(file=io.StringIO(), width=500, record=True), str(tmp_path / "small.yaml")
        said = {"out": tmp_path / "run", "scale": scale, "registry": "toy_steps:STEPS", "console": console, **options}
        study.run_study(name, **{"workers": 1, **said})
        return {line.split()[0] for line in trace.read_text().splitlines()}, console.export_text()

    return call


@pytest.fixture
def command(study_file: Path, tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start the command line over toy steps as a process of its own."""

    def start(*arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(HERE / "toy_cli.py"), *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_control_c,
        )

    return start


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 15) -> None:
    """Until something has come to pass while a process runs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate(timeout=1)
        time.sleep(0.01)


def _hear_control_c() -> None:
    """Shells start background jobs deaf to it, and what they start inherits that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def contents() -> Callable[[Path], dict[str, bytes]]:
    """All that the steps of a run made."""

    def read(run: Path) -> dict[str, bytes]:
        files = (path for path in (run / "steps").rglob("*") if path.is_file() and path.name != "done.json")
        return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}

    return read


@pytest.fixture(scope="session")
def run_inline() -> Callable[..., Path]:
    """Run a study with the real steps in this process: worker processes take seconds to start."""
    from blindspot.studies.engine import carry_out
    from blindspot.studies.steps import STEPS

    class Inline:
        task: Any = None

        def __init__(self, *arguments: Any) -> None: ...

        def free(self, step: Any) -> bool:
            return self.task is None

        def start(self, task: Any) -> None:
            self.task = task

        def wait(self, seconds: float) -> list[Any]:
            task, self.task = self.task, None
            return [(task, carry_out(task, STEPS[task.step.kind], lambda advanced: None))]

        def close(self) -> None: ...

    def run(study_file: Path, out: Path, data: Path | None = None) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(study, "LocalPool", Inline)
            return study.run_study(str(study_file), out=out, data=data, console=Console(file=io.StringIO()))

    return run


@pytest.fixture(scope="session")
def contexts() -> Callable[..., dict[str, StepContext]]:
    """Every step of a run, to be looked at or repeated; of the study that the run keeps, or of another."""

    def make(run: Path, of: Study | None = None) -> dict[str, StepContext]:
        steps = {step.id: step for step in plan_steps(of or load_study(run / "study.yaml"), study.code_version())}
        folders = {name: run / step.folder for name, step in steps.items()}
        return {
            name: StepContext(
                step,
                folders[name],
                {role: folders[source] for role, source in step.inputs.items()},
                lambda *arguments, **options: None,
            )
            for name, step in steps.items()
        }

    return make
