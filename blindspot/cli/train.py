"""``blindspot train``: an arm of a study, or one stage of a model of one's own; on one process or under torchrun."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from blindspot.cli.status import one_line_errors
from blindspot.errors import UserError

_MODEL_ONLY = ("--json", "--images", "--connector", "--template", "--max-length", "--batch", "--lr", "--batching")


def train(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="With --arm a study's name or YAML file, else a model folder.")
    ],
    arm: Annotated[str | None, typer.Option(help="The study's arm to train.")] = None,
    stage: Annotated[
        str | None,
        typer.Option(
            help="[bold]connector[/bold] (LLaVA's first), [bold]instruct[/bold] (its second) or [bold]all[/bold]; "
            "by default all of an arm, instruct of a model."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="A seed of the arm; of a model, that of the order of data.")] = None,
    data: Annotated[Path | None, typer.Option(help="Of an arm: the data folder, as --plan has it.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder, on a disk that all processes see; of an arm by default runs/STUDY."),
    ] = None,
    json_path: Annotated[Path | None, typer.Option("--json", help="Of a model: rows in LLaVA's form.")] = None,
    images: Annotated[Path | None, typer.Option(help="The folder that their image paths are relative to.")] = None,
    connector: Annotated[Path | None, typer.Option(help="A connector.safetensors of stage 1 to start from.")] = None,
    template: Annotated[str | None, typer.Option(help="plain, v1 or chat; by default the stage's in LLaVA.")] = None,
    max_length: Annotated[int | None, typer.Option(help="Longest sample in tokens; by default 2048.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples of an optimiser step, over all GPUs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    batching: Annotated[str | None, typer.Option(help="packed, or llava for its padding and grouping.")] = None,
    total_steps: Annotated[
        int | None, typer.Option("--steps", help="Optimiser steps of a stage, to try it; else whole epochs.")
    ] = None,
    pack_tokens: Annotated[int | None, typer.Option(help="Most tokens of a micro-batch, as memory allows.")] = None,
    precision: Annotated[str | None, typer.Option(help="bf16 or fp32.")] = None,
    optimiser_states: Annotated[str | None, typer.Option(help="fp32, or bf16 for half their memory.")] = None,
    checkpointing: Annotated[str | None, typer.Option(help="Activations: none, selective or full.")] = None,
    shard_size: Annotated[int | None, typer.Option(help="GPUs that share a copy of the weights; else all.")] = None,
    compiled: Annotated[bool | None, typer.Option("--compile", help="Compile every transformer block.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of each rank that read pictures ahead.")] = None,
    tracker: Annotated[str | None, typer.Option(help="trackio, wandb or tensorboard, besides log.jsonl.")] = None,
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
    with one_line_errors():
        machine = _given(
            steps=total_steps,
            pack_tokens=pack_tokens,
            precision=precision,
            optimiser_states=optimiser_states,
            checkpointing=checkpointing,
            shard_size=shard_size,
            compile=compiled,
            save_every=save_every,
            workers=workers,
            tracker=tracker,
        )
        recipe = (json_path, images, connector, template, max_length, batch, lr, batching)
        if arm is not None:
            told = [name for name, value in zip(_MODEL_ONLY, recipe, strict=True) if value is not None]
            if told:
                raise UserError(f"{', '.join(told)}: the study says this of its arms; change its YAML file")
            made = _shown(lambda report: _arm(what, arm, stage or "all", seed, data, out, machine, report))
        else:
            _refuse_study(what)
            if json_path is None or images is None or out is None or data is not None:
                raise UserError("a model is trained with --json, --images and --out; an arm of a study with --arm")
            own = machine | _given(batch=batch, lr=lr, batching=batching, seed=seed)
            told = (Path(what), json_path, images, out, stage or "instruct", connector, template, max_length or 2048)
            made = _shown(lambda report: _model(*told, report, own))
        if os.environ.get("RANK", "0") == "0":
            Console().print(f"Written: {made}", soft_wrap=True, highlight=False)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse_study(what: str) -> None:
    """A study without an arm."""
    from blindspot.studies.loading import shipped_studies

    if Path(what).is_dir() or not (what in shipped_studies() or what.endswith((".yaml", ".yml"))):
        return
    from blindspot.studies.arms import expand_arms

    arms = ", ".join(arm.id for arm in expand_arms(_study(what)))
    raise UserError(f"{what} is a study; say which of its arms with --arm: {arms}")


def _study(name: str) -> Any:
    from blindspot.studies.loading import load_study

    study = load_study(name)
    if study.recipe == "toy":
        raise UserError(f"study {name} is a miniature, which trains with: blindspot study {name}")
    return study


def _arm(
    name: str,
    arm: str,
    stage: str,
    seed: int | None,
    data: Path | None,
    out: Path | None,
    machine: dict[str, Any],
    report: Callable[..., None],
) -> Path:
    from blindspot.studies.arms import STAGES, find_arm

    if stage not in ("all", *STAGES):
        raise UserError(f"--stage {stage}: one of connector, instruct, all")
    study = _study(name)
    resolved = find_arm(study, arm)
    from blindspot.studies.real import run_in, seed_of, train_run  # torch, which errors above need not wait for

    run = run_in(resolved, seed_of(resolved, seed), data, out or Path("runs") / study.name, machine)
    return train_run(run, STAGES if stage == "all" else (stage,), report)


def _model(
    model: Path,
    json_path: Path,
    images: Path,
    out: Path,
    stage: Any,
    connector: Path | None,
    template: str | None,
    max_length: int,
    report: Callable[..., None],
    options: dict[str, Any],
) -> Path:
    from blindspot.training.variant import train_arm

    return train_arm(model, json_path, images, out, stage, connector, template, max_length, report, **options)


def _shown(work: Callable[[Callable[..., None]], Path]) -> Path:
    """Do the work with a progress bar of its present stage."""
    from blindspot.model.load import quiet

    quiet()
    terminal = Console(stderr=True)
    columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]}"))
    with Progress(*columns, console=terminal, disable=not terminal.is_terminal) as progress:
        bars: dict[str, Any] = {}

        def show(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
            if phase not in bars:
                bars[phase] = progress.add_task(phase or "training", total=steps, loss="")
            progress.update(bars[phase], completed=step, loss="" if loss is None else f"{loss:.4f}")

        return work(show)
