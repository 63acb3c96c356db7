"""A step, what the function that carries it out receives, and its folder: what makes it complete and shows damage."""

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from rich.filesize import decimal

from blindspot.errors import UserError, explained
from blindspot.files import (
    CHECKPOINTS,
    bytes_below,
    ends_of,
    fingerprint,
    inside,
    intact,
    parse_json,
    sha256_file,
    write_json,
)
from blindspot.terminal import Report

DONE = "done.json"
ERROR = "error.txt"
STARTED = ".started"
"""Modified when the step was begun, and there until it is done."""
KEEP: dict[str, tuple[str, ...]] = {"all": (), "last": ("connector",), "scores": ("connector", "instruct")}
"""Kinds of steps whose weights go when all steps that read them are done, by what is kept."""
LARGE_BYTES = 100 * 10**6
"""Files of this size and more are held against their SHA-256 only if size, time of change or an end are others."""


class Room(NamedTuple):
    """Bytes of a step's folder, about: when it is done, of the weights among them, and at most while it is made."""

    kept: float = 0.0
    weights: float = 0.0
    working: float = 0.0


@dataclass(frozen=True)
class Step:
    """One cached unit of a study."""

    id: str  # unique in its study and readable, e.g. ``encoder/clip-learned/seed0``
    kind: str  # which function carries it out: a key of the step registry
    arm: str | None  # None where arms share it: then its id names its content instead
    seed: int | None  # the study's seed index; the seed to draw from is ``config["seed"]``, another for the replicate
    stage: str | None  # the stage that an ``evaluate`` step looks at
    config: dict[str, Any]  # everything the result depends on beside code and inputs: JSON values
    inputs: dict[str, str]  # the id of the step behind each role, e.g. ``{"data": "data"}``
    estimate: float  # expected seconds on one core
    key: str  # hash of kind, config, code version and the keys of the inputs
    code: str = ""  # the version of code and libraries, of which the key of released checkpoints holds nothing
    room: Room = field(default_factory=Room)
    gpus: int = 0  # how many it asks for; its files do not say so, and its key does not either

    @property
    def folder(self) -> str:
        """Its run folder, relative to the study's."""
        return f"steps/{self.id.replace('/', '_')}-{self.key[:12]}"


@dataclass(frozen=True)
class StepContext:
    """What a step function works with.

    A step function writes its results into ``folder`` and returns; the engine then records their checksums in
    ``done.json``. Its files must depend on ``step.config`` and ``inputs`` alone, bit for bit: no clock, no paths, no
    process-wide state left by earlier steps (the random generators are seeded from ``config["seed"]`` before each).

    It may be killed at any moment and is then called again with the same folder and whatever it had left there, so
    checkpoints are written with `blindspot.files.write_via` and deleted at the end. Names starting with a dot are
    removed between the calls.
    """

    step: Step
    folder: Path  # exists
    inputs: dict[str, Path]  # the finished folder behind each role of ``step.inputs``
    report: Report
    data_path: Path | None = None  # the folder of real data that the user named


StepFunction = Callable[[StepContext], None]


class Damage(Exception):
    """A finished step is no longer what it was; the message names the file."""


