"""What Blindspot finds on this machine, what is missing, and the command that mends it."""

import os
import platform
import shutil
import sys
import tempfile
import tomllib
from contextlib import redirect_stdout
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from rich.markup import escape
from rich.table import Table

from blindspot.terminal import listing
from blindspot.text import clean

DISTRIBUTION = "spatial-blindspot"
ROOT = Path(__file__).parents[1]
GIB = 2**30
FREE_MEMORY, FREE_DISK = 2 * GIB, GIB
"""What the miniature study is comfortable with; less is noted, not refused."""

State = Literal["ok", "note", "fault"]


class Check(NamedTuple):
    """One thing that was looked at."""

    name: str  # what
    state: State  # ``ok``; ``note``: works, but worth knowing; ``fault``: Blindspot does not work like this
    found: str  # what is there
    mend: str = ""  # what to do about it, often a command; empty if nothing


def report(runs: Path = Path("runs")) -> list[Check]:
    """Look at Python, packages, devices, memory, and the disk at the run folder ``runs``."""
    python, requirements = _needs()
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    checks = [Check("Python", "ok", found)]
    if python and platform.python_version() not in SpecifierSet(python, prereleases=True):
        checks = [Check("Python", "fault", found, f"install Python {python} and make a new environment with it")]
    of_extras: dict[str, list[Requirement]] = {}
    for requirement in requirements:
        marker = str(requirement.marker or "")
        if "extra == " in marker:
            of_extras.setdefault(marker.split("extra == ")[1].split()[0].strip("\"')"), []).append(requirement)
        else:
            checks.append(_package(requirement))
    checks += _torchvision()
    for extra, wanted in sorted(of_extras.items()):
        check = Check(f"extra {extra}", "ok", "installed")
        if missing := [requirement.name for requirement in wanted if _package(requirement).state != "ok"]:
            check = Check(f"extra {extra}", "note", f"optional; without {', '.join(missing)}", _install(extra))
        checks.append(check)
    return [*checks, *_devices(), _memory(), *_disk(runs)]


def works(checks: list[Check]) -> bool:
    """Whether nothing that the core needs is missing."""
    return all(check.state != "fault" for check in checks)


def as_json(checks: list[Check]) -> dict[str, Any]:
    """The checks as plain values for scripts."""
    return {"works": works(checks), "checks": [check._asdict() for check in checks]}


def as_table(checks: list[Check]) -> Table:
    """The checks for the terminal."""
    marks = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "fault": "[bold red]fault[/bold red]"}
    table = listing("", "found", "", "what to do")
    for check in checks:
        table.add_row(escape(check.name), escape(check.found), marks[check.state], escape(check.mend))
    return table


def _needs() -> tuple[str, list[Requirement]]:
    """The versions of Python and the packages that are asked for: by pyproject.toml where the source is at hand, which
    may be newer than what was installed."""
    if (ROOT / "pyproject.toml").is_file():
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        listed = [Requirement(line) for line in project["dependencies"]]
        for extra, lines in project.get("optional-dependencies", {}).items():
            listed += [Requirement(f"{line}; extra == '{extra}'") for line in lines]
        return project["requires-python"], listed
    try:
        found = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "", []
    return found["Requires-Python"] or "", [Requirement(line) for line in found.get_all("Requires-Dist") or []]


def _install(extra: str = "") -> str:
    """The command that installs from the repository: Blindspot is on no package index."""
    what = f"[{extra}]" if extra else ""
    if (ROOT / "pyproject.toml").is_file():
        return f"pip install -c {ROOT / 'constraints.txt'} -e '{ROOT}{what}'"
    return f"in Blindspot's repository: pip install -c constraints.txt -e '.{what}'"


def _package(requirement: Requirement) -> Check:
    version = _version(requirement.name)
    if version is None:
        return Check(requirement.name, "fault", "missing", _install())
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, "fault", f"{version}, needs {requirement.specifier}", _install())
    if fault := _fault(requirement.name):
        return Check(requirement.name, "fault", f"{version}, does not load: {fault}", _install())
    return Check(requirement.name, "ok", version)


def _torchvision() -> list[Check]:
    """Not needed, but transformers imports it where it is, and ends where it is not of torch's build."""
    if (version := _version("torchvision")) is None:
        return []
    if fault := _fault("torchvision"):
        mend = "pip uninstall torchvision (Blindspot does without), or install the one that belongs to this torch"
        return [Check("torchvision", "fault", f"{version}, does not load: {fault}", mend)]
    return [Check("torchvision", "ok", version)]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fault(name: str) -> str:
    """Why an installed distribution cannot be imported; empty if it can."""
    own, name = name.replace("-", "_"), canonicalize_name(name)
    modules = sorted(module for module, owners in _modules().items() if name in owners and not module.startswith("_"))
    try:
        with redirect_stdout(sys.stderr):  # some greet
            import_module(own if own in modules or not modules else modules[0])
    except Exception as error:  # what a broken installation raises has no common base
        return clean(f"{type(error).__name__}: {error}", 200)
    return ""


@cache
def _modules() -> dict[str, set[str]]:
    """The distributions that every importable name is of."""
    found = metadata.packages_distributions().items()
    return {module: set(map(canonicalize_name, owners)) for module, owners in found}


def _devices() -> list[Check]:
    try:
        import torch
    except Exception:  # told with the packages
        return []
    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    found = [
        Check("CPU", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} torch threads"),
        _bfloat16(torch),
        Check("CUDA", "ok", ", ".join(cuda) or "none; the miniature needs none"),
    ]
    if torch.backends.mps.is_available():
        found.append(Check("MPS", "ok", "available"))
    return found


def _bfloat16(torch: Any) -> Check:
    """Training runs under bfloat16 autocast: see that it works here, and with which instructions."""
    capability = torch.backends.cpu.get_cpu_capability()
    try:
        with torch.autocast("cpu", torch.bfloat16):
            product = torch.ones(8, 8) @ torch.ones(8, 8)
    except RuntimeError as error:
        return Check("bfloat16", "fault", f"fails on this CPU: {error}", "use another machine")
    if product.dtype != torch.bfloat16 or product[0, 0] != 8:
        return Check("bfloat16", "fault", f"wrong result on this CPU ({capability})", "use another machine")
    return Check("bfloat16", "ok", f"works on this CPU ({capability})")


def _memory() -> Check:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return Check("memory", "note", "unknown on this system")
    found = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIB:.1f} GiB"
    available = _available_memory()
    if available is None:
        return Check("memory", "ok", found)
    found += f", {available / GIB:.1f} GiB available"
    if available < FREE_MEMORY:
        return Check("memory", "note", found, "close other programs, or run with --workers 1")
    return Check("memory", "ok", found)


def _available_memory() -> int | None:
    """Bytes that programs can still get; Linux alone says."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _disk(runs: Path) -> list[Check]:
    existing = next(path for path in (runs.absolute(), *runs.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free
    found = f"{free / GIB:.1f} GiB free at {existing}"
    disk = Check("disk", "ok", found)
    if free < FREE_DISK:
        disk = Check("disk", "note", found, "free the disk or run with --out")
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = f"{runs} cannot be written: {error.strerror or error}"
        return [disk, Check("run folder", "note", reason, "run with --out FOLDER, a folder that you may write")]
    return [disk, Check("run folder", "ok", f"{runs} can be written")]
