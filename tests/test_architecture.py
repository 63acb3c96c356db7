"""The rules of docs/architecture.md, held against the code. The table of rooms there is what the tests read."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pytest
import yaml

import blindspot
from blindspot.files import PICTURE_FORMATS
from blindspot.studies.loading import load_study

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "blindspot"
FILES = sorted(PACKAGE.rglob("*.py"))
FOUNDATION = {"errors", "files", "plots", "plugins", "question", "terminal", "text"}
HEAVY = {"torch", "transformers", "tokenizers", "safetensors"}
ROW = re.compile(
    r"\| `(?P<name>\w+)` \| (?P<what>[^|]+) \| (?P<below>[^|]+) \| (?P<heavy>yes|no) \| (?P<lines>[\d,]+) \|"
)
NAMED_SOURCE = r"(?<![\w./:<>$@{}~-])(?:[\w-][\w.-]*|\.\.)/(?:[\w.-]+/)*[\w.-]+\.(?:j2|md|py|yaml)\b(?!/)"
"""Paths with a folder; not those from the user's own (./mine.yaml)."""
NAMED_FILE = rf"{NAMED_SOURCE}|\bdocs/images/[\w.-]+\w|(?<=\]\()(?!https:)[\w./-]+"
"""Pages also name pictures and link."""


class Room(NamedTuple):
    """A row of the table: rooms (or their modules) that it may import, whether it may import torch, its most lines."""

    name: str
    below: set[str]
    heavy: bool
    lines: int


def _table() -> dict[str, Room]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return {
        row["name"]: Room(
            row["name"],
            set(re.findall(r"`([\w.]+)`", row["below"])),
            row["heavy"] == "yes",
            int(row["lines"].replace(",", "")),
        )
        for row in ROW.finditer(text)
    }


ROOMS = _table()


