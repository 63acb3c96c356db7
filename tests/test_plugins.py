"""Plug-ins: the examples of docs/plugins.md as they are written there, in a folder of their own, and what is wrong."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from blindspot import plugins
from blindspot.cli import app
from blindspot.connectors import ConnectorSpec, build, output_tokens
from blindspot.encoders import ENCODERS, TowerShape, build_tower
from blindspot.errors import UserError
from blindspot.evaluation.adapters import ADAPTERS, recognise
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.files import write_json, write_jsonl
from blindspot.positions import EncoderPositions
from blindspot.studies.versions import code_version

PAGE = (Path(__file__).parents[1] / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLES = {match[1]: match[0] for match in re.finditer(r"# (\w+\.py)\n.*?(?=```)", PAGE, re.DOTALL)}
STUDY = """
extends: miniature
name: mine
title: Mine
arms:
  base: {family: clip}
  cross: {positions: [learned, diagonal], connector: [mlp, strided]}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that holds the examples; what is loaded in this process is forgotten in the end."""
    for name, text in EXAMPLES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(plugins.VARIABLE, "")
    held = [{**registry} for _, registry, _ in plugins._registries]
    modules, added, registries = {**plugins._modules}, {**plugins._added}, [*plugins._registries]
    yield tmp_path
    plugins._registries[:] = registries
    for (_, registry, _), before in zip(registries, held, strict=True):
        registry.clear()
        registry.update(before)
    for now, before in ((plugins._modules, modules), (plugins._added, added)):
        now.clear()
        now.update(before)  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.fixture
def doors(own: Path) -> Path:
    """The data of the benchmark, and recorded answers to it."""
    folder = own / "data" / "doors"
    folder.mkdir(parents=True)
    rows = []
    for number in range(4):
        Image.new("RGB", (20, 30), (number, 0, 0)).save(folder / f"{number}.png")
        side = ("left", "right")[number % 2]
        rows.append({"id": number, "picture": f"{number}.png", "question": "Open?", "answer": "yes", "side": side})
    write_json(folder / "doors.json", rows)
    write_jsonl(own / "said.jsonl", ({"id": str(n), "raw": ["Yes.", "no", "Yes", "It says yes"][n]} for n in range(4)))
    return own


def called(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command as a user gives it, in a process that tells whether it loaded torch."""
    code = "import sys, atexit; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
    code += "from blindspot.cli import app; app()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


def test_a_benchmark_and_a_rule_of_the_page_are_asked_and_scored_without_torch(doors: Path) -> None:
    told = called(
        *("evaluate", "said.jsonl", "--recorded", "--benchmarks", "doors", "--data", "data", "--out", "run", "--json"),
        *("--plugins", "doors.py", "--plugins", "lenient.py"),
    )
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)["benchmarks"]["doors"]
    assert {name: row["value"] for name, row in found["metrics"].items()} == {"overall": 0.5, "side/left": 1.0}
    assert {name: side["metrics"]["overall"] for name, side in found["profiles"].items()} == {
        "official": 0.5,
        "lenient": 0.75,
    }
    assert told.stderr.splitlines()[-1] == "False", "torch was loaded"
    assert set(json.loads(Path("run/run.json").read_text())["plugins"]) == {"doors.py", "lenient.py"}


def test_a_scheme_and_a_connector_of_the_page_are_axes_of_a_study_and_in_its_keys(own: Path) -> None:
    Path("mine.yaml").write_text(STUDY)
    told = called("compare-arms", "./mine.yaml", "--plugins", "diagonal.py", "--plugins", "strided.py")
    assert told.returncode == 0 and "diagonal" in told.stdout and "strided" in told.stdout, told.stderr
    without = code_version()
    plugins.name_files([Path("diagonal.py")])
    with_it = code_version()
    Path("diagonal.py").write_text(EXAMPLES["diagonal.py"] + "\n")
    assert len({without, with_it, code_version()}) == 3, "its bytes count"


def test_what_of_the_page_needs_torch_computes(own: Path) -> None:
    import torch
    from transformers import LlavaConfig

    plugins.name_files([Path(name) for name in EXAMPLES])
    diagonal = EncoderPositions("diagonal")
    tower = build_tower(ENCODERS["metaclip"], TowerShape(16, 2, 2, 32, 32, 8), diagonal)
    assert tower.config.model_type == "clip_vision_model"
    spec, config = ConnectorSpec("strided", factor=3), LlavaConfig()
    tokens_bnd = build(spec, config)(torch.zeros(2, 20, config.vision_config.hidden_size), (4, 5))
    assert tokens_bnd.shape == (2, output_tokens(spec, (4, 5)), config.text_config.hidden_size) == (2, 4, 4096)
    adapter, known = recognise(None, name="org/Captioner-2b")
    assert (adapter.name, adapter.prompts, known.split(",")[0]) == ("captioner", "plain", "captioner")
    text = adapter.render(object(), Prompt((PICTURE, "Is it open?")))
    assert text == "<image>Question: Is it open? Short answer:"


