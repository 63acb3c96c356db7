"""A step, what the function that carries it out receives, and its folder: what makes it complete and shows damage."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from blindspot.errors import UserError
from blindspot.files import CHECKPOINTS, fingerprint, inside, intact, parse_json, sha256_file, write_json

DONE = "done.json"
ERROR = "error.txt"
STARTED = ".started"
"""Modified when the step was begun, and there until it is done."""


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

    @property
    def folder(self) -> str:
        """Its run folder, relative to the study's."""
        return f"steps/{self.id.replace('/', '_')}-{self.key[:12]}"


class Report(Protocol):
    """Tells the user how far a step is; cheap enough to call at every iteration."""

    def __call__(self, step: int, steps: int, loss: float | None = None, phase: str = "") -> None: ...


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

    A step stays done without its weights once nothing needs them: ``removed`` then holds their SHA-256.
    """

    key: str
    step: str
    seconds: float
    files: dict[str, str]
    inputs: dict[str, str]
    removed: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> str:
        """Fingerprint of everything the step made."""
        return fingerprint(self.files | self.removed)

    def write(self, folder: Path) -> None:
        """Write it into a step's folder."""
        write_json(folder / DONE, {key: value for key, value in vars(self).items() if value or key != "removed"})


def read_done(folder: Path, step: Step) -> Done | None:
    """Check a step's folder against its ``done.json``; None if it was never finished.

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
            done = Done(**parse_json(path.read_bytes()))
        except (ValueError, TypeError):
            raise Damage(f"{DONE} is damaged") from None
        tables = all(isinstance(table, dict) for table in (done.files, done.inputs, done.removed))
        if done.key != step.key or not tables or not isinstance(done.seconds, int | float):
            raise Damage(f"{DONE} is damaged")
        if not all(map(inside, done.removed)):
            raise Damage(f"{DONE} is damaged")
        for name, checksum in done.files.items():
            if not (folder / name).is_file():
                raise Damage(f"{name} is missing")
            if sha256_file(folder / name) != checksum:
                raise Damage(f"{name} is damaged")
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror or error}") from error
    return done


def open_folder(folder: Path) -> None:
    """Make a step's folder ready to work in: what an interrupted try left stays, half-written files go.

    `STARTED` says since when."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*folder.rglob(".*"), folder / ERROR):
            if not leftover.is_dir() and CHECKPOINTS not in leftover.parts:  # whose metadata are such a file
                leftover.unlink(missing_ok=True)
        (folder / STARTED).touch()
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}") from error


def discard(folder: Path) -> None:
    """Remove a damaged step's folder, so that nothing in it is resumed from."""
    try:
        (folder / DONE).unlink(missing_ok=True)
        shutil.rmtree(folder)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename or folder}: {error.strerror or error}") from error


def mark_done(folder: Path, step: Step, seconds: float, inputs: Mapping[str, str]) -> Done:
    """Record that a step is complete, with the checksum of every file it left."""
    (folder / STARTED).unlink(missing_ok=True)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: sha256_file(folder / name) for name in names if name != DONE}
    done = Done(step.key, step.id, round(seconds, 3), files, dict(inputs))
    done.write(folder)
    return done


def remove_weights(folder: Path, done: Done) -> Done:
    """Remove the weights that a finished step left; its ``done.json`` says so first."""
    weights = {name: checksum for name, checksum in done.files.items() if name.endswith(".safetensors")}
    if weights:
        kept = {name: checksum for name, checksum in done.files.items() if name not in weights}
        done = replace(done, files=kept, removed=done.removed | weights)
        done.write(folder)
    try:
        for name in done.removed:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename or folder}: {error.strerror or error}") from error
    return done
