"""Where the numbers of a run go besides its log: a run of trackio, wandb or tensorboard. None changes a result."""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blindspot.errors import UserError, one_of
from blindspot.text import clean

LIBRARIES = ("trackio", "wandb", "tensorboard")
_COUNTS = ("step", "steps")


@dataclass(frozen=True)
class Tracker:
    """A library, and where its runs go; refused where it is not installed."""

    library: str  # its name
    folder: Path | None = None
    """Where all runs of a study have their files, each in a folder of its own; None: beside the run's log."""

    def __post_init__(self) -> None:
        one_of(self.library, LIBRARIES, "--tracker", "tracker")
        if importlib.util.find_spec(self.library) is None:
            raise self._missing("")

    def _missing(self, why: str) -> UserError:
        return UserError(f"the tracker {self.library} is not installed{why}; pip install {self.library}")

    def begin(self, folder: Path, rows: Iterable[Mapping[str, Any]] = ()) -> "Tracked":
        """Begin the run whose log is in ``folder``, or go on with it after the ``rows`` that the log has already.

        It is called as that folder is. Tensorboard is told these rows again in place of all before, since a kill loses
        the last of them. Nothing leaves the machine by itself: wandb is offline unless $WANDB_MODE says otherwise.
        """
        board, where = self.library == "tensorboard", self.folder or folder
        name = "/".join(part for part in folder.resolve().parts[-3:] if part != "steps")
        try:
            library: Any = importlib.import_module("torch.utils.tensorboard" if board else self.library)
            if board:
                files = where / self.library / (folder.name if self.folder else "")
                tracked = Tracked(library.SummaryWriter(files, purge_step=1), board)
                for row in rows:
                    tracked.write(row["step"], row)
                return tracked
            own: dict[str, Any] = {}
            if self.library == "wandb":
                identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
                own = {"id": identity, "dir": where, "mode": os.environ.get("WANDB_MODE", "offline")}
            group = name.partition("/")[0]
            return Tracked(library.init(project="blindspot", name=name, group=group, resume="allow", **own), board)
        except ImportError as error:
            raise self._missing(f" ({error})") from error
        except Exception as error:  # what a network or a server makes the libraries raise has no common base
            said = clean(str(error) or type(error).__name__, 200)
            raise UserError(f"the tracker {self.library} cannot begin ({said}); mend it, or leave it out") from error


@dataclass(frozen=True)
class Tracked:
    """A run under way."""

    run: Any
    board: bool

    def write(self, step: int, row: Mapping[str, Any]) -> None:
        """The numbers of a row of the log, those one level down too; all else is left out."""
        flat = dict(row)
        for outer, inside in row.items():
            if isinstance(inside, Mapping):
                flat |= {f"{outer}/{name}": value for name, value in inside.items()}
        numbers = {
            name: value for name, value in flat.items() if isinstance(value, int | float) and name not in _COUNTS
        }
        if self.board:
            for name, value in numbers.items():
                self.run.add_scalar(name, value, step)
        else:
            self.run.log(numbers, step=step)

    def close(self) -> None:
        """Tell the library that the run is over."""
        self.run.close() if self.board else self.run.finish()
