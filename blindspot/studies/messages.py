"""What the engine and its worker processes say to each other."""

from dataclasses import dataclass
from pathlib import Path

from blindspot.studies.cache import Done
from blindspot.studies.step import Step


@dataclass(frozen=True)
class Task:
    """Engine to worker: carry out a step. ``contents`` fingerprints each input folder."""

    step: Step
    folder: Path
    inputs: dict[str, Path]
    contents: dict[str, str]
    data_path: Path | None


@dataclass(frozen=True)
class Advanced:
    """Worker to engine: how far its step is."""

    step: int
    steps: int
    loss: float | None
    phase: str


@dataclass(frozen=True)
class Finished:
    """Worker to engine: its step is complete."""

    done: Done


@dataclass(frozen=True)
class Failed:
    """Worker to engine: its step, or the worker itself before any step, failed.

    ``bug`` tells a defect of the program from a condition that the user can act on.
    """

    line: str
    bug: bool


Message = Advanced | Finished | Failed
