"""Publishing a model: what goes to the Hub and what does not, what its card says, and that its code runs as written."""

import base64
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, constants
from PIL import Image
from typer.testing import CliRunner

from blindspot import ask, load
from blindspot.cli import app
from blindspot.reporting import collect
from blindspot.text import points
from tests.reporting.checker import edit_plan, mark_done
from tests.reporting.conftest import CLIP_ARMS, COLUMNS, write_run

TOKEN = "hf_theSecretOfThisTest"
RECORD = {"stage": "instruct", "study": "mine", "arm": "clip", "seed": 3, "encoder": "google/siglip-base-patch16-256",
          "language_model": "lmsys/vicuna-7b-v1.5", "lr": 2e-5, "data": "/home/someone/rows.json"}  # fmt: skip


def push(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["push", *map(str, arguments)])


def refused(*arguments: object) -> str:
    result = push(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, saved: Callable[[str, str], Any]) -> Path:
    """The run of a study of two arms and two seeds that left models, one of them not plain; the numbers are made up."""
    run = write_run(tmp_path_factory.mktemp("pushed") / "run", per_column=20, columns=COLUMNS[:3], arms=CLIP_ARMS)
    for arm in ("clip-learned", "clip-axial"):
        of = saved("clip", "learned" if arm == "clip-learned" else "axial-replace").folder
        for seed in (0, 1):
            step = run / f"steps/{arm}-{seed}-instruct"
            shutil.copytree(of, step / "model")
            mark_done(step)
            (run / "models").mkdir(exist_ok=True)
            (run / "models" / f"{arm}-seed{seed}").symlink_to(Path("..") / "steps" / step.name / "model")
    return run


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "run", symlinks=True)