def test_a_diagnostic_of_the_page_runs_and_has_its_page(own: Path) -> None:
    from blindspot.diagnostics.base import Budget, share
    from blindspot.diagnostics.registry import DIAGNOSTICS, plots_of, run_of

    class Right:
        speech = "english"

        def choices(self, stimuli: Any, size: int) -> Any:
            from blindspot.diagnostics.core.stimuli import answers

            return answers(stimuli)

    plugins.name_files([Path("nearness.py")])
    (table,) = run_of("nearness")(Right(), Budget(stimuli=4), lambda done, of: None).tables
    assert [row["value"] for row in table.rows] == [1.0] * 4 and share is not None
    (figure,) = plots_of("nearness").draw({"tasks": table}, {})
    assert figure.rows == table.rows and DIAGNOSTICS["nearness"].question == "What can the model choose?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("BENCHMARKS = {\n", "bad.py:1: SyntaxError: '{' was never closed; mend it or leave it out"),
        ("import json\nmissing\n", "bad.py:2: NameError: name 'missing' is not defined; mend it or leave it out"),
        ("raise SystemExit(3)\n", "bad.py:1: SystemExit: 3; mend it"),
        ("CONNECTORS = ['strided']\n", "bad.py: CONNECTORS is no dictionary; write NAME = {name: what it"),
        ("CONNECTORS = {'own': 3}\n", "bad.py: 'own' is of type int, not Rule; docs/plugins.md shows one"),
        (
            "from blindspot import connectors\nCONNECTORS = {'mlp': connectors.RULES['mlp']}\n",
            "bad.py: 'mlp' is there already (Blindspot's own); choose another name",
        ),
        (
            "from blindspot.encoders.clip import CLIP\nENCODERS = {'own': CLIP}\n",
            "bad.py: 'own' is called otherwise by itself; give it one name",
        ),
    ],
)
def test_a_bad_plug_in_is_one_line_that_names_it(own: Path, text: str, said: str) -> None:
    Path("bad.py").write_text(text)
    told = CliRunner().invoke(app, ["encoders", "--plugins", "bad.py"])
    assert (told.exit_code, told.stderr.count("\n")) == (2, 1), told.output
    assert told.stderr.startswith("error: plug-in ") and said in told.stderr
    nowhere = CliRunner().invoke(app, ["encoders", "--plugins", "nowhere.py"])
    assert nowhere.stderr == "error: --plugins nowhere.py: there is no such file\n"


def test_two_plug_ins_of_one_name_are_told_apart(own: Path) -> None:
    Path("again.py").write_text(EXAMPLES["captioner.py"])
    plugins.name_files([Path("captioner.py")])
    with pytest.raises(
        UserError, match=r"again\.py: 'captioner' is there already \(brought by plug-in \S*captioner\.py\)"
    ):
        plugins.name_files([Path("again.py")])


def test_an_installed_package_brings_an_entry_by_name(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(own)
    points = (
        EntryPoint("mine", "captioner:MINE", "blindspot.adapters"),
        EntryPoint("x", "no_such:X", "blindspot.rules"),
    )
    Path("captioner.py").write_text(EXAMPLES["captioner.py"] + "from dataclasses import replace\n"
                                    'MINE = replace(ADAPTERS["captioner"], name="mine")\n')  # fmt: skip
    monkeypatch.setattr(plugins, "_points", lambda: points)
    registry = {**ADAPTERS}
    plugins.extend("adapters", registry, type(ADAPTERS["llava"]))
    assert registry["mine"] == replace(registry["mine"], name="mine") and len(registry) == len(ADAPTERS) + 1
    with pytest.raises(UserError, match="plug-in no_such:X: no_such:X does not load: ModuleNotFoundError: No module"):
        plugins.extend("rules", {}, dict)


@pytest.fixture
def rule(doors: Path) -> Callable[[str], Result]:
    """Evaluate under a rule, in a process that knows its benchmark; a rule that is given replaces the one there."""

    def call(text: str) -> Any:
        (doors / "mine.py").write_text(text)
        return called(
            *("evaluate", "said.jsonl", "--recorded", "--benchmarks", "doors", "--data", "data", "--out", "run"),
            *("--json", "--plugins", "doors.py", "--plugins", "mine.py", "--profile", "mine"),
        )

    return call


def test_a_rule_that_fails_at_an_answer_loses_nothing(rule: Callable[[str], Any]) -> None:
    head = "from blindspot.benchmarks.rules import Scored\n"
    told = rule(head + "RULES = {'mine': {'doors': lambda item: Scored(None, 1 / item.raw.count('Y'), True)}}\n")
    assert told.returncode == 2
    (line,) = [line for line in told.stderr.splitlines() if line.startswith("error: ")]
    assert "run/doors/answers.jsonl:2: plug-in " in line and "mine.py: its rule fails at this answer (Zero" in line
    kept = Path("run/doors/answers.jsonl").read_bytes()
    mended = rule(head + "RULES = {'mine': {'doors': lambda item: Scored(None, 1.0, True)}}\n")
    assert mended.returncode == 0, mended.stderr
    assert json.loads(mended.stdout)["benchmarks"]["doors"]["metrics"]["overall"]["value"] == 1.0
    assert Path("run/doors/answers.jsonl").read_bytes() == kept
