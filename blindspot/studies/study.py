"""Runs a study from its file to a complete run folder."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal

from blindspot.errors import UserError, explained
from blindspot.files import bytes_below, locked, parse_json, write_json
from blindspot.studies.arms import expand_arms
from blindspot.studies.budget import index_bytes, peak
from blindspot.studies.changes import again_line, chosen, left_over, left_over_line, made_again, shortened
from blindspot.studies.cluster import RayPool, wait_for_workers
from blindspot.studies.engine import REGISTRY, Scheduler, run_steps
from blindspot.studies.gpus import Gpus, find_gpus, with_gpus
from blindspot.studies.loading import load_study, save_study
from blindspot.studies.local import LocalPool
from blindspot.studies.needs import needs
from blindspot.studies.plan import plan_steps, write_plan
from blindspot.studies.progress import Phase, Progress, print_notes
from blindspot.studies.schema import Study
from blindspot.studies.step import DONE, KEEP, Step, discard, seconds_taken
from blindspot.studies.tracking import choose
from blindspot.studies.versions import code_version, nlvr_fingerprint
from blindspot.training.tracker import Tracker

ON = ("local", "ray")
MOST_WORKERS = 8
MARGIN_BYTES = 50 * 2**20
REDO = "redo.json"
"""What was asked to be made again, until it is."""


def run_study(
    name_or_path: str,
    *,
    out: Path | None = None,
    scale: str | None = None,
    seeds: int | None = None,
    data: Path | None = None,
    workers: int | None = None,
    gpus: int | None = None,
    gpus_per_step: int | None = None,
    keep: str = "all",
    tracker: str | None = None,
    redo: Sequence[str] = (),
    verify: bool = False,
    console: Console | None = None,
    on: str = "local",
    address: str | None = None,
    nodes: int = 1,
    registry: str = REGISTRY,
) -> Path:
    """Run every step of a study that is not done yet, and say so if all are.

    Args:
        name_or_path: a shipped study or the path of a YAML file.
        out: run folder; ``runs/<name>`` if None, with ``-<scale>`` behind it for another scale than ``full``.
        scale: ``full``, or a key of the study's ``scales``.
        seeds: how often to repeat everything, instead of what the study says.
        data: folder of real data, for studies that read some.
        workers: steps side by side; if None one per usable core, at most 8, and for models of real size one per GPU.
        gpus: how many of this machine's to use, for models of real size; all if None.
        gpus_per_step: how many train a model of real size; if None the fewest of 1, 2, 4, 8 whose memory holds it.
        keep: of a study of real size: ``all``; ``last``, the models of stage 2 alone; or ``scores``, no weights. Others
            are removed when all steps that read them are done.
        tracker: where training logs and scores go besides files, see `Tracker`; no result depends on it.
        redo: ids of steps, or what they begin with: these are made again, with all that depends on them. Broken off,
            the same call goes on.
        verify: whether large files of finished steps are hashed, too.
        console: where progress is printed.
        on: ``local``, this machine, or ``ray``: a Ray cluster, on all that it has unless ``workers`` are given.
        address: of the cluster; None for $RAY_ADDRESS or else a cluster of this machine alone.
        nodes: how many of its nodes to wait for.
        registry: ``module:attribute`` of the step functions.

    Returns:
        The run folder, complete. A defect of the program is a `StepFailure`.
    """
    console = console or Console()
    study = load_study(name_or_path, scale, seeds)
    _refuse_options(study, data, workers, keep)
    tracked = Tracker(tracker) if tracker else None
    devices = _devices(study, gpus, gpus_per_step, on)
    steps, run = _steps(study, data), out or _run_folder(study)
    if on == "local":
        steps = with_gpus(study, steps, devices, gpus_per_step)
    finished = not redo and all((run / step.folder / DONE).is_file() for step in steps)
    if not finished:
        _refuse_missing(study, name_or_path, data)
    with locked(run) as lock, ExitStack() as opened:
        wait_for_workers(run)
        _refuse_other_study(run, study)
        cluster = None
        if on == "ray" and not finished:
            console.print(f"{study.title}: looking at the nodes of the Ray cluster", soft_wrap=True)
            cluster = RayPool(run, workers, address, nodes, partial(_missing, study, data), registry)
            opened.callback(cluster.close)
            if study.recipe == "llava":
                steps = with_gpus(study, steps, cluster.gpus, gpus_per_step)
        redone = [name for name in redo if name not in _under_way(run)]
        forgotten = chosen(steps, redo) & chosen(steps, redone)
        with console.status("Checking what is done") as shown:
            scheduler = Scheduler(steps, run, keep, data, forgotten, verify, tell=shown.update)
        _refuse_retraining(scheduler)
        slots, of_gpus = workers or len(devices.names) or _workers(study), len(devices.names)
        disk = _check_space(run, study, scheduler, keep, slots)
        if (run / "models").is_symlink():
            raise UserError(f"{run / 'models'} links to a folder of something else; remove it or choose another --out")
        again = made_again(run, steps, scheduler.finished)
        _forget(run, [step for step in steps if step.id in forgotten], redone)
        save_study(study, run / "study.yaml")
        write_plan(run, study, steps)
        choose(run, tracked)
        to_do = [step for step in steps if step.id not in scheduler.finished]
        if scheduler.complete:
            print_notes(console, _foreign_line(scheduler))
            console.print(f"{study.title}: everything is done already, all {len(steps)} steps in {run}", soft_wrap=True)
        else:
            if cluster:
                pool, slots, of_gpus = cluster, cluster.begin(to_do), len(cluster.gpus.names)
            elif on == "ray":
                raise UserError(f"{run}: what was finished is damaged and has been removed; repeat the command")
            else:
                pool = LocalPool(min(slots, len(to_do)), run, lock, devices.names, registry)
            progress = Progress(console, steps, _labels(study), slots, of_gpus)
            notes = _notes(study, scheduler, again)
            progress.show_plan(scheduler.finished, f"{study.title}: {run}", notes, {*again, *forgotten})
            console.print(disk, soft_wrap=True, highlight=False)
            run_steps(scheduler, pool, progress)
        (run / REDO).unlink(missing_ok=True)
        _link_models(run, [step for step in steps if step.id not in scheduler.bare])
    return run


def foretell(
    study: Study, console: Console, out: Path | None, data: Path | None, workers: int | None
) -> tuple[list[Phase], Callable[[], None]]:
    """How many steps a call of `run_study` would see done and make, how long that takes, and what prints it; nothing is
    made, and of what is done no checksum is looked at."""
    _refuse_options(study, data, workers, "all")
    steps, run = _steps(study, data), out or _run_folder(study)
    progress, done = Progress(console, steps, _labels(study), workers or _workers(study)), seconds_taken(run, steps)
    progress.recall(done, {})
    return progress.phases(), lambda: progress.show_plan(done, f"{study.title}: {run}", [])


def _steps(study: Study, data: Path | None) -> list[Step]:
    code = code_version(everything=True) if study.recipe == "llava" else code_version()
    return plan_steps(study, code, nlvr_fingerprint(data) if study.source == "nlvr" else None)


def _run_folder(study: Study) -> Path:
    return Path("runs") / (study.name if study.scale == "full" else f"{study.name}-{study.scale}")


def _labels(study: Study) -> dict[str, str]:
    return {one.id: one.label for one in (*expand_arms(study), *study.models)}


def _workers(study: Study) -> int:
    """How many steps run side by side where the user does not say."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return 1 if study.released else min(cores, MOST_WORKERS)  # a model fills its GPU


