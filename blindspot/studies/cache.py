"""Step folders: what makes one complete, and how damage is noticed."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from blindspot.errors import UserError
from blindspot.files import CHECKPOINTS, fingerprint, intact, parse_json, sha256_file, write_json
from blindspot.studies.step import Step

DONE = "done.json"
ERROR = "error.txt"


class Damage(Exception):
    """A finished step is no longer what it was; the message names the file."""


@dataclass(frozen=True)
class Done:
    """What ``done.json`` holds.

    Attributes:
        key: key of the step.
        step: id of the step.
        seconds: how long it took.
        files: SHA-256 of each file of the folder.
        inputs: `content` of each input at the time.
    """

    key: str
    step: str
    seconds: float
    files: dict[str, str]
    inputs: dict[str, str]

    @property
    def content(self) -> str:
        """Fingerprint of everything the step made."""
        return fingerprint(self.files)


def read_done(folder: Path, step: Step) -> Done | None:
    """Check a step's folder against its ``done.json``; None if it was never finished.

    Raises:
        Damage: if a file is missing or differs from its checksum, ``done.json`` itself is unreadable, or an unfinished
            step cannot go on from its checkpoint.
        UserError: if a file cannot be read at all.
    """
    path = folder / DONE
    try:
        if not path.is_file():
            for file in folder.glob(f"{CHECKPOINTS}/step-*/*") if step.config.get("recipe") != "llava" else ():
                if not intact(file):  # `llava` has an older one to go on from
                    raise Damage(f"{file.relative_to(folder)} is damaged")
            return None
        done = _parse(path.read_bytes())
        if done is None or done.key != step.key:
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

    Raises:
        UserError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (*folder.rglob(".*"), folder / ERROR):
            if not leftover.is_dir() and CHECKPOINTS not in leftover.parts:  # whose metadata are such a file
                leftover.unlink(missing_ok=True)
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
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = {name: sha256_file(folder / name) for name in names if name != DONE}
    write_json(
        folder / DONE,
        {"key": step.key, "step": step.id, "seconds": round(seconds, 3), "files": files, "inputs": dict(inputs)},
    )
    return Done(step.key, step.id, seconds, files, dict(inputs))


def _parse(text: bytes) -> Done | None:
    try:
        done = Done(**parse_json(text))
    except (ValueError, TypeError):
        return None
    tables = (done.files, done.inputs)
    return done if all(isinstance(table, dict) for table in tables) and isinstance(done.seconds, int | float) else None
