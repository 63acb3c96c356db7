"""``blindspot train``: one stage of one model on LLaVA's data, on one process or under torchrun."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, TextColumn

from blindspot.cli.status import one_line_errors


def train(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="What to start from: a model folder of any format.")],
    json_path: Annotated[Path, typer.Option("--json", help="Rows in LLaVA's form.")],
    images: Annotated[Path, typer.Option(help="The folder that their image paths are relative to.")],
    out: Annotated[Path, typer.Option(help="Run folder, on a disk that all processes see.")],
    stage: Annotated[
        str, typer.Option(help="[bold]connector[/bold] (LLaVA's first) or [bold]instruct[/bold] (its second).")
    ] = "instruct",
    connector: Annotated[Path | None, typer.Option(help="A connector.safetensors of stage 1 to start from.")] = None,
    template: Annotated[str | None, typer.Option(help="plain, v1 or chat; by default the stage's in LLaVA.")] = None,
    batch: Annotated[int | None, typer.Option(help="Samples of an optimiser step, over all GPUs.")] = None,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    total_steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps, instead of one epoch.")] = None,
    pack_tokens: Annotated[int | None, typer.Option(help="Most tokens of a micro-batch, as memory allows.")] = None,
    max_length: Annotated[int, typer.Option(help="Longest sample in tokens.")] = 2048,
    precision: Annotated[str | None, typer.Option(help="bf16 or fp32.")] = None,
    checkpointing: Annotated[str | None, typer.Option(help="Activations: none, selective or full.")] = None,
    batching: Annotated[str | None, typer.Option(help="packed, or llava for its padding and grouping.")] = None,
    save_every: Annotated[int | None, typer.Option(help="Steps between checkpoints.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes of each rank that read pictures ahead.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the order of the data.")] = None,
    tracker: Annotated[str | None, typer.Option(help="trackio, wandb or tensorboard, besides log.jsonl.")] = None,
) -> None:
    """Train a stage of a model on data in LLaVA's form.

    What is not said is LLaVA-1.5's recipe. Stopped at any moment, the same
    command goes on from the last checkpoint, on as many processes as it is
    started with then.

    [bold]Examples[/bold]

      [cyan]blindspot train MODEL --json pretrain.json --images images --out runs/s1 --stage connector[/cyan]
      [cyan]torchrun --nproc-per-node 8 -m blindspot train MODEL --json mix.json --images data \\
        --out runs/s2 --connector runs/s1/connector.safetensors[/cyan]
    """
    with one_line_errors():
        from blindspot.model.load import quiet
        from blindspot.training.distributed.arm import train_arm

        quiet()
        named: dict[str, Any] = {
            "batch": batch,
            "lr": lr,
            "steps": total_steps,
            "pack_tokens": pack_tokens,
            "precision": precision,
            "checkpointing": checkpointing,
            "batching": batching,
            "save_every": save_every,
            "workers": workers,
            "seed": seed,
            "tracker": tracker,
        }
        given = {name: value for name, value in named.items() if value is not None}
        terminal = Console(stderr=True)
        columns = (*Progress.get_default_columns(), TextColumn("loss {task.fields[loss]}"))
        with Progress(*columns, console=terminal, disable=not terminal.is_terminal) as progress:
            task = progress.add_task(stage, total=None, loss="")

            def show(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
                progress.update(task, completed=step, total=steps, loss="" if loss is None else f"{loss:.4f}")

            made = train_arm(
                model,
                json_path,
                images,
                out,
                stage,  # pyright: ignore[reportArgumentType]  (train_arm refuses other words in one line)
                connector,
                template,
                max_length,
                show,
                **given,
            )
        if os.environ.get("RANK", "0") == "0":
            Console().print(f"Written: {made}", soft_wrap=True, highlight=False)