def _notes(study: Study, scheduler: Scheduler, again: Mapping[str, str]) -> list[str]:
    """What is said before a plan: first what a change would make for days again."""
    steps = scheduler.steps
    notes = again_line(again, steps, "to be retrained or made again" if study.released else "made again")
    notes += [] if study.meaningful else [f'Scale "{study.scale}" tests the machinery; its numbers mean nothing.']
    return [*notes, *_foreign_line(scheduler), *scheduler.damages, *left_over_line(left_over(scheduler.run, steps))]


def _under_way(run: Path) -> list[str]:
    """What an earlier call was asked to make again, and has not ended."""
    with suppress(OSError, ValueError, TypeError):
        return list(parse_json((run / REDO).read_bytes()))
    return []


def _forget(run: Path, steps: Sequence[Step], names: Sequence[str]) -> None:
    """Empty the folders of steps that are made again; that it was asked for is kept until all is done."""
    for step in steps:
        if (run / step.folder).exists():
            discard(run / step.folder)
    if names:
        write_json(run / REDO, [*_under_way(run), *names])


def _foreign_line(scheduler: Scheduler) -> list[str]:
    if not (made := scheduler.foreign):
        return []
    return [f"{len(made)} finished steps were made by other code and are kept (--redo STEP): {shortened(made)}"]


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


