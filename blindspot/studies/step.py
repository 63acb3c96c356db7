"""A step, and what the function that carries it out receives: the contract of `steps.py`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Step:
    """One cached unit of a study.

    Attributes:
        id: unique in its study and readable, e.g. ``encoder/clip-learned/seed0``.
        kind: which function carries it out: a key of the step registry.
        arm: the arm it belongs to, None where arms share it: then its id names its content instead.
        seed: the study's seed index, None where seeds share it. The seed to draw from is ``config["seed"]``, which
            differs for the replicate.
        stage: the stage that an ``evaluate`` step looks at, else None.
        config: everything the result depends on beside code and inputs: JSON values.
        inputs: the id of the step behind each role, e.g. ``{"data": "data"}``.
        estimate: expected seconds on one core.
        key: hash of kind, config, code version and the keys of the inputs.
    """

    id: str
    kind: str
    arm: str | None
    seed: int | None
    stage: str | None
    config: dict[str, Any]
    inputs: dict[str, str]
    estimate: float
    key: str

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

    Attributes:
        step: what to do.
        folder: where to write; exists.
        inputs: the finished folder behind each role of ``step.inputs``.
        report: called with how far it is.
        data_path: the folder of real data that the user named, for ``data`` steps of such studies.
    """

    step: Step
    folder: Path
    inputs: dict[str, Path]
    report: Report
    data_path: Path | None = None


StepFunction = Callable[[StepContext], None]
