"""``blindspot study``, ``status``, ``report``, ``compare-arms``, ``train``: studies, from file to page."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import TextColumn

from blindspot.cli.common import DataRoot, Json, bars, option, told
from blindspot.errors import UserError

_MACHINE = ("steps", "pack_tokens", "precision", "optimiser_states", "checkpointing", "shard_size", "compile",
            "save_every", "workers", "tracker")  # fmt: skip
_RECIPE = ("json", "images", "connector", "template", "max_length", "batch", "lr", "batching")
"""Options of ``train``: what a machine asks for, and what a study says of its arms."""


def study(
    name: Annotated[str, typer.Argument(metavar="NAME|PATH", help="A shipped study, or a YAML file of your own.")],
    out: Annotated[Path | None, option("Run folder.", default="runs/NAME, or runs/NAME-SCALE")] = None,
    scale: Annotated[
        str | None,
        option("[bold]full[/bold], or a scale of the study, e.g. [bold]smoke[/bold]: quick, numbers mean nothing."),
    ] = None,
    seeds: Annotated[int | None, option("Train everything this many times, instead of what the study says.")] = None,
    data: Annotated[Path | None, option("Folder of real data, for studies that read some (nlvr).")] = None,
    workers: Annotated[
        int | None,
        option("Steps side by side; results do not depend on it.", default="one per core, at most 8, or one per GPU"),
    ] = None,
    keep: Annotated[
        str,
        option(
            "Weights of a study of real size: [bold]all[/bold]; [bold]last[/bold], stage 2's models; or "
            "[bold]scores[/bold], none: answers, logs, results alone. Others go once nothing needs them."
        ),
    ] = "all",
    tracker: Annotated[
        str | None, option("Log training and scores to trackio, wandb or tensorboard too; no result depends on it.")
    ] = None,
    redo: Annotated[
        list[str] | None,
        option("Make steps again, with all that depends on them: an id, or how ids begin, as evaluate/instruct."),
    ] = None,
    verify: Annotated[
        bool, option("Hash large files of finished steps too, not only those that may have changed.", "--verify")
    ] = False,
    plan: Annotated[
        bool, option("Only say how many steps there are and how long they take; of real size what it needs.", "--plan")
    ] = False,
    gpus: Annotated[
        int | None,
        option("Of a study of real size: GPUs to use; with --plan, to plan for.", min=1, default="all; 8"),
    ] = None,
    gpus_per_step: Annotated[
        int | None,
        option("GPUs that train one of its models together.", min=1, default="the fewest of 1, 2, 4, 8 that hold it"),
    ] = None,
    mfu: Annotated[float, option("With --plan: share of the GPUs' peak that training reaches.")] = 0.4,
    as_json: Annotated[bool, option("With --plan: print JSON, for scripts.", "--json")] = False,
    on: Annotated[
        str, option("Where steps are carried out: [bold]local[/bold], here, or [bold]ray[/bold], on a Ray cluster.")
    ] = "local",
    address: Annotated[
        str | None, option("With --on ray: HOST:PORT of the cluster.", default="$RAY_ADDRESS, or one of this machine")
    ] = None,
    script: Annotated[
        str | None, option("Only print a batch script that does it on a cluster of its own: [bold]slurm[/bold].")
    ] = None,
    nodes: Annotated[int, option("With --script: nodes to ask for. With --on ray: nodes to wait for.", min=1)] = 1,
    gpus_per_node: Annotated[int, option("With --script: GPUs of each node.", min=0)] = 0,
    time: Annotated[str | None, option("With --script: as sbatch takes it, e.g. 1-12:00:00.")] = None,
) -> None:
    """Run a study: train its arms, test them, write tables and a page.

    Prints the plan, then a line per step. It may be interrupted or killed at
    any moment: the same command continues, and the results are the same, bit
    for bit. A finished step is not repeated unless its part of the study, the
    code or its inputs change; a damaged file is noticed and rebuilt.

    [bold]What it writes[/bold] into the run folder:

      [cyan]report/index.html[/cyan]   the page: tables, figures, a gallery of answers
      [cyan]results.json[/cyan]        every number on it
      [cyan]tables/[/cyan]             the tables as CSV and LaTeX
      [cyan]study.yaml[/cyan]          the study as it was run
      [cyan]steps/[/cyan]              one folder per step: weights, logs, raw answers

    [bold]Shipped studies[/bold]

      [cyan]miniature[/cyan]   four encoder families, each with absolute positions
                  and with 2D-RoPE, on drawn scenes
      [cyan]nlvr[/cyan]        the same arms on sentences that people wrote
                  about pictures; needs --data
      [cyan]objectives[/cyan]  one trunk; only what pretrains it moves
      [cyan]positions[/cyan]   schemes of the encoder and of the language model
      [cyan]released[/cyan]    the public code's arms beside corrected ones
      [cyan]why[/cyan]         seven explanations of what 2D-RoPE costs
      [cyan]depth[/cyan]       which of two is nearer, where only shadows tell
      [cyan]motion[/cyan]      in which order pictures came
      [cyan]views[/cyan]       left and right for the camera, and for another

    [bold]Of real size[/bold], with --data; first --plan, then --scale rehearsal

      [cyan]paper[/cyan], [cyan]paper-released[/cyan], [cyan]paper-controlled[/cyan], [cyan]paper-next[/cyan],
      [cyan]paper-fusion[/cyan]; [cyan]small[/cyan]: a night on one GPU

    [bold]Examples[/bold]

      [cyan]blindspot study miniature --scale smoke[/cyan]
      [cyan]blindspot study nlvr --data ~/nlvr/nlvr[/cyan]
      [cyan]blindspot study ./mine.yaml --seeds 3 --out results/mine[/cyan]
      [cyan]blindspot study paper --plan --gpus 8[/cyan]
      [cyan]blindspot study paper --data DATA --on ray --address 10.0.0.1:6379[/cyan]
      [cyan]blindspot study paper --data DATA --script slurm --nodes 2 --gpus-per-node 8 > paper.sh[/cyan]
    """
    given = {"out": out, "scale": scale, "seeds": seeds, "data": data, "workers": workers}
    given |= {"gpus-per-step": gpus_per_step, "keep": keep if keep != "all" else None, "tracker": tracker}
    if script is not None:
        again = [*(f"--redo={step}" for step in redo or ()), *(["--verify"] if verify else [])]
        print(_script(script, name, given, again, nodes, gpus_per_node, time), end="")
        return
    from blindspot.studies.study import run_study

    if plan:
        _plan(name, given, gpus or 8, mfu, as_json)
        return
    console = Console()
    how: dict[str, Any] = {"out": out, "scale": scale, "seeds": seeds, "data": data, "keep": keep, "redo": redo or ()}
    how |= {"workers": workers, "gpus": gpus, "gpus_per_step": gpus_per_step, "tracker": tracker, "verify": verify}
    run = run_study(name, **how, on=on, address=address, nodes=nodes, console=console)
    _report(run, console, data, checked=True)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="A run folder, e.g. runs/miniature; of evaluations one or several."),
    ],
    out: Annotated[Path | None, option("Of evaluations: the page.", default="glance.html in the first folder")] = None,
    data: DataRoot = None,
    profile: Annotated[
        str | None, option("Of evaluations: rules that answers are scored by.", default="vlmevalkit-2025-09")
    ] = None,
) -> None:
    """Write the page of a run once more, and print its tables.

    Of a study, with the pictures in --data; of a training run (also while it goes on): loss, throughput;
    of a diagnosis. Of evaluations, several models at a glance: a table of
    their scores with intervals, the best of each column and what cannot be
    told from it, and samples of their answers with the pictures in --data.

    [bold]Examples[/bold]

      [cyan]blindspot report runs/miniature[/cyan]
      [cyan]blindspot report runs/eval/clip runs/eval/aimv2 --out glance.html[/cyan]
    """
    from blindspot.reporting.diagnosis import is_diagnosis, write_diagnosis
    from blindspot.reporting.training import is_training_run, write_training_page

    run = runs[0]
    evaluations = [_is_evaluation(folder) for folder in runs]
    if all(evaluations):
        from blindspot.benchmarks.scoring import DEFAULT
        from blindspot.benchmarks.sources.download import data_root
        from blindspot.evaluation.scores.glance import glance
        from blindspot.reporting.glance import write_glance

        found = glance(runs, data_root(data), profile or DEFAULT)
        print(f"The page: {write_glance(found, out or run / 'glance.html')}")
    elif len(runs) > 1:
        raise UserError(f"{runs[evaluations.index(False)]} is not a run folder of blindspot evaluate (run.json); "
                        "only of these several make one page")  # fmt: skip
    elif (out, profile) != (None, None):
        raise UserError(f"{run}: --out and --profile are for run folders of blindspot evaluate; leave them out")
    elif (run / "plan.json").is_file():
        _report(run, Console(), data)
    elif data is not None:
        raise UserError(f"{run}: --data is for run folders of studies and of blindspot evaluate; leave it out")
    elif is_diagnosis(run):
        print(f"The page: {write_diagnosis(run)[0]}")
    elif is_training_run(run):
        print(f"The page: {write_training_page(run)}")
    else:
        raise UserError(
            f"{run} is not a run folder (it has no plan.json, diagnosis.json or run.json); make one with: "
            "blindspot study miniature"
        )


def _is_evaluation(folder: Path) -> bool:
    record = folder / "run.json"
    return record.is_file() and '"answerer"' in record.read_text(encoding="utf-8", errors="replace")


def status(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A study's run folder, e.g. runs/miniature.")],
    as_json: Json = False,
) -> None:
    """Say where the run of a study is: done, running, failed, time left, disk.

    It reads the run folder alone, while the study runs there or after it.

    [bold]Examples[/bold]

      [cyan]blindspot status runs/miniature[/cyan]
      [cyan]watch -n 60 blindspot status runs/paper[/cyan]
    """
    from blindspot.studies.status import read_status

    found = read_status(run)
    told(as_json, found.to_dict(), found.show)


def power(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A shipped study, or a YAML file of your own.")],
    runs: Annotated[
        Path | None, option("The pilot: a run folder with two seeds or more.", "--runs", default="runs/NAME")
    ] = None,
    points: Annotated[float, option("The effect to be found in scores, in points.", min=0.1, max=100)] = 8,
    factor: Annotated[float, option("The effect to be found in steps to learn, as a ratio.", min=1.01)] = 2,
    as_json: Json = False,
) -> None:
    """Say how many seeds a study needs, from the noise of a pilot.

    For every claim of the study and every pair and column of the pilot: the
    fewest seeds at which 80 of 100 studies find the effect after Holm's
    correction. Nothing is trained.

    [bold]Examples[/bold]

      [cyan]blindspot power why[/cyan]
      [cyan]blindspot power ./mine.yaml --runs runs/pilot --points 5 --json[/cyan]
    """
    from blindspot.reporting.power import print_seeds, seeds_needed
    from blindspot.reporting.run import RunClaim
    from blindspot.studies.loading import load_study

    plan = load_study(name)
    claims = [RunClaim.model_validate(claim.model_dump(exclude_none=True)) for claim in plan.hypotheses]
    found = seeds_needed(runs or Path("runs") / plan.name, claims, plan.means, points, factor)
    told(as_json, found, lambda console: print_seeds(found, points, factor, console))


def compare_arms(
    name: Annotated[str, typer.Argument(metavar="STUDY", help="A shipped study, or a YAML file of your own.")],
    as_json: Json = False,
) -> None:
    """Say what moves between the arms that a study compares.

    A comparison is called controlled only where exactly one thing moves.

    [bold]Examples[/bold]

      [cyan]blindspot compare-arms miniature[/cyan]
      [cyan]blindspot compare-arms ./mine.yaml[/cyan]
    """
    from blindspot.studies import compare
    from blindspot.studies.loading import load_study

    comparisons = compare.compare_arms(load_study(name))
    told(as_json, [one.to_dict() for one in comparisons], lambda console: console.print(compare.as_table(comparisons)))


def _plan(name: str, given: dict[str, Any], gpus: int, mfu: float, as_json: bool) -> None:
    from blindspot.studies.budget import as_json as plain
    from blindspot.studies.budget import plan
    from blindspot.studies.budget_show import print_plan
    from blindspot.studies.loading import load_study

    study = load_study(name, given["scale"], given["seeds"])
    if study.released:
        made = plan(study, gpus=tuple(sorted({1, gpus})), data_root=given["data"], mfu=mfu, reference=name)
        told(as_json, plain(made), lambda console: print_plan(made, console))
        return
    from blindspot.studies.study import foretell

    phases, show = foretell(study, Console(), *(given[key] for key in ("out", "data", "workers")))
    told(as_json, [row.to_dict() for row in phases], lambda _: show())


def _script(
    kind: str, name: str, given: dict[str, Any], again: list[str], nodes: int, gpus: int, time: str | None
) -> str:
    from blindspot.studies.loading import load_study
    from blindspot.studies.slurm import slurm_script

    if kind != "slurm":
        raise UserError(f"--script {kind}: should be slurm")
    load_study(name, given["scale"], given["seeds"])  # its mistakes are better known now than when the job runs
    options = [f"--{key}={value}" for key, value in given.items() if value is not None]
    return slurm_script(name, options + again, nodes, gpus, time)


def _report(run: Path, console: Console, data: Path | None, checked: bool = False) -> None:
    """Make the report of a run and print it; of one whose steps were just checked, only if it is not what it was.

    Pictures of benchmarks are taken from what a rehearsal made, else from ``data``.
    """
    from blindspot.reporting import collect, print_tables, write_report
    from blindspot.reporting.page import keep_report, kept_report, wanted_pictures

    results, page = kept_report(run) if checked else None, run / "report" / "index.html"
    if results is None:
        results = collect(run)
        if wanted := {path: of for path, of in wanted_pictures(run, results).items() if not path.is_file()}:
            from blindspot.benchmarks.sources.download import data_root
            from blindspot.evaluation.scores.glance import keep_pictures
            from blindspot.reporting.run import asked_data, load_plan

            plan = load_plan(run)
            made = next((run / step.folder for step in plan.steps if step.kind == "data"), None) or data_root(data)
            own = {name: one["place"] for name, one in asked_data(run, plan).items() if "place" in one}
            with console.status("") as status:
                notes = keep_pictures(wanted, made, lambda of: status.update(f"pictures of {of}"), own)
            for note in notes:
                console.print(f"Note: {note}", style="dim", markup=False)
        page = write_report(run)
        if checked:
            keep_report(run)
    print_tables(results, console)
    print(f"The page: {page}")


def train(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="With --arm a study's name or YAML file, else a model folder.")
    ],
    arm: Annotated[str | None, option("The study's arm to train.")] = None,
    stage: Annotated[
        str | None,
        option(
            "[bold]connector[/bold] (LLaVA's first), [bold]instruct[/bold] (its second) or [bold]all[/bold]; "
            "by default all of an arm, instruct of a model."
        ),
    ] = None,
    seed: Annotated[int | None, option("A seed of the arm; of a model, that of the order of data.")] = None,
    data: Annotated[Path | None, option("Of an arm: the data folder, as --plan has it.")] = None,
    out: Annotated[
        Path | None, option("Run folder, on a disk that all processes see; of an arm by default runs/STUDY.")
    ] = None,
    json: Annotated[Path | None, option("Of a model: rows in LLaVA's form.")] = None,
    images: Annotated[Path | None, option("The folder that their image paths are relative to.")] = None,
    connector: Annotated[Path | None, option("A connector.safetensors of stage 1 to start from.")] = None,
    template: Annotated[str | None, option("plain, v1 or chat; by default the stage's in LLaVA.")] = None,
    max_length: Annotated[int | None, option("Longest sample in tokens; by default 2048.", min=1)] = None,
    batch: Annotated[int | None, option("Samples of an optimiser step, over all GPUs.")] = None,
    lr: Annotated[float | None, option("Peak learning rate.")] = None,
    batching: Annotated[str | None, option("packed, or llava for its padding and grouping.")] = None,
    steps: Annotated[int | None, option("Optimiser steps of a stage, to try it; else whole epochs.")] = None,
    pack_tokens: Annotated[int | None, option("Most tokens of a micro-batch, as memory allows.")] = None,
    precision: Annotated[str | None, option("bf16 or fp32.")] = None,
    optimiser_states: Annotated[str | None, option("fp32, or bf16 for half their memory.")] = None,
    checkpointing: Annotated[str | None, option("Activations: none, selective or full.")] = None,
    shard_size: Annotated[int | None, option("GPUs that share a copy of the weights; else all.")] = None,
    compile: Annotated[bool | None, option("Compile every transformer block.", "--compile")] = None,
    save_every: Annotated[int | None, option("Steps between checkpoints.")] = None,
    workers: Annotated[int | None, option("Processes of each rank that read pictures ahead.")] = None,
    tracker: Annotated[str | None, option("trackio, wandb or tensorboard, besides log.jsonl.")] = None,
) -> None:
    """Train an arm of a study of real size, or one stage of a model of one's own, on data in LLaVA's form.

    An arm's recipe is the study's. Its folder in the run folder gets
    connector/connector.safetensors and instruct/model; stages that are done
    are passed over. A model's recipe is LLaVA-1.5's where no option says
    otherwise. Stopped at any moment, the same command goes on from the last
    checkpoint, on as many processes as it is started with then.

    [bold]Examples[/bold]

      [cyan]torchrun --nproc-per-node 8 -m blindspot train paper --arm clip --data playground/data[/cyan]
      [cyan]blindspot train ./mine.yaml --arm base --seed 1 --stage connector --data data[/cyan]
      [cyan]torchrun --nproc-per-node 8 -m blindspot train MODEL --json mix.json --images data \\
        --out runs/s2 --connector runs/s1/connector.safetensors[/cyan]
    """
    given = {name: value for name, value in locals().items() if value is not None}
    from blindspot.studies.loading import shipped_studies
    from blindspot.training.tracker import Tracker

    machine = {name: given[name] for name in _MACHINE if name in given}
    if tracker is not None:
        machine["tracker"] = given["tracker"] = Tracker(tracker)
    is_study = what in shipped_studies() or what.endswith((".yaml", ".yml"))
    if arm is not None or (is_study and not Path(what).is_dir()):
        if arm is not None and (told := [f"--{name.replace('_', '-')}" for name in _RECIPE if name in given]):
            raise UserError(f"{', '.join(told)}: the study says this of its arms; change its YAML file")
        work = _of_arm(what, arm, stage or "all", seed, data, out, machine)
    elif json is None or images is None or out is None or data is not None:
        raise UserError("a model is trained with --json, --images and --out; an arm of a study with --arm")
    else:
        from blindspot.training.variant import train_arm

        own = {name: given[name] for name in (*_RECIPE, *_MACHINE, "out", "seed") if name in given}
        work = partial(train_arm, Path(what), stage=stage or "instruct", **own)
    from blindspot.model.load import quiet

    quiet()
    with bars(TextColumn("loss {task.fields[loss]}")) as show:

        def report(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
            show(phase or "training", step, steps, loss="" if loss is None else f"{loss:.4f}")

        made = work(report=report)
    if os.environ.get("RANK", "0") == "0":
        print(f"Written: {made}")


def _of_arm(
    name: str,
    arm: str | None,
    stage: str,
    seed: int | None,
    data: Path | None,
    out: Path | None,
    machine: dict[str, Any],
) -> Callable[..., Path]:
    """What trains an arm; torch comes when nothing is wrong with what was asked for."""
    from blindspot.studies.arms import STAGES, expand_arms, find_arm
    from blindspot.studies.loading import load_study

    if stage not in ("all", *STAGES):
        raise UserError(f"--stage {stage}: one of connector, instruct, all")
    study = load_study(name)
    if study.recipe == "toy":
        raise UserError(f"study {name} is a miniature, which trains with: blindspot study {name}")
    if arm is None:
        arms = ", ".join(arm.id for arm in expand_arms(study))
        raise UserError(f"{name} is a study; say which of its arms with --arm: {arms}")
    resolved = find_arm(study, arm)
    from blindspot.studies.real import run_in, train_run

    run = run_in(resolved, seed, data, out or Path("runs") / study.name, machine)
    return partial(train_run, run, STAGES if stage == "all" else (stage,))
