"""Texts that repeat, held as numbers: a million labels in a few megabytes. Suffix ``q``: questions."""

from array import array
from dataclasses import dataclass, field

import numpy as np

ABSENT = -1


@dataclass(frozen=True)
class Labels:
    """One label a question.

    Attributes:
        names: the distinct labels.
        code_q: place of each question's label in ``names``; `ABSENT` where it has none.
    """

    names: tuple[str, ...]
    code_q: np.ndarray

    def take(self, rows: np.ndarray) -> "Labels":
        """The labels of some questions."""
        return Labels(self.names, self.code_q[rows])

    def equal(self, name: str) -> np.ndarray:
        """Which questions carry this label."""
        return self.code_q == (self.names.index(name) if name in self.names else ABSENT - 1)

    def counts(self, chosen_q: np.ndarray | None = None) -> dict[str, int]:
        """How many questions carry each label, by name in alphabetical order; labels without any are left out."""
        code_q = self.code_q if chosen_q is None else self.code_q[chosen_q]
        counts = np.bincount(code_q[code_q != ABSENT], minlength=len(self.names))
        return {name: int(count) for name, count in sorted(zip(self.names, counts, strict=True)) if count}


@dataclass
class LabelsBuilder:
    """`Labels` that grow."""

    _places: dict[str, int] = field(default_factory=dict)
    _codes: array = field(default_factory=lambda: array("i"))

    def add(self, label: str | None) -> None:
        """The label of the next question."""
        self._codes.append(ABSENT if label is None else self._places.setdefault(label, len(self._places)))

    def add_at(self, row: int, label: str) -> None:
        """The label of question ``row``; those passed over have none."""
        if len(self._codes) < row:
            self._fill(row)
        self.add(label)

    def finish(self, rows: int | None = None) -> Labels:
        """The labels, of ``rows`` questions if given."""
        if rows is not None:
            self._fill(rows)
        return Labels(tuple(self._places), np.array(self._codes, dtype=np.int32))

    def _fill(self, rows: int) -> None:
        self._codes.extend([ABSENT] * (rows - len(self._codes)))
