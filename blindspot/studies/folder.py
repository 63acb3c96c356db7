"""The run folder: one study at one scale, with room for what will be written."""

import shutil
from pathlib import Path

from blindspot.errors import UserError
from blindspot.files import parse_json
from blindspot.studies.arms import Arm, expand_arms
from blindspot.studies.cost import parameters
from blindspot.studies.schema import Study

BYTES_PER_PARAMETER = 8  # 32-bit weights, and as much again for logs and answers
MARGIN_BYTES = 50 * 2**20


def refuse_other_study(run: Path, study: Study) -> None:
    """Keep a run folder to one study at one scale, because its results are replaced on every call.

    Raises:
        UserError: if the folder holds another one.
    """
    try:
        plan = parse_json((run / "plan.json").read_text(encoding="utf-8"))
        held = (plan["study"], plan["scale"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # no plan, or one that was cut short: it is written anew
    if held != (study.name, study.scale):
        raise UserError(f"{run} holds study {held[0]} at scale {held[1]}; choose another --out")


def check_space(run: Path, study: Study, steps_to_do: int) -> None:
    """Refuse to start on a disk that is clearly too small.

    Raises:
        UserError: with what is free and what is needed.
    """
    free = shutil.disk_usage(run).free
    if study.recipe == "llava":
        arms = expand_arms(study)
        needed = max(map(run_bytes, arms)) * min(steps_to_do, sum(len(arm.seeds) for arm in arms))
        _refuse_small(run, free, needed, steps_to_do)
        return
    images = 3 * (study.data.train + study.data.test) * study.model.image**2
    layers = study.model.encoder_layers + study.model.language_layers
    parameters = layers * (4 * study.model.width**2 + 3 * study.model.width * study.model.mlp)
    needed = MARGIN_BYTES + 2 * images + steps_to_do * BYTES_PER_PARAMETER * parameters
    _refuse_small(run, free, needed, steps_to_do)


def run_bytes(arm: Arm) -> float:
    """What a trained arm of real size leaves: weights in two bytes each."""
    return 2 * sum(parameters(arm).values())


def _refuse_small(run: Path, free: float, needed: float, steps_to_do: int) -> None:
    if steps_to_do and free < needed:
        raise UserError(
            f"the disk of {run} has {free / 2**20:.0f} MB free and about {needed / 2**20:.0f} MB are needed; "
            "free some or choose another --out"
        )
