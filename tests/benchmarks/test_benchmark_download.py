"""Downloads from a server on this machine that stalls, lies and breaks off, what is found offline, and the commands."""

import fcntl
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from blindspot.benchmarks.base import Benchmark, Source
from blindspot.benchmarks.registry import BENCHMARKS, find
from blindspot.benchmarks.sources import download
from blindspot.benchmarks.sources.download import UNFINISHED, data_root, fetch, get, locate
from blindspot.cli import app
from blindspot.errors import UserError

CONTENT = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Serves one content under every path but ``/none``.

    Attributes:
        content: that it serves.
        said: further headers: what the content is, and which of its versions.
        limit: bytes after which a response breaks off.
        ranges: whether it can continue.
        heeds: whether it looks at If-Range.
        slip: bytes from where it was asked to continue to where it does.
        asked: the Range headers it got.
    """

    daemon_threads = True
    limit: int | None = None
    ranges = heeds = True
    slip = 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.content = CONTENT
        self.said = {"ETag": '"one"'}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server: Any = self.server
        wanted = self.headers.get("Range")
        server.asked.append(wanted)
        if self.path.endswith("/none"):
            self.send_error(404)
            return
        same = self.headers.get("If-Range") in (None, *server.said.values()) or not server.heeds
        start = int(re.findall(r"\d+", wanted)[0]) + server.slip if wanted and server.ranges and same else 0
        whole = len(server.content)
        if start >= whole:
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(whole - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        for name, value in server.said.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(server.content[start : server.limit])

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = Server()
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def of(*sources: Source) -> Benchmark:
    return replace(find("mmvp"), sources=sources)


def url_source(server: Server, md5: str) -> Source:
    return replace(find("mmvp").sources[0], files=(f"{server.url}/MMVP.tsv",), md5={"MMVP.tsv": md5})


def nobody(*_: Any, **__: Any) -> None:
    """The Hub's interface where no name resolves."""
    raise httpx2.ConnectError("[Errno -2] Name or service not known")


class TestFetch:
    @pytest.fixture
    def attempt(self, tmp_path: Path, server: Server) -> Callable[..., str | bytes]:
        """Fetch a file: what it holds then, or why not."""

        def call(name: str = "x", report: download.Report | None = None) -> str | bytes:
            try:
                fetch(f"{server.url}/{name}", tmp_path / "x", report)
            except UserError as error:
                return str(error)
            return (tmp_path / "x").read_bytes()

        return call

    def test_a_broken_download_is_continued(self, tmp_path: Path, server: Server, attempt: Any) -> None:
        told: list[tuple[str, int, int | None]] = []
        server.limit = 828  # what follows begins with "<", as web pages do
        assert "run the same command again to continue" in attempt()
        assert not (tmp_path / "x").exists()
        server.limit = None
        assert attempt(report=lambda *progress: told.append(progress)) == CONTENT
        assert server.asked == [None, "bytes=828-"]
        assert told[-1] == ("x", len(CONTENT), len(CONTENT))
        assert [path.name for path in tmp_path.iterdir()] == ["x"]

    @pytest.mark.parametrize(
        ("said", "changed", "heeds", "goes_on"),
        [
            ({"Last-Modified": "Mon, 05 Oct 2026"}, {"Last-Modified": "Mon, 05 Oct 2026"}, True, True),
            ({"ETag": '"one"'}, {"ETag": '"two"'}, True, True),
            ({"Last-Modified": "Mon, 05 Oct 2026"}, {"Last-Modified": "Tue, 06 Oct 2026"}, True, True),
            ({"ETag": '"one"'}, {"ETag": '"two"'}, False, True),
            ({"ETag": 'W/"one"'}, {"ETag": 'W/"one"'}, True, False),
            ({}, {}, True, False),
        ],
    )
    def test_a_file_that_has_changed_is_not_mixed(
        self, server: Server, attempt: Any, said: Any, changed: Any, heeds: bool, goes_on: bool
    ) -> None:
        server.said, server.limit, server.heeds = said, 1000, heeds
        assert isinstance(attempt(), str)
        server.said, server.limit = changed, None
        if said != changed or not goes_on:  # else the file is what it was
            server.content = bytes(reversed(CONTENT))
        if not heeds:
            assert "not the one that was begun" in attempt()
        assert attempt() == server.content
        assert server.asked[1] == ("bytes=1000-" if goes_on else None)

    @pytest.mark.parametrize("slip", [-500, 500, len(CONTENT)])
    def test_what_is_sent_from_elsewhere_is_thrown_away(self, server: Server, attempt: Any, slip: int) -> None:
        server.limit = 1000
        assert isinstance(attempt(), str)
        server.limit, server.slip = None, slip
        assert "not the one that was begun" in attempt()
        assert attempt() == CONTENT

    def test_a_server_that_cannot_continue_begins_again(self, server: Server, attempt: Any) -> None:
        server.limit = 1000
        assert isinstance(attempt(), str)
        server.limit, server.ranges = None, False
        assert attempt() == CONTENT

    @pytest.mark.parametrize(
        ("kind", "page"), [("text/html; charset=utf-8", b"Please sign in"), ("image/jpeg", b"\n<!DOCTYPE html>gone")]
    )
    def test_a_web_page_is_not_the_file_and_does_no_harm_to_what_is_there(
        self, server: Server, attempt: Any, kind: str, page: bytes
    ) -> None:
        server.limit = 1000
        assert isinstance(attempt(), str)
        server.said, server.content = {"Content-Type": kind}, page
        assert "a web page" in attempt()
        server.said, server.content, server.limit = {"ETag": '"one"'}, CONTENT, None
        assert attempt() == CONTENT
        assert server.asked[2] == "bytes=1000-"

    def test_two_processes_do_not_write_one_file(self, tmp_path: Path, server: Server, attempt: Any) -> None:
        with (tmp_path / ".x.part").open("ab") as other:
            fcntl.flock(other, fcntl.LOCK_EX)
            assert attempt() == f"{tmp_path / 'x'} is being downloaded by another process; wait for it"
            assert server.asked == []
        assert attempt() == CONTENT

    def test_what_is_there_is_not_asked_for(self, tmp_path: Path, server: Server, attempt: Any) -> None:
        (tmp_path / "x").write_bytes(b"mine")
        assert attempt() == b"mine"
        assert server.asked == []

    def test_no_server_and_no_file(self, tmp_path: Path, attempt: Any, refused: Callable[..., str]) -> None:
        assert "404" in attempt("none")
        message = refused(fetch, "http://127.0.0.1:9/x", tmp_path / "x")
        assert f"place the file at {tmp_path / 'x'}" in message


