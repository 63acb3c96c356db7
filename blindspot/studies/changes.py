"""What of a run folder is made again, and why: a changed study, other code, or because the user asks for it."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from blindspot.errors import UserError, did_you_mean
from blindspot.files import bytes_below
from blindspot.studies.arms import STAGES
from blindspot.studies.step import Done, Step

LONGEST_VALUE = 40
MOST_NAMES = 4
OTHER_CODE = "other code or libraries"
UNKNOWN = "what they were made from is not recorded"


def left_over(run: Path, steps: Iterable[Step]) -> list[Path]:
    """Folders of steps that a study does not have, or has no more: the newest first."""
    asked = {run / step.folder for step in steps}
    try:
        found = [path for path in (run / "steps").iterdir() if path.is_dir() and path not in asked]
        return sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"cannot read {run / 'steps'}: {error.strerror or error}") from error


def left_over_line(folders: Sequence[Path]) -> list[str]:
    """A line that says how much they hold, if there are any."""
    if not folders:
        return []
    held, names = decimal(sum(map(bytes_below, folders))), (folder.name for folder in folders)
    return [
        f"{len(folders)} in {folders[0].parent} are of no step that this study has now; they hold {held} and may be "
        f"removed: {shortened(names, ' ')}"
    ]


def shortened(names: Iterable[str], between: str = ", ") -> str:
    """Some names, and how many more there are."""
    several = list(names)
    more = len(several) - MOST_NAMES
    return between.join(several[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def made_again(run: Path, steps: Sequence[Step], finished: Collection[str]) -> dict[str, str]:
    """The steps to do that were done before under another key, each with what changed; "" where only its inputs did."""
    before: dict[str, Done] = {}
    for folder in left_over(run, steps):
        with suppress(OSError, ValueError, TypeError):
            done = Done.read(folder)
            before.setdefault(done.step, done)
    found: dict[str, str] = {}
    for step in steps:
        if step.id in before and step.id not in finished:
            changed = _changed(step, before[step.id].config)
            follows = any(source in found for source in step.inputs.values())
            found[step.id] = changed or ("" if follows else OTHER_CODE if before[step.id].config else UNKNOWN)
    return found


def _changed(step: Step, before: Mapping[str, Any]) -> str:
    """The keys of a step's config that were others, as a study has them."""
    then, now = (_flat(config, step.kind) for config in (before, step.config))
    said: list[str] = []
    for key in now | then if before else ():
        old, new = (str(values.get(key, "not given")) for values in (then, now))
        if old != new:
            short = max(len(old), len(new)) <= LONGEST_VALUE
            said.append(f"{key} was {old}, is {new}" if short else f"{key} changed")
    return ", ".join(said)


def _flat(config: Mapping[str, Any], kind: str, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        name = f"{prefix}{kind if key == 'trains_by' and kind in STAGES else key}"
        found |= _flat(value, kind, f"{name}.") if isinstance(value, dict) else {name: value}
    return found


def again_line(again: Mapping[str, str], steps: Iterable[Step], title: str = "made again") -> list[str]:
    """A line that says of which arms steps are made again, and what changed, if any are."""
    arms: dict[str, dict[str, None]] = defaultdict(dict)
    for step in steps:
        if again.get(step.id):
            arms[again[step.id]][step.arm or step.id] = None
    why = "; ".join(f"{shortened(names)}: {what}" for what, names in arms.items())
    return [f"{len(again)} finished steps are {title}: {why}"] if again else []


def chosen(steps: Sequence[Step], names: Iterable[str]) -> set[str]:
    """Ids of the steps that have these names or begin with them, and of all that depends on them."""
    found: set[str] = set()
    for name in names:
        mine = {step.id for step in steps if f"{step.id}/".startswith(f"{name.rstrip('/')}/")}
        if not mine:
            known = dict.fromkeys("/".join(step.id.split("/")[:length]) for step in steps for length in (1, 2))
            raise UserError(f"--redo {name}: no step of this study begins so; {did_you_mean(name, known)}")
        found |= mine
    for step in steps:
        if not found.isdisjoint(step.inputs.values()):
            found.add(step.id)
    return found
