"""The rehearsal of a study of real size, killed at many moments, ends with the bytes of one that nothing disturbed.

As many moments as the environment variable BLINDSPOT_KILLS says; ``make faults`` has ten.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import pytest

from blindspot.files import LOG, holder
from tests.studies.conftest import REAL

LONGEST_STEP = 2.0  # seconds, about


def start(study: str, out: Path) -> subprocess.Popen[bytes]:
    """Rehearse a study in a process that leads a group, which its workers belong to."""
    command = [sys.executable, "-m", "blindspot", "study", study, "--scale", "rehearsal", "--seeds", "1"]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            [*command, "--out", str(out), "--workers", "2"],
            stdout=log,
            stderr=log,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            start_new_session=True,
        )


def finish(study: str, out: Path) -> None:
    """Rehearse a study to its end."""
    assert start(study, out).wait() == 0, out.with_suffix(".log").read_text()


def done(run: Path) -> dict[str, int]:
    """When each finished step was."""
    return {path.parent.name: path.stat().st_mtime_ns for path in run.glob("steps/*/done.json")}


def kill_and_go_on(study: str, out: Path, kills: int, steps: int) -> list[int]:
    """Kill engine and workers at moments spread over a study's steps, the same command going on after each, then let
    it end. Returns how many steps were done at each kill."""
    rng, moments = Random(0), list[int]()
    for number in range(kills):
        process, wanted = start(study, out), int((number + rng.random()) * steps / kills)
        while len(done(out)) < wanted and process.poll() is None:
            time.sleep(0.02)
        time.sleep(rng.random() * LONGEST_STEP)
        before = done(out)
        os.killpg(process.pid, signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            moments.append(len(before))
        while holder(out):  # until the last worker is gone
            time.sleep(0.02)
        assert before.items() <= done(out).items(), "what is done stays done"
    before = done(out)
    finish(study, out)
    assert before.items() <= done(out).items(), "and is not done again"
    return moments


def made(run: Path) -> dict[str, Any]:
    """All that a run made: checksums of every step's files, but of logs with the times of training; and the results."""
    found: dict[str, Any] = {name: (run / name).read_bytes() for name in ("results.json", "report/index.html")}
    for path in run.glob("steps/*/done.json"):
        files = json.loads(path.read_text())["files"]
        found[path.parent.name] = {name: checksum for name, checksum in files.items() if name != LOG}
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("study") / "small.yaml"
    path.write_text(f"{REAL}diagnose: [probes, counterfactuals]\n".replace("vsr", "gqa"))
    return str(path)


@pytest.fixture(scope="module")
def whole(study: str) -> Path:
    """The run that nothing disturbed."""
    finish(study, run := Path(study).with_name("whole"))
    return run


@pytest.mark.skipif("BLINDSPOT_KILLS" not in os.environ, reason="takes minutes: make faults")
def test_killed_at_many_moments_it_ends_with_the_same_bytes(study: str, whole: Path, tmp_path: Path) -> None:
    steps, kills = len(done(whole)), int(os.environ["BLINDSPOT_KILLS"])
    assert steps == 1 + 3 * (2 + 2 * 2 + 1)
    moments = kill_and_go_on(study, tmp_path / "killed", kills, steps)
    assert len(moments) >= kills - 1, "the last may come after the end"
    assert made(tmp_path / "killed") == made(whole)