def _devices(study: Study, gpus: int | None, per_step: int | None, on: str) -> Gpus:
    """The GPUs of this machine that steps are dealt to: none of a miniature's, or where a cluster has them."""
    if on not in ON:
        raise UserError(f"--on: {on}: should be one of {', '.join(ON)}")
    if on == "ray" and gpus is not None:
        raise UserError("--gpus: on a cluster steps are dealt all that its nodes have; leave it out")
    for name, number in (("--gpus", gpus), ("--gpus-per-step", per_step)):
        if number is not None and study.recipe == "toy":
            raise UserError(f"study {study.name} is a miniature, whose steps take one core each; leave out {name}")
        if number is not None and number < 1:
            raise UserError(f"{name}: {number}: should be at least 1")
    found = find_gpus() if study.recipe == "llava" and on == "local" else Gpus(())
    if gpus and gpus > len(found.names):
        raise UserError(f"--gpus: {gpus}: this machine has {len(found.names)}")
    return found._replace(names=found.names[:gpus])


def _missing(study: Study, data: Path | None) -> list[str]:
    """What is not on this disk of all there is to train on and to ask."""
    from blindspot.benchmarks.registry import select
    from blindspot.benchmarks.sources.download import data_root, locate

    if not study.released:
        return []
    lacking = [need for need in needs(expand_arms(study), data, models=study.models) if not need.here]
    whole = {"all of it", *(need.what for need in lacking)}
    missing = [f"{need.what}{'' if need.missing in whole else f' ({need.missing})'}" for need in lacking]
    return missing + [f"benchmark {one.name}" for one in select(study.asked) if locate(one, data_root(data)) is None]


def _refuse_missing(study: Study, name: str, data: Path | None) -> None:
    """See that all is there before anything is trained for days."""
    if missing := _missing(study, data):
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


def _check_space(run: Path, study: Study, scheduler: Scheduler, keep: str, workers: int) -> str:
    """Refuse to start on a disk that is too small; what the steps to do need at most, for the plan."""
    free, to_do = shutil.disk_usage(run).free, [step for step in scheduler.steps if step.id not in scheduler.finished]
    if not to_do:
        return ""
    begun = sum(bytes_below(run / step.folder) for step in to_do) + bytes_below(run / "rows")
    beside = MARGIN_BYTES + (index_bytes(expand_arms(study)) if study.released else 0) - begun
    kept = KEEP if study.recipe == "llava" else [keep]
    needs = {
        one: max(peak(scheduler.steps, one, workers, scheduler.finished, scheduler.bare) + beside, 0.0) for one in kept
    }
    said = ", ".join(f"{decimal(round(need))}{f' with --keep {one}' * (len(needs) > 1)}" for one, need in needs.items())
    if free < needs[keep]:
        raise UserError(
            f"the disk of {run} has {decimal(free)} free and about {said} are needed; free some or choose another --out"
        )
    return f"At most {said} more on the disk at a time; {decimal(free)} are free."


def _link_models(run: Path, steps: list[Step]) -> None:
    """Give every trained variant a name that can be typed: ``models/<arm>-seed<seed>``."""
    models = run / "models"
    with explained(f"cannot link the models in {models}", advice="remove it or choose --out"):
        models.mkdir(exist_ok=True)
        for old in filter(Path.is_symlink, models.iterdir()):
            old.unlink()
        for step in steps:
            if step.kind == "instruct":
                (models / f"{step.arm}-seed{step.seed}").symlink_to(Path("..") / step.folder / "model")