@dataclass(frozen=True)
class Done:
    """What ``done.json`` holds: the SHA-256 of each of the step's ``files``, the `content` of each of its inputs.

    A step stays done without its weights once nothing needs them: ``removed`` then holds their SHA-256. ``large`` is
    what shows of large files whether they changed, without reading them (`ends_of`). ``config`` and ``code`` are the
    step's, to say later why another is made.
    """

    key: str
    step: str
    seconds: float
    files: dict[str, str]
    inputs: dict[str, str]
    removed: dict[str, str] = field(default_factory=dict)
    large: dict[str, list[int | str]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    code: str = ""

    @property
    def content(self) -> str:
        """Fingerprint of everything the step made."""
        return fingerprint(self.files | self.removed)

    def write(self, folder: Path) -> None:
        """Write it into a step's folder."""
        optional = ("removed", "large", "config", "code")
        write_json(folder / DONE, {key: value for key, value in vars(self).items() if value or key not in optional})

    @classmethod
    def read(cls, folder: Path) -> "Done":
        """What a folder's ``done.json`` says, of whatever version; an OSError, ValueError or TypeError if nothing."""
        said = parse_json((folder / DONE).read_bytes())
        return cls(**{one.name: said[one.name] for one in fields(cls) if one.name in said})


def seconds_taken(run: Path, steps: Iterable[Step]) -> dict[str, float]:
    """How long each finished step took, as its ``done.json`` says; checksums are not looked at."""
    taken: dict[str, float] = {}
    for step in steps:
        with suppress(OSError, ValueError, TypeError, KeyError):  # of a damaged step, which is done again
            taken[step.id] = float(parse_json((run / step.folder / DONE).read_bytes())["seconds"])
    return taken


def read_done(
    folder: Path, step: Step, verify: bool = False, tell: Callable[[str], object] = lambda what: None
) -> Done | None:
    """Check a step's folder against its ``done.json``; None if it was never finished.

    Large files are hashed if they may have changed, once: what shows that they have not is then recorded.

    Args:
        verify: whether every file is hashed.
        tell: told of each large file that is hashed.

    Raises:
        Damage: if a file is missing or differs from its checksum, ``done.json`` itself is unreadable, or an unfinished
            step cannot go on from its checkpoint.
    """
    path = folder / DONE
    try:
        if not path.is_file():
            for file in folder.glob(f"{CHECKPOINTS}/step-*/*") if step.config.get("recipe") != "llava" else ():
                if not intact(file):  # `llava` has an older one to go on from
                    raise Damage(f"{file.relative_to(folder)} is damaged")
            return None
        try:
            done = Done.read(folder)
        except (ValueError, TypeError):
            raise Damage(f"{DONE} is damaged") from None
        tables = all(isinstance(table, dict) for table in (done.files, done.inputs, done.removed, done.large))
        if done.key != step.key or not tables or not isinstance(done.seconds, int | float):
            raise Damage(f"{DONE} is damaged")
        if not all(map(inside, done.removed)):
            raise Damage(f"{DONE} is damaged")
        large: dict[str, list[int | str]] = {}
        for name, checksum in done.files.items():
            if not (folder / name).is_file():
                raise Damage(f"{name} is missing")
            if seen := _seen(folder / name):
                if done.large.get(name) == seen and not verify:
                    continue
                tell(f"Hashing {name} of {step.id}, {decimal(int(seen[0]))}")
                large[name] = seen
            if sha256_file(folder / name) != checksum:
                raise Damage(f"{name} is damaged")
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    if done.large | large != done.large:
        done = replace(done, large=done.large | large)
        done.write(folder)
    return done


def _seen(path: Path) -> list[int | str]:
    """What shows of a large file whether it changed: size, time of change, hash of its ends; empty of a small one."""
    return ends_of(path) if path.stat().st_size >= LARGE_BYTES else []


def open_folder(folder: Path) -> None:
    """Make a step's folder ready to work in: what an interrupted try left stays, half-written files go.

    `STARTED` says since when."""
    with explained(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*folder.rglob(".*"), folder / ERROR):
            if not leftover.is_dir() and CHECKPOINTS not in leftover.parts:  # whose metadata are such a file
                leftover.unlink(missing_ok=True)
        (folder / STARTED).touch()


def refuse_full(run: Path, step: Step, others: Sequence[Step]) -> None:
    """See that a step has room on the run folder's disk before it begins, beside what ``others`` are yet to write."""
    need = sum(max(one.room.working - bytes_below(run / one.folder), 0.0) for one in (step, *others))
    free = shutil.disk_usage(run).free
    if need > free:
        what = "it and what runs beside it write" if others else "it writes"
        raise UserError(
            f"{step.id}: {what} about {decimal(round(need))} and the disk of {run} has {decimal(free)} free; free some "
            "and repeat the command (finished steps are kept)"
        )


def discard(folder: Path) -> None:
    """Remove a damaged step's folder, so that nothing in it is resumed from."""
    try:
        (folder / DONE).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename or folder}: {error.strerror or error}") from error


def mark_done(folder: Path, step: Step, seconds: float, inputs: Mapping[str, str]) -> Done:
    """Record that a step is complete, with the checksum of every file it left; names starting with a dot are none."""
    (folder / STARTED).unlink(missing_ok=True)
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    names = [name for name in sorted(path.relative_to(folder).as_posix() for path in paths) if name != DONE]
    large = {name: seen for name in names if (seen := _seen(folder / name))}
    files = {name: sha256_file(folder / name) for name in names}
    done = Done(step.key, step.id, round(seconds, 3), files, dict(inputs), {}, large, step.config, step.code)
    done.write(folder)
    return done


def remove_weights(folder: Path) -> Done:
    """Remove the weights that a finished step left; its ``done.json`` says so first."""
    done = Done.read(folder)
    weights = {name: checksum for name, checksum in done.files.items() if name.endswith(".safetensors")}
    if weights:
        kept = {name: checksum for name, checksum in done.files.items() if name not in weights}
        large = {name: seen for name, seen in done.large.items() if name in kept}
        done = replace(done, files=kept, removed=done.removed | weights, large=large)
        done.write(folder)
    try:
        for name in done.removed:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename or folder}: {error.strerror or error}") from error
    return done
