"""The only names of Blindspot that the golden facts use: its command line, its files, and what stands here."""

import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from typer.testing import CliRunner, Result

PROFILES = ("vlmevalkit-2025-09", "vlmevalkit-2026-08", "lmms-eval-0.7.3", "official", "likelihood")


def command(*arguments: object) -> Result:
    """A command in this process, as on a terminal of 200 columns."""
    from blindspot.cli import app

    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "200"})


def options() -> dict[str, list[str]]:
    """Arguments and options of every command, as its help names them."""
    from typer.main import get_command

    from blindspot.cli import app

    return dict(_options(get_command(app), ""))


def _options(found: Any, name: str) -> Iterator[tuple[str, list[str]]]:
    shown = (parameter.opts + parameter.secondary_opts if parameter.param_type_name == "option"
             else [str(parameter.metavar or parameter.name).upper()] for parameter in found.params)  # fmt: skip
    yield name.strip() or "blindspot", [each for one in shown for each in one]
    for child, below in sorted(getattr(found, "commands", {}).items()):
        yield from _options(below, f"{name} {child}")


def scores(path: Path, profile: str) -> dict[str, Any]:
    """What ``scores.json`` says of answers; nothing is written."""
    from blindspot.evaluation.scores.report import score

    return score(path, profile)


def miniature_losses(study_file: Path, folder: Path) -> dict[str, list[float]]:
    """Carry out the training steps of a miniature study, and hear the loss of every optimiser step."""
    import torch

    from blindspot.studies.loading import load_study
    from blindspot.studies.plan import plan_steps
    from blindspot.studies.step import StepContext
    from blindspot.studies.steps import STEPS

    heard: dict[str, list[float]] = defaultdict(list)
    folders: dict[str, Path] = {}
    for step in plan_steps(load_study(str(study_file)), "golden"):
        if step.kind == "evaluate":
            continue
        folders[step.id] = folder / step.folder
        folders[step.id].mkdir(parents=True)

        def report(step: int, steps: int, loss: float | None = None, phase: str = "", own: str = step.id) -> None:
            if loss is not None:
                heard[own].append(loss)

        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(step.config.get("seed", 0))
        inputs = {role: folders[source] for role, source in step.inputs.items()}
        STEPS[step.kind](StepContext(step, folders[step.id], inputs, report))
    return heard
