"""Runs a study from its file to a complete run folder."""

import os
import shutil
import sys
from pathlib import Path

from rich.console import Console

from blindspot.errors import UserError
from blindspot.files import locked, parse_json
from blindspot.studies.arms import expand_arms
from blindspot.studies.budget import parameters
from blindspot.studies.engine import KEEP, REGISTRY, Scheduler, run_steps
from blindspot.studies.loading import load_study, save_study
from blindspot.studies.needs import needs
from blindspot.studies.plan import plan_steps, write_plan
from blindspot.studies.progress import Progress
from blindspot.studies.schema import Study
from blindspot.studies.step import DONE, Step
from blindspot.studies.versions import code_version, nlvr_fingerprint

MOST_WORKERS = 8
BYTES_PER_PARAMETER = 8  # 32-bit weights, and as much again for logs and answers
MARGIN_BYTES = 50 * 2**20


def run_study(
    name_or_path: str,
    *,
    out: Path | None = None,
    scale: str | None = None,
    seeds: int | None = None,
    data: Path | None = None,
    workers: int | None = None,
    keep: str = "all",
    console: Console | None = None,
    registry: str = REGISTRY,
) -> Path:
    """Run every step of a study that is not done yet, and say so if all are.

    Args:
        name_or_path: a shipped study or the path of a YAML file.
        out: run folder; ``runs/<name>`` if None, with ``-<scale>`` behind it for another scale than ``full``.
        scale: ``full``, or a key of the study's ``scales``.
        seeds: how often to repeat everything, instead of what the study says.
        data: folder of real data, for studies that read some.
        workers: processes side by side; if None one per usable core, at most 8, and one for models of real size.
        keep: of a study of real size: ``all``; ``last``, the models of stage 2 alone; or ``scores``, no weights. Others
            are removed when all steps that read them are done.
        console: where progress is printed.
        registry: ``module:attribute`` of the step functions.

    Returns:
        The run folder, complete. A defect of the program is a `StepFailure`.
    """
    console = console or Console()
    study = load_study(name_or_path, scale, seeds)
    _refuse_options(study, data, workers, keep)
    code = code_version(everything=True) if study.rehearsed else code_version()
    steps = plan_steps(study, code, nlvr_fingerprint(data) if study.source == "nlvr" else None)
    run = out or Path("runs") / (study.name if study.meaningful else f"{study.name}-{study.scale}")
    if study.released and not all((run / step.folder / DONE).is_file() for step in steps):
        _refuse_missing(study, name_or_path, data)
    if workers is None:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        workers = 1 if study.released else min(cores, MOST_WORKERS)  # a model fills its GPU
    with locked(run) as lock:
        _refuse_other_study(run, study)
        scheduler = Scheduler(steps, run, keep)
        _refuse_retraining(scheduler)
        _check_space(run, study, len(steps) - len(scheduler.finished))
        if (run / "models").is_symlink():
            raise UserError(f"{run / 'models'} links to a folder of something else; remove it or choose another --out")
        save_study(study, run / "study.yaml")
        write_plan(run, study, steps)
        if scheduler.complete:
            console.print(f"{study.title}: everything is done already, all {len(steps)} steps in {run}", soft_wrap=True)
        else:
            labels = {one.id: one.label for one in (*expand_arms(study), *study.models)}
            progress = Progress(console, steps, labels, workers)
            notes = (
                [] if study.meaningful else [f'Scale "{study.scale}" tests the machinery; its numbers mean nothing.']
            )
            progress.show_plan(scheduler.finished, f"{study.title}: {run}", [*notes, *scheduler.damages])
            run_steps(scheduler, workers, lock, progress, data, registry)
        _link_models(run, [step for step in steps if not scheduler.done[step.id].removed])
    return run