class TestGet:
    def test_a_file_is_checked_and_then_found(self, tmp_path: Path, server: Server) -> None:
        benchmark = of(url_source(server, hashlib.md5(CONTENT).hexdigest()))
        folder = tmp_path / "mmvp" / "tsv"
        assert get(benchmark, tmp_path) == (folder, False)
        assert [path.name for path in folder.iterdir()] == ["MMVP.tsv"]
        assert get(benchmark, tmp_path) == (folder, True)
        assert len(server.asked) == 1

    def test_a_wrong_checksum_removes_the_file(
        self, tmp_path: Path, server: Server, refused: Callable[..., str]
    ) -> None:
        benchmark = of(url_source(server, "0" * 32))
        assert f"md5 {hashlib.md5(CONTENT).hexdigest()}, published {'0' * 32}" in refused(get, benchmark, tmp_path)
        assert locate(benchmark, tmp_path) is None

    def test_a_data_set_counts_when_all_its_files_came(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
    ) -> None:
        """Of three files the first comes, then huggingface_hub is content offline, then the second comes."""
        from huggingface_hub.hf_api import DatasetInfo

        names = ["README.md", "data/train-a.parquet", "data/train-b.parquet"]
        folder = tmp_path / "mmvp" / "hub"
        steps: list[str | None] = [names[1], None, names[2]]
        calls: list[dict[str, Any]] = []

        def snapshot(repository: str, **options: Any) -> None:
            calls.append({"repository": repository, **options})
            if came := steps.pop(0):
                (folder / came).parent.mkdir(exist_ok=True)
                (folder / came).touch()
                if came == names[1]:
                    raise KeyboardInterrupt

        info = DatasetInfo(id="x", sha="abc", siblings=[{"rfilename": name} for name in names], tags=[])
        monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", lambda *_, **__: info)
        monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
        with pytest.raises(KeyboardInterrupt):
            get(find("mmvp"), tmp_path, "hub")
        assert (folder / UNFINISHED).exists()
        assert "(data/train-b.parquet did not come)" in refused(get, find("mmvp"), tmp_path, "hub")
        assert get(find("mmvp"), tmp_path, "hub") == (folder, False)
        assert get(find("mmvp"), tmp_path, "hub") == (folder, True)
        assert len(calls) == 3
        assert calls[0] == {
            "repository": "lmms-lab-eval/MMVP",
            "repo_type": "dataset",
            "revision": "abc",
            "local_dir": folder,
            "allow_patterns": ["train*.parquet", "*/train*.parquet"],
        }

    def test_a_form_that_was_begun_is_gone_on_with(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        folder = tmp_path / "mmvp" / "hub"
        folder.mkdir(parents=True)
        (folder / UNFINISHED).touch()
        assert "cannot download huggingface.co/datasets/lmms-lab-eval/MMVP" in refused(get, find("mmvp"), tmp_path)

    @pytest.mark.parametrize("offline", [True, False])
    def test_without_a_network_one_line_says_what_to_place_where(
        self, tmp_path: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch, offline: bool
    ) -> None:
        """Told to be offline, and finding nobody at the other end."""
        if not offline:
            monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", nobody)
        message = refused(get, find("gqa"), tmp_path, "hub")
        assert "cannot download huggingface.co/datasets/lmms-lab/GQA" in message
        assert f"in {tmp_path / 'gqa' / 'hub'}" in message

    def test_what_cannot_be_downloaded(self, tmp_path: Path, refused: Callable[..., str]) -> None:
        assert "place questions1.2.zip and images.zip" in refused(get, find("gqa"), tmp_path, "original")
        assert "place git clone" in refused(get, find("nlvr"), tmp_path)
        message = refused(get, find("mmvp"), tmp_path, "json")
        assert "--form json: mmvp is not published so; one of: tsv, hub, original" in message

    def test_linked_pictures_are_fetched_once(
        self, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from blindspot import files

        folder = tmp_path / "vsr" / "original"
        one = {"caption": "A is on B.", "label": 1, "relation": "on"}
        rows = [{**one, "image": f"{n}.jpg", "image_link": f"{server.url}/{n}"} for n in (1, 2)]
        files.write_jsonl(folder / "test.jsonl", rows)
        monkeypatch.setattr(download, "_snapshot", lambda source, folder: None)
        assert get(find("vsr"), tmp_path, "original") == (folder, False)
        assert len(server.asked) == 2
        assert get(find("vsr"), tmp_path, "original") == (folder, True)
        got = find("vsr").read(folder)
        assert got.images.read(0) == CONTENT
        assert len(got.questions) == 2


class TestLocate:
    def test_places_in_order(self, tmp_path: Path) -> None:
        benchmark = find("mmvp")
        assert locate(benchmark, tmp_path) is None
        places = [tmp_path / "MMVP.tsv", tmp_path / "mmvp" / "MMVP.tsv", tmp_path / "mmvp" / "tsv" / "MMVP.tsv"]
        for path in places:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            assert locate(benchmark, tmp_path) == (path if path.parent == tmp_path else path.parent)
        assert locate(benchmark, tmp_path, "hub") is None

    def test_the_caches_of_hugging_face(self, tmp_path: Path, own_caches: Path) -> None:
        hub = own_caches / "hub" / "datasets--lmms-lab--MME" / "snapshots" / "abc"
        datasets = own_caches / "datasets" / "nyu-visionx___cv-bench" / "2D" / "0.0.0" / "h"
        for path in (hub / "data" / "test-00000-of-00001.parquet", datasets / "cv-bench-test.arrow"):
            path.parent.mkdir(parents=True)
            path.touch()
        assert locate(find("mme"), tmp_path) == hub
        assert locate(find("cvbench_2d"), tmp_path) == own_caches / "datasets" / "nyu-visionx___cv-bench"

    def test_the_root(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert data_root() == Path("data")
        monkeypatch.setenv("BLINDSPOT_DATA", "/scratch")
        assert data_root() == Path("/scratch")
        assert data_root(Path("x")) == Path("x")


run = CliRunner(env={"COLUMNS": "200"})


def test_the_list_says_what_is_on_this_disk(tmp_path: Path) -> None:
    (tmp_path / "MME.tsv").touch()
    done = run.invoke(app, ["benchmarks", "--data", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    found = {facts["name"]: facts for facts in json.loads(done.stdout)}
    assert len(found) == len(BENCHMARKS)
    assert found["mme"]["on_disk"] == str(tmp_path / "MME.tsv")
    assert found["vsr"]["on_disk"] is None
    assert found["gqa"]["forms"][0]["counts"]["questions"] == 12578
    table = run.invoke(app, ["benchmarks", "--data", str(tmp_path)]).stdout
    assert "12,578" in table
    assert "hub 491" in table
    assert "not stated" in table
    narrow = run.invoke(app, ["benchmarks", "--data", str(tmp_path)], env={"COLUMNS": "80"}).stdout.split("\nmmvp:")[0]
    assert "…" not in narrow.split("on this disk")[0] and all(f" {name} " in narrow for name in found)


def test_get_says_that_it_is_there(tmp_path: Path) -> None:
    (tmp_path / "mme").mkdir()
    (tmp_path / "mme" / "MME.tsv").touch()
    done = run.invoke(app, ["data", "get", "mme", "--data", str(tmp_path)])
    assert (done.exit_code, done.stdout) == (0, f"Already there: {tmp_path / 'mme'}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["vrs"], 'did you mean "vsr"?'),
        (["gqa", "--form", "original"], "cannot be downloaded by itself"),
        (["mme", "--form", "hub"], "cannot download huggingface.co/datasets/lmms-lab/MME"),
    ],
)
def test_get_ends_in_one_line(tmp_path: Path, arguments: list[str], message: str, capfd: Any) -> None:
    done = run.invoke(app, ["data", "get", *arguments, "--data", str(tmp_path)])
    assert done.exit_code == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1
    assert message in lines[0]
