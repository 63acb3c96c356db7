"""What a diagnostic is, and what it returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blindspot.diagnostics.core.subject import Subject

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class Table:
    """Numbers of a diagnostic, one row each.

    Attributes:
        name: of its CSV file; unique within the diagnostic.
        title: what its numbers are.
        rows: of the type that `rows.ROWS` names for this table.
        notes: what a reader must know, a sentence each.
    """

    name: str
    title: str
    rows: Sequence[Mapping[str, Any]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Findings:
    """All that a diagnostic found out about one model.

    Attributes:
        tables: its numbers.
        pictures: arrays that figures draw (attention maps, example images), by name; small.
    """

    tables: list[Table]
    pictures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Budget:
    """How much a diagnostic may look at.

    Attributes:
        stimuli: pictures with a question, for each thing that is measured.
        batch: at a time.
        seed: of everything random.
    """

    stimuli: int = 256
    batch: int = 32
    seed: int = 0


@dataclass(frozen=True)
class Diagnostic:
    """One diagnostic.

    Attributes:
        name: in commands and folders, as in `names.NAMES`.
        run: does it; is told how far it has come.
    """

    name: str
    run: Callable[[Subject, Budget, Report], Findings]
