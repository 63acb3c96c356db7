"""The file by which a run is known to be the same when it is continued."""

import json
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.files import write_json
from blindspot.training.distributed.config import TrainConfig
from blindspot.training.distributed.ranks import Ranks

RUN = "run.json"


def begin(out: Path, config: TrainConfig, samples: int, ranks: Ranks) -> None:
    """Begin a run in ``out``, or see that the one there has the same recipe and as many samples.

    Raises:
        UserError: if it has not, or ``out`` cannot be written; on every rank.
    """
    problem = None
    if ranks.first:
        try:
            problem = _begin(out / RUN, {**config.recipe(), "samples": samples})
        except UserError as error:
            problem = str(error)
    problem = ranks.from_first(problem)
    if problem:
        raise UserError(problem)


def _begin(path: Path, now: dict[str, Any]) -> str | None:
    if not path.exists():
        write_json(path, now)
        return None
    try:
        then = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return f"{path} is damaged; choose another --out"
    changed = [f"{name} was {then.get(name)} and is {value}" for name, value in now.items() if then.get(name) != value]
    return f"the run in {path.parent} is another ({'; '.join(changed)}); choose another --out" if changed else None