@pytest.mark.parametrize("positions", ["learned", "axial-replace"])
def test_the_code_of_a_card_runs_as_it_is_written(
    saved: Callable[[str, str], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    positions: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert push(saved("clip", positions).folder, "lab/small", "--to", "lab/small").exit_code == 0
    picture = Image.new("RGB", (32, 32), "red")
    picture.save("picture.png")
    code = re.findall(r"```python\n(.*?)```", Path("lab/small/README.md").read_text(), re.DOTALL)
    assert len(code) == 1 and ("import blindspot" in code[0]) == (positions != "learned")
    if positions == "learned":
        alone = "import sys; sys.modules['blindspot'] = None\n" + code[0]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        told = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, env=environment)
        assert told.returncode == 0, told.stderr
        said = told.stdout
    else:
        exec(code[0], {})
        said = capsys.readouterr().out
    question = re.findall(r'"text": "(.*?)"', code[0])[-1]
    assert said.strip() == ask(*load(saved("clip", positions).folder), picture, question)


def test_a_card_says_what_the_run_measured_in_the_hubs_format(run: Path, tmp_path: Path) -> None:
    arms = [arm | {"label": "One | <b>two</b>"} for arm in CLIP_ARMS]
    edit_plan(run, arms=arms, recipes={"clip-axial": {"stages": {"instruct": {"lr": 4e-3, "steps": 300}}}})
    assert push(run, "lab/clip", "--arm", "clip-axial", "--seed", 1, "--to", tmp_path / "out").exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text()
    card, results = ModelCard(text, ignore_metadata_errors=False), collect(run)
    rows = {
        row["column"]: row
        for row in results["scores"]
        if (row["arm"], row["stage"], row["split"], row["seed"]) == ("clip-axial", "instruct", "iid", 1)
    }
    told = {one.dataset_type: one for one in card.data.eval_results}
    assert {name: one.metric_value for name, one in told.items()} == {
        name: round(100 * row["score"], 2) for name, row in rows.items()
    }
    for row in rows.values():
        assert f"| {points(row['score'])} | {points(row['low'])} to {points(row['high'])} | " in text
    for row in results["noise"]:
        assert row["stage"] != "instruct" or f" | {points(row['deviation'])} |" in text
    assert card.data.pipeline_tag == "image-text-to-text" and card.data.library_name == "blindspot"
    assert "| instruct | lr 0.004; steps 300 |" in text and "seed 1 of 0, 1" in text
    assert "<b>" not in text and "One | &lt;b&gt;two" in text
    assert card.data.license == "unknown"


def test_scores_not_told_from_guessing_are_named(run: Path, tmp_path: Path) -> None:
    columns = [
        column | {"description": "", "chance": 0.99 if column["id"] == "mmvp" else 0.01} for column in COLUMNS[:3]
    ]
    edit_plan(run, columns=columns)
    assert push(run, "--arm", "clip-axial", "--seed", 0, "--to", tmp_path / "out").exit_code == 0
    named = re.findall("Not told from guessing.*: (.*)\\.\n", (tmp_path / "out" / "README.md").read_text())
    assert named == ["MMVP Pairs"]


def test_numbers_that_mean_nothing_are_not_in_the_metadata(run: Path, tmp_path: Path) -> None:
    edit_plan(run, meaningful=False, scale="smoke")
    assert push(run, "--arm", "clip-learned", "--seed", 0, "--to", tmp_path / "out").exit_code == 0
    text = (tmp_path / "out" / "README.md").read_text()
    assert "model-index" not in text and "the numbers below mean nothing" in text


def test_a_name_under_models_is_the_same_arm(run: Path, tmp_path: Path) -> None:
    push(run, "lab/it", "--arm", "clip-learned", "--seed", 1, "--to", tmp_path / "a")
    push(run / "models" / "clip-learned-seed1", "lab/it", "--to", tmp_path / "b")
    assert (tmp_path / "a" / "README.md").read_bytes() == (tmp_path / "b" / "README.md").read_bytes()


def test_nothing_else_of_the_run_or_the_machine_is_published(run: Path, tmp_path: Path) -> None:
    model = run / "steps/clip-learned-0-instruct/model"
    for name in ("notes.txt", ".env", "optimizer.pt", "model.py", "training_args.bin", "weights.safetensors"):
        (model / name).write_text("private")
    for name, inside in (("config.json", "text_config"), ("tokenizer_config.json", None)):
        held = json.loads((model / name).read_text())
        (held[inside] if inside else held).update(
            _name_or_path=str(tmp_path), cache="/home/someone/cache", vocab_file="x"
        )
        (model / name).write_text(json.dumps(held))
    mark_done(model.parent)
    assert push(run, "--arm", "clip-learned", "--seed", 0, "--to", tmp_path / "out").exit_code == 0
    published = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert published.keys() <= {path.name for path in model.iterdir()} | {"README.md"}
    for name, content in published.items():
        assert not re.search(rb"private|/home/someone|_name_or_path", content.replace(b"`--private`", b"")), name
        assert str(tmp_path).encode() not in content
    assert published["model.safetensors"] == (model / "model.safetensors").read_bytes()


def test_a_training_run_has_its_recipe_and_the_licences_of_what_it_starts_from(
    saved: Callable[[str, str], Any], tmp_path: Path
) -> None:
    run = tmp_path / "trained"
    for seed in (3, 4):
        shutil.copytree(saved("clip", "learned").folder, run / f"clip-seed{seed}/instruct/model")
        (run / f"clip-seed{seed}/instruct/run.json").write_text(json.dumps(RECORD | {"seed": seed}))
    assert "clip-seed3, clip-seed4" in refused(run, "--to", tmp_path / "out")
    assert push(run, "--seed", 3, "--to", tmp_path / "out").exit_code == 0
    card = ModelCard((tmp_path / "out" / "README.md").read_text())
    assert card.data.base_model == ["google/siglip-base-patch16-256", "lmsys/vicuna-7b-v1.5"]
    assert (card.data.license, card.data.license_name) == ("other", "apache-2.0-and-llama2")
    assert "seed 3" in card.text and "lr 2e-05; data rows.json" in card.text and "someone" not in card.text
    push(run / "clip-seed3", "--to", tmp_path / "other", "--license", "mit")
    assert ModelCard((tmp_path / "other" / "README.md").read_text()).data.license == "mit"


def test_what_cannot_be_published_is_one_line(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = ("--to", tmp_path / "out")
    assert "say where" in refused(run)
    assert "name one with --arm: clip-learned, clip-axial" in refused(run, *out)
    assert "name one with --seed: 0, 1" in refused(run, "--arm", "clip-axial", *out)
    assert 'did you mean "clip-axial"?' in refused(run, "--arm", "clip-axal", *out)
    assert "clip-axial has 0, 1" in refused(run, "--arm", "clip-axial", "--seed", 7, *out)
    assert "leave them out" in refused(run / "models/clip-axial-seed0", "--seed", 0, *out)
    assert "is not a model folder" in refused(tmp_path, *out)
    assert "ORGANISATION/NAME" in refused(run, "clip", "--arm", "clip-axial", "--seed", 0)
    assert "exists; name a new folder" in refused(run, "--to", tmp_path)
    weights = run / "steps/clip-axial-0-instruct/model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert "is not as its step made it" in refused(run, "--arm", "clip-axial", "--seed", 0, *out)
    weights.unlink()
    assert "no weights in safetensors; a study's --keep" in refused(run, "--arm", "clip-axial", "--seed", 0, *out)
    (weights.parents[1] / "done.json").unlink()
    assert "is not done" in refused(run, "--arm", "clip-axial", "--seed", 0, *out)
    (tmp_path / "qwen").mkdir()
    (tmp_path / "qwen" / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    assert "blindspot export" in refused(tmp_path / "qwen", *out)
    edit_plan(run, steps=[])
    assert "trained no model" in refused(run, *out)
    shutil.copytree(run / "steps/clip-learned-0-instruct/model", tmp_path / "mine")
    (tmp_path / "mine" / "tokenizer_config.json").write_text("[")
    assert "tokenizer_config.json is damaged" in refused(tmp_path / "mine", *out)
    assert not (tmp_path / "out").exists()


class Hub(ThreadingHTTPServer):
    """The few endpoints of the Hub that an upload asks, over repositories in memory."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Endpoints)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.files: dict[str, bytes] = {}
        self.stored: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.made: dict[str, Any] = {}
        self.commits: list[dict[str, Any]] = []
        self.status = 200  # of the answer to whoever makes a repository; 400: to whoever brings a card


class _Endpoints(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, value: Any, status: int = 200, **headers: str) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, said in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, said)
        self.end_headers()
        self.wfile.write(body)

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_GET(self) -> None:
        hub = self.server
        if "/tree/" in self.path:
            self._answer([{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in hub.files])
        else:
            self._answer({"error": "Repository not found"}, 404, **{"X-Error-Code": "RepoNotFound"})

    def do_PUT(self) -> None:
        self.server.stored[self.path.rpartition("/")[2]] = self._read()
        self._answer({})

    def do_POST(self) -> None:
        hub, body = self.server, self._read()
        hub.asked.append((self.path, self.headers.get("Authorization", "")))
        if self.path == "/api/repos/create":
            hub.made = json.loads(body)
            said = {"error": "No", "url": f"{hub.url}/lab/clip"}
            status = 200 if hub.status == 400 else hub.status
            self._answer(said, status, **({"X-Error-Message": "No"} if status >= 400 else {}))
        elif self.path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            said = [] if ModelCard(text).data.pipeline_tag == "image-text-to-text" else [{"message": "no task"}]
            said += [{"message": "no such licence"}] if hub.status == 400 else []
            self._answer({"errors": said, "warnings": []}, 400 if said else 200)
        elif self.path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            mode = {True: "lfs", False: "regular"}
            files = [{"path": one, "uploadMode": mode[one.endswith("tensors")], "shouldIgnore": False} for one in names]
            self._answer({"files": files})
        elif self.path.endswith("/objects/batch"):
            objects = json.loads(body)["objects"]
            at = [one | {"actions": {"upload": {"href": f"{hub.url}/store/{one['oid']}"}}} for one in objects]
            self._answer({"transfer": "basic", "objects": at}, **{"Content-Type": "application/vnd.git-lfs+json"})
        else:
            hub.commits.append(self._commit([json.loads(line) for line in body.splitlines()]))
            self._answer({"commitUrl": f"{hub.url}/lab/clip/commit/1", "commitOid": "1" * 40})

    def _commit(self, lines: list[dict[str, Any]]) -> dict[str, Any]:
        header: dict[str, Any] = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                header = value
            elif line["key"] == "deletedFile":
                del self.server.files[value["path"]]
            elif line["key"] == "lfsFile":
                stored = self.server.stored[value["oid"]]
                assert hashlib.sha256(stored).hexdigest() == value["oid"]
                self.server.files[value["path"]] = stored
            else:
                self.server.files[value["path"]] = base64.b64decode(value["content"])
        return header


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def pushed(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`push` to that hub, by huggingface_hub as environment variables would set it before it is imported."""

    def call(*arguments: object, token: str = TOKEN, **settings: Any) -> Any:
        own = {"ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": True, "HF_TOKEN_PATH": str(tmp_path / "no token")}
        for name, value in (own | settings).items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", token)
        return push(*arguments)

    return call


def test_an_upload_is_what_to_writes_in_one_commit(
    hub: Hub, pushed: Callable[..., Any], run: Path, tmp_path: Path
) -> None:
    hub.files = {"model-00001-of-00002.safetensors": b"of before", "LICENSE": b"theirs"}
    which = (run, "lab/clip", "--arm", "clip-learned", "--seed", 0)
    done = pushed(*which, "--private", "--message", "Second try")
    assert done.exit_code == 0, done.stderr
    assert f"{hub.url}/lab/clip" in done.stdout
    assert push(*which, "--to", tmp_path / "out").exit_code == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files == written | {"LICENSE": b"theirs"}
    assert [commit["summary"] for commit in hub.commits] == ["Second try"]
    assert hub.made["name"] == "clip" and hub.made["organization"] == "lab" and hub.made["visibility"] == "private"
    assert all(key == f"Bearer {TOKEN}" for path, key in hub.asked if path.startswith("/api"))
    assert TOKEN not in done.stdout + done.stderr
    hub.status = 409  # it is there already
    assert pushed(*which).exit_code == 0 and len(hub.commits) == 2


@pytest.mark.parametrize(
    ("status", "settings", "message"),
    [
        (200, {"token": ""}, "no token .* `hf auth login`"),
        (200, {"HF_HUB_OFFLINE": True}, "HF_HUB_OFFLINE is set"),
        (200, {"ENDPOINT": "http://127.0.0.1:9"}, "127.0.0.1:9 cannot be reached"),
        (401, {}, "does not know the token .*`hf auth login`"),
        (403, {}, "may not write to lab/clip"),
        (404, {}, "there is no lab on the Hub"),
        (500, {}, "refused lab/clip: 500"),
        (400, {}, "refused the card of lab/clip .*no such licence"),
    ],
)
def test_an_upload_that_fails_is_one_line(
    hub: Hub,
    pushed: Callable[..., Any],
    saved: Callable[[str, str], Any],
    status: int,
    settings: dict[str, Any],
    message: str,
) -> None:
    hub.status = status
    done = pushed(saved("clip", "learned").folder, "lab/clip", **settings)
    assert done.exit_code == 2 and not hub.commits
    assert re.fullmatch(f"error: .*{message}.*\n", done.stderr), done.stderr
    assert TOKEN not in done.stdout + done.stderr