def _room(path: Path) -> str:
    """The room of a file: a folder of the package, or one of the modules beside the folders."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "foundation" if first in FOUNDATION else "blindspot" if first == "__init__" else first


def _imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at its top or inside functions, as dotted names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}:{node.lineno}: relative import"
            yield from ([f"blindspot.{a.name}" for a in node.names] if node.module == "blindspot" else [node.module])


def _allowed(target: str, room: Room) -> bool:
    parts = target.split(".")
    if parts[0] in HEAVY:
        return room.heavy
    if parts[0] != "blindspot" or len(parts) == 1 or parts[1] in {room.name, *FOUNDATION}:
        return True
    return parts[1] in room.below or ".".join(parts[1:3]) in room.below


@pytest.mark.parametrize("name", sorted({_room(path) for path in FILES}))
def test_rooms_import_only_what_the_table_allows(name: str) -> None:
    room = ROOMS[name]
    offences = [
        f"{path.relative_to(ROOT)} imports {target}"
        for path in FILES
        if _room(path) == name
        for target in _imports(path)
        if not _allowed(target, room)
    ]
    assert not offences


def test_no_room_has_more_lines_than_the_table_gives_it() -> None:
    lines = dict.fromkeys(ROOMS, 0)
    for path in FILES:
        lines[_room(path)] += len(path.read_text(encoding="utf-8").splitlines())
    assert not [f"{name}: {count} of {ROOMS[name].lines}" for name, count in lines.items() if count > ROOMS[name].lines]


def test_the_table_lists_every_room_and_points_downwards() -> None:
    order = list(ROOMS)
    assert set(order) == {_room(path) for path in FILES}
    for name, room in ROOMS.items():
        for target in room.below:
            assert order.index(target.split(".")[0]) > order.index(name), f"{name} above {target}"


def test_the_rule_itself_notices_an_offence() -> None:
    scenes, reporting = ROOMS["scenes"], ROOMS["reporting"]
    assert not _allowed("torch.nn", scenes)
    assert not _allowed("blindspot.model.variant", scenes)
    assert not _allowed("blindspot.evaluation.run", reporting)
    assert _allowed("blindspot.evaluation.statistics", reporting)
    assert _allowed("blindspot.question", scenes)


def test_every_picture_is_opened_by_the_readers_that_are_listed() -> None:
    """Pillow alone would try all of its readers, one of which starts Ghostscript."""
    calls = [
        (path, node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("Image.open")
    ]
    opened = [(f"{path}:{node.lineno}", {k.arg: ast.unparse(k.value) for k in node.keywords}) for path, node in calls]
    assert opened
    assert not [where for where, given in opened if not given.get("formats", "").endswith("PICTURE_FORMATS")]
    assert not {"EPS", "PDF", "WMF", "FPX", "MIC"} & set(PICTURE_FORMATS)


def test_json_is_parsed_in_one_place() -> None:
    """Where thousands of brackets are the mistake of a file, not of the program."""
    reading = re.compile(r"\bjson\.loads?\(|^from json import", re.MULTILINE)
    found = {str(path.relative_to(PACKAGE)) for path in FILES if reading.search(path.read_text(encoding="utf-8"))}
    assert found == {"files.py", "scenes/export.py"}  # the second shows it to others


def test_files_are_short() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not [f"{path}: {count} lines" for path, count in lines.items() if count > 600]
    assert median(lines.values()) < 150


def test_every_room_says_what_it_is() -> None:
    for folder in {path.parent for path in FILES}:
        init = folder / "__init__.py"
        assert init.is_file(), f"{folder} has no __init__.py"
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), f"{init} has no docstring"


def test_every_module_imports_without_torchvision() -> None:
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
    if find_spec("torchvision"):
        _run(f"sys.modules['torchvision'] = None\nfor name in {names}: importlib.import_module(name)")
    else:  # here, where later tests find torch imported
        assert all(map(importlib.import_module, names))


def test_what_needs_no_model_loads_no_torch() -> None:
    names = [
        *("cli", "connectors", "encoders", "positions", "studies.study", "reporting", "scenes.sampling"),
        *("evaluation.run.runner", "evaluation.models.api", "evaluation.models.recorded"),
    ]
    _run(f"""for name in {names}:
    importlib.import_module(f"blindspot.{{name}}")
    assert not {HEAVY} & set(sys.modules), name""")


def test_figures_are_declared_without_torch_and_matplotlib() -> None:
    declared = "from blindspot.diagnostics.registry import *\n[plots_of(name) for name in DIAGNOSTICS]"
    _run(f"{declared}\nfound = {HEAVY | {'matplotlib'}} & set(sys.modules)\nassert not found, found")


def test_the_names_of_the_package_register_the_model_type() -> None:
    from transformers import AutoConfig

    assert all(hasattr(blindspot, name) for name in blindspot.__all__)
    assert isinstance(AutoConfig.for_model("blindspot"), blindspot.BlindspotConfig)
    assert not hasattr(blindspot, "no_such_name")


def test_every_file_that_package_and_docs_name_exists() -> None:
    texts = [*PACKAGE.rglob("*.py"), *PACKAGE.rglob("*.yaml"), *PACKAGE.rglob("*.j2"), *ROOT.glob("perf/*.py")]
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
    missing = [
        f"{text.relative_to(ROOT)} names {name}"
        for text in [*texts, *pages]
        for name in re.findall(NAMED_FILE if text in pages else NAMED_SOURCE, text.read_text(encoding="utf-8"))
        if not any((folder / name).exists() for folder in (ROOT, PACKAGE, text.parent, text.parent.parent))
    ]
    assert not missing


@pytest.mark.parametrize(("page", "name"), [("docs/studies.md", "frozen"), ("README.md", "mine")])
def test_the_study_that_a_page_shows_is_one(page: str, name: str, tmp_path: Path) -> None:
    *_, example = re.findall(r"```yaml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    path = tmp_path / "mine.yaml"
    path.write_text(example, encoding="utf-8")
    assert load_study(path).name == name


def test_one_version_everywhere() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["version"] == blindspot.__version__
    try:
        installed = version("spatial-blindspot")
    except PackageNotFoundError:
        pytest.skip("the package is not installed, only on the path")
    assert installed == blindspot.__version__


def _run(code: str) -> None:
    """Run code in a new interpreter."""
    preamble = f"import importlib, sys\nsys.path.insert(0, {str(ROOT)!r})\n"
    done = subprocess.run([sys.executable, "-c", preamble + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
