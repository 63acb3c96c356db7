"""The file by which a run is known to be the same when it is continued."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.files import parse_json, write_json
from blindspot.training.distributed.ranks import Ranks

RUN = "run.json"


def begin(out: Path, values: Mapping[str, Any], ranks: Ranks) -> None:
    """Begin a run in ``out``, or see that the one there is the same.

    Args:
        out: folder of the run.
        values: plain values that tell it from other runs: its recipe, and what it starts from.
        ranks: the processes.

    Raises:
        UserError: if it is another, or ``out`` cannot be written; on every rank.
    """
    problem = None
    if ranks.first:
        try:
            if not refuse_another(out, values):
                write_json(out / RUN, dict(values))
        except UserError as error:
            problem = str(error)
    problem = ranks.from_first(problem)
    if problem:
        raise UserError(problem)


def refuse_another(out: Path, values: Mapping[str, Any]) -> bool:
    """Whether there is a run in ``out``; what is not among ``values`` does not matter.

    Raises:
        UserError: if there is one with other values, or its file is damaged.
    """
    path = out / RUN
    if not path.exists():
        return False
    try:
        then = dict(parse_json(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged; choose another --out") from error
    changed = [
        f"{name} was {then.get(name)} and is {value}" for name, value in values.items() if then.get(name) != value
    ]
    if changed:
        raise UserError(f"the run in {out} is another ({'; '.join(changed)}); choose another --out")
    return True