def _refuse_options(study: Study, data: Path | None, workers: int | None, keep: str) -> None:
    if workers is not None and workers < 1:
        raise UserError(f"--workers: {workers}: should be at least 1")
    if keep not in KEEP:
        raise UserError(f"--keep: {keep}: should be one of {', '.join(KEEP)}")
    if keep != "all" and study.recipe == "toy":
        raise UserError(f"study {study.name} is a miniature, whose weights are small; leave out --keep")
    if data is not None and (study.source == "scenes" or study.rehearsed):
        reads = "a rehearsal makes what it reads" if study.rehearsed else f"study {study.name} draws its own scenes"
        raise UserError(f"{reads} and takes no --data")


def _refuse_missing(study: Study, name: str, data: Path | None) -> None:
    """See that all there is to train on and to ask is on this disk, before anything is trained for days."""
    from blindspot.benchmarks.registry import select
    from blindspot.benchmarks.sources.download import data_root, locate

    missing = [need.what for need in needs(expand_arms(study), data, models=study.models) if not need.here]
    missing += [f"benchmark {one.name}" for one in select(study.asked) if locate(one, data_root(data)) is None]
    if missing:
        more = f" and {len(missing) - 1} more things" if len(missing) > 1 else ""
        raise UserError(
            f"{missing[0]}{more} that study {name} needs: missing; `blindspot study {name} --plan "
            f"--data {data or 'FOLDER'}` says where to get checkpoints and data, `blindspot benchmarks` the benchmarks"
        )


def _refuse_retraining(scheduler: Scheduler) -> None:
    """Retrain nothing for days because one step that reads removed weights has to be made again."""
    if gone := scheduler.without_weights:
        waiting = next(step for step in scheduler.steps if step.id not in scheduler.finished)
        folders = " ".join(str(scheduler.run / step.folder) for step in gone)
        raise UserError(
            f"{waiting.id} has to be made and needs weights that --keep removed; to retrain "
            f"{', '.join(step.id for step in gone)}, remove {folders}"
        )


def _refuse_other_study(run: Path, study: Study) -> None:
    """Keep a run folder to one study at one scale, because its results are replaced on every call."""
    try:
        plan = parse_json((run / "plan.json").read_text(encoding="utf-8"))
        held = (plan["study"], plan["scale"])
    except (OSError, ValueError, KeyError, TypeError):
        return  # no plan, or one that was cut short: it is written anew
    if held != (study.name, study.scale):
        raise UserError(f"{run} holds study {held[0]} at scale {held[1]}; choose another --out")


def _check_space(run: Path, study: Study, steps_to_do: int) -> None:
    """Refuse to start on a disk that is clearly too small."""
    free = shutil.disk_usage(run).free
    if study.rehearsed:
        needed = MARGIN_BYTES
    elif study.recipe == "llava":
        arms = expand_arms(study)
        largest = max(2 * sum(parameters(arm).values()) for arm in arms)  # two bytes a weight
        needed = largest * min(steps_to_do, sum(len(arm.seeds) for arm in arms))
    else:
        model = study.model
        weights = 4 * model.width**2 + 3 * model.width * model.mlp
        weights *= model.encoder_layers + model.language_layers
        images = 3 * (study.data.train + study.data.test) * model.image**2
        needed = MARGIN_BYTES + 2 * images + steps_to_do * BYTES_PER_PARAMETER * weights
    if steps_to_do and free < needed:
        raise UserError(
            f"the disk of {run} has {free / 2**20:.0f} MB free and about {needed / 2**20:.0f} MB are needed; "
            "free some or choose another --out"
        )


def _link_models(run: Path, steps: list[Step]) -> None:
    """Give every trained variant a name that can be typed: ``models/<arm>-seed<seed>``."""
    models = run / "models"
    try:
        models.mkdir(exist_ok=True)
        for old in filter(Path.is_symlink, models.iterdir()):
            old.unlink()
        for step in steps:
            if step.kind == "instruct":
                (models / f"{step.arm}-seed{step.seed}").symlink_to(Path("..") / step.folder / "model")
    except OSError as error:
        raise UserError(f"cannot link the models in {models}: {error.strerror}; remove it or choose --out") from error
