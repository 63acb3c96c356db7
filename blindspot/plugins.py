"""What users add to the registries: entry points of installed packages, and files that `--plugins` names.

A registry calls `extend` when its module has made it. A file has a dictionary for each kind that it adds to, called as
the kind in capitals (``BENCHMARKS``, ``RULES``, ...), from a name to what the registry holds; an entry point of the
group ``blindspot.KIND`` is one such pair. Files are named in an environment variable, so that workers, ranks and nodes
load the same.
"""

import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from blindspot.errors import UserError
from blindspot.files import sha256_file

VARIABLE = "BLINDSPOT_PLUGINS"
KINDS = ("benchmarks", "rules", "adapters", "encoders", "positions", "connectors", "diagnostics")
_registries: list[tuple[str, dict[str, Any], type]] = []
_modules: dict[Path, ModuleType | None] = {}
"""Of the files, None while it is loaded: it may import rooms whose registries are then extended behind it."""
_added: dict[tuple[int, str], str] = {}
"""By registry and name, the plug-in that brought it."""


def name_files(files: Iterable[Path]) -> None:
    """Have this process, and all that it starts, load these files beside those that are named already."""
    for file in files:
        if not file.is_file():
            raise UserError(f"--plugins {file}: there is no such file")
    named = [*_files(), *(file.resolve() for file in files)]
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(map(str, named)))
    _load_files()


def _files() -> list[Path]:
    return [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]


@cache
def _points() -> tuple[EntryPoint, ...]:
    every: Any = entry_points()  # all at once, as each call reads what is installed anew
    return tuple(point for kind in KINDS for point in every.select(group=f"blindspot.{kind}"))


def digests() -> list[list[str]]:
    """Name and SHA-256 of every plug-in, sorted; of a package that has entry points its version too. Loads none."""
    found = []
    for file in _files():
        if not file.is_file():
            raise UserError(f"plug-in {file} is not there; ${VARIABLE} names it")
        found.append([file.name, sha256_file(file)])
    for point in _points():
        spec = find_spec(point.module)
        version = f"{point.dist.name} {point.dist.version}" if point.dist else ""
        origin = spec and spec.origin
        found.append([f"{version} {point.value}", sha256_file(Path(origin)) if origin else ""])
    return sorted(found)


def extend(kind: str, registry: dict[str, Any], holds: type) -> None:
    """Add to a registry what plug-ins have of its kind and type; nothing that is there is replaced.

    Whatever is wrong with one is a UserError that names it.
    """
    _registries.append((kind, registry, holds))
    for point in _points():
        if point.group == f"blindspot.{kind}":
            who = f"plug-in {point.dist.name if point.dist else point.value}"
            try:
                value = point.load()
            except Exception as error:
                raise UserError(f"{who}: {point.value} does not load: {_said(error)}; mend or remove it") from error
            if isinstance(value, holds) or kind != "positions":
                _add(who, registry, holds, point.name, value)
    _load_files()


def _load_files() -> None:
    """Load files that are not yet, and add what any has to the registries that there are."""
    for file in _files():
        if file not in _modules:
            _modules[file] = None
            try:
                _modules[file] = _load(file)
            except UserError:
                del _modules[file]
                raise
    for file, module in _modules.items():
        for known, into, what in _registries if module else ():
            _add_all(f"plug-in {file}", known, into, what, module)


def owner(registry: dict[str, Any], name: str) -> str | None:
    """Which plug-in brought an entry; None: it is Blindspot's own."""
    return _added.get((id(registry), name))


def _load(file: Path) -> ModuleType:
    """The file as a module of its own; where it fails is told by line."""
    name = f"blindspot_plugin_{file.stem}"
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UserError(f"plug-in {file}: it is no Python file; call it NAME.py")
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"plug-in {file}{_line(error, file)}: {_said(error)}; mend it or leave it out") from error
    return module


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}"


def _line(error: BaseException, file: Path) -> str:
    """``:12``, the last line of the file that was under way."""
    if isinstance(error, SyntaxError) and error.filename == str(file):
        return f":{error.lineno}"
    line, trace = "", error.__traceback__
    while trace:
        line = f":{trace.tb_lineno}" if trace.tb_frame.f_code.co_filename == str(file) else line
        trace = trace.tb_next
    return line


def _add_all(who: str, kind: str, registry: dict[str, Any], holds: type, module: ModuleType | None) -> None:
    entries = getattr(module, kind.upper(), {})
    if not isinstance(entries, dict):
        raise UserError(f"{who}: {kind.upper()} is no dictionary; write NAME = {{name: what it stands for}}")
    for name, value in entries.items():
        if isinstance(value, holds) or kind != "positions":  # of which there are two registries
            _add(who, registry, holds, name, value)


def _add(who: str, registry: dict[str, Any], holds: type, name: Any, value: Any) -> None:
    brought = owner(registry, name)
    if brought == who:
        return
    if not isinstance(value, holds):
        raise UserError(
            f"{who}: {name!r} is of type {type(value).__name__}, not {holds.__name__}; docs/plugins.md shows one"
        )
    if name in registry:
        there = f"brought by {brought}" if brought else "Blindspot's own"
        raise UserError(f"{who}: {name!r} is there already ({there}); choose another name")
    if not isinstance(name, str) or getattr(value, "name", name) != name:
        raise UserError(f"{who}: {name!r} is called otherwise by itself; give it one name")
    registry[name] = value
    _added[id(registry), name] = who
