"""``blindspot serve`` as a user meets it."""

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.evaluation.base import Asked, Prompt
from blindspot.evaluation.models.api import ApiAnswerer
from blindspot.evaluation.serving.server import ChatServer, run

from .evaluation.tiny_families import checkpoint

COMMAND = """
import signal, sys
from blindspot.cli import app
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests started in the background ignore it
app(["serve", *sys.argv[1:]])
"""


def printed(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["serve", *arguments])
    return result.exit_code, result.stderr


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint("llava", tmp_path_factory.mktemp("served") / "tiny-llava")


@pytest.fixture
def process(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", COMMAND, str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        yield running
        running.kill()


def address(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    line = process.stdout.readline()
    found = re.fullmatch(r"Serving tiny-llava at (http://127\.0\.0\.1:\d+/v1); Ctrl-C stops it\n", line)
    assert found, line
    return found[1]


def test_it_serves_until_it_is_told_to_stop(process: "subprocess.Popen[str]") -> None:
    where = address(process)
    (reply,) = ApiAnswerer(where, "tiny-llava").answer([Asked("q", Prompt(("where?",), longest=3))])
    assert reply.error is None
    process.terminate()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and not out
    assert err == "stopping when the batch under way is answered; Ctrl-C again stops at once\n"


def test_the_second_ctrl_c_ends_it_in_the_middle_of_a_batch(process: "subprocess.Popen[str]") -> None:
    where = address(process)
    body = {"messages": [{"role": "user", "content": "what?"}], "max_tokens": 4000}  # to which the model says no end
    with pytest.raises(httpx2.TimeoutException):
        httpx2.post(f"{where}/chat/completions", json=body, timeout=0.5, trust_env=False)
    process.send_signal(signal.SIGINT)
    assert process.stderr and process.stderr.readline().startswith("stopping when the batch under way is answered")
    time.sleep(0.2)
    assert process.poll() is None, "the answer was ready too soon for this test"
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 130


def test_a_model_is_named_by_its_folder_however_that_is_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: list[str] = []

    class Started(Exception):
        """The model is open, and that is enough."""

    def start(self: ChatServer, answerer: Any, name: str, batch: int) -> None:
        names.append(name)
        raise Started

    monkeypatch.setattr(ChatServer, "start", start)
    monkeypatch.chdir(folder)
    (tmp_path / "latest").symlink_to(folder)
    for given in (".", f"{folder}/", "../tiny-llava", str(tmp_path / "latest")):
        with pytest.raises(Started):
            run(given, "127.0.0.1", 0, 1)
    assert names == ["tiny-llava"] * 3 + ["latest"]


def test_a_port_that_is_taken_is_said_before_the_model_is_looked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        status, err = printed("no/such/model", "--port", str(other.getsockname()[1]))
    assert status == 2 and err.startswith("error: port ") and err.count("\n") == 1
