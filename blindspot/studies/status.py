"""Where the run of a study is, read from its folder alone: also while another process works there, and after it."""

import os
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from blindspot.errors import UserError
from blindspot.files import LOG, bytes_below, holder, parse_json
from blindspot.studies.changes import left_over, left_over_line
from blindspot.studies.engine import LOG as WORKERS_LOG
from blindspot.studies.progress import Advanced, Progress
from blindspot.studies.step import ERROR, STARTED, Step, seconds_taken
from blindspot.text import clean

TAIL_BYTES = 2**16  # more than a row of a log has


@dataclass(frozen=True)
class Status:
    """A run folder as it was when it was read."""

    run: Path
    title: str
    process: str | None  # of the command that works in the folder
    steps: list[Step]
    labels: dict[str, str]
    done: dict[str, float]  # seconds of each finished step
    active: dict[str, tuple[float, Advanced]]  # for how many seconds each other step has been at work; its log
    failures: dict[str, str]  # last lines of what files of the run folder tell of failed steps, by path
    used: int  # bytes
    free: int
    left_over: list[Path]  # folders of steps that the study has no more

    def progress(self, console: Console) -> Progress:
        """The same for a console; as many processes go on as are at work."""
        gpus = sum(step.gpus for step in self.steps if step.id in self.active)
        progress = Progress(console, self.steps, self.labels, max(len(self.active), 1), gpus)
        progress.recall(self.done, self.active)
        return progress

    def show(self, console: Console) -> None:
        """Print it."""
        progress = self.progress(console)
        progress.show_plan(self.done, f"{self.title}: {self.run}", [])
        console.print(progress.lines())
        ended = "all is done" if len(self.done) == len(self.steps) else "the command that began it goes on"
        lines = [f"failed: {what} ({self.run / name})" for name, what in self.failures.items()]
        lines += [f"Process {self.process} works in it." if self.process else f"No process works in it; {ended}."]
        lines += [f"{decimal(self.used)} used, {decimal(self.free)} free.", *left_over_line(self.left_over)]
        for line in lines:
            console.print(line, soft_wrap=True, highlight=False, markup=False)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        progress = self.progress(Console())
        running = [
            {
                **{key: getattr(step, key) for key in ("id", "kind", "arm", "seed", "stage", "folder")},
                "seconds": round(seconds, 1),
                "seconds_left": round(left, 1),
                "at": {key: getattr(latest, key) for key in ("step", "steps", "loss")} if latest.steps else None,
            }
            for step, seconds, left in progress.running()
            for _, latest in [self.active[step.id]]
        ]
        return {
            "run": str(self.run),
            "title": self.title,
            "process": self.process,
            "phases": [row.to_dict() for row in progress.phases()],
            "running": running,
            "failures": [{"file": name, "says": what} for name, what in self.failures.items()],
            "bytes_used": self.used,
            "bytes_free": self.free,
            "left_over": [{"folder": str(folder), "bytes": bytes_below(folder)} for folder in self.left_over],
        }


def read_status(run: Path) -> Status:
    """Read a study's run folder; nothing in it is changed, checked against its checksums or waited for."""
    try:
        plan = parse_json((run / "plan.json").read_bytes())
        rows = [{key: value for key, value in row.items() if key != "folder"} for row in plan["steps"]]
        steps, title = [Step(config={}, **row) for row in rows], str(plan["title"])
        labels = {arm["id"]: arm["label"] for arm in plan["arms"]}
        Progress(Console(), steps, labels, 1).phases()
    except OSError as error:
        what = "it has no plan.json" if isinstance(error, FileNotFoundError) else error.strerror or error
        raise UserError(f"{run} is not a study's run folder ({what}); make one with: blindspot study NAME") from error
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise UserError(
            f"{run / 'plan.json'} is damaged or another version's; the `blindspot study` command that made it mends it"
        ) from None
    held, now = holder(run), time.time()
    done = seconds_taken(run, steps)
    active: dict[str, tuple[float, Advanced]] = {}
    failures: dict[str, str] = {}
    for step in (step for step in steps if step.id not in done):
        folder = run / step.folder
        with suppress(OSError):
            started = (folder / STARTED).stat().st_mtime
            if error := _tail(folder / ERROR):
                failures[f"{step.folder}/{ERROR}"] = clean(error[-1])
            elif held and started >= held[1]:
                advanced = _advanced(folder / LOG)
                if step.kind == "evaluate" and not advanced.steps:
                    advanced = _answered(folder)
                active[step.id] = (max(now - started, 0.0), advanced)
    told = _tail(run / WORKERS_LOG)
    if not held and not failures and len(done) < len(steps) and any(line.startswith("Traceback") for line in told):
        failures[WORKERS_LOG] = clean(told[-1])
    process, used = held[0] if held else None, bytes_below(run)
    free, left = shutil.disk_usage(run).free, left_over(run, steps)
    return Status(run, title, process, steps, labels, done, active, failures, used, free, left)


def _tail(path: Path) -> list[str]:
    """The last lines of a file that are not blank."""
    with suppress(OSError), path.open("rb") as file:
        file.seek(max(file.seek(0, os.SEEK_END) - TAIL_BYTES, 0))
        return [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    return []


def _advanced(log: Path) -> Advanced:
    """How far the last whole row of a log says that its step is."""
    for line in reversed(_tail(log)):
        with suppress(ValueError, TypeError, KeyError):
            row = parse_json(line)
            loss, left = (None if row.get(key) is None else float(row[key]) for key in ("loss", "seconds_left"))
            return Advanced(int(row["step"]), int(row["steps"]), loss, "", left)
    return Advanced(0, 0, None, "")


def _answered(folder: Path) -> Advanced:
    """How many questions an evaluation of real size has answered, and in which benchmark it is."""
    from blindspot.evaluation.run.folder import answered

    with suppress(UserError, ValueError, TypeError, KeyError):  # as it is written anew
        told = answered(folder)
        at = next((name for name, (done, of) in told.items() if done < of), "")
        done, of = (sum(each[place] for each in told.values()) for place in (0, 1))
        return Advanced(done, of, None, at)
    return Advanced(0, 0, None, "")
