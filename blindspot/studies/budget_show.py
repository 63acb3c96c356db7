"""The plan for the terminal: first what decides (cost, fit, what is missing, the next command), then tables."""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from blindspot.studies.arms import STAGES, Arm
from blindspot.studies.budget import GPUS, PACK, StagePlan, StudyBudget, parameters
from blindspot.studies.needs import Need
from blindspot.studies.sizes import MODELS
from blindspot.terminal import listing

_FIT = {"none": "yes", "full": "recomputing", "no": "no"}
_FIT_SHORT = {**_FIT, "full": "rec."}
_TIMED = [gpu for number, gpu in enumerate(GPUS) if gpu.peak not in {other.peak for other in GPUS[:number]}]
"""One GPU of each peak."""


def print_plan(plan: StudyBudget, console: Console) -> None:
    """Print the summary and the tables."""
    console.print(_summary(plan))
    sections = [("Arms", _arms(plan)), ("Recipe", _recipe(plan))]
    for name in STAGES:
        numbers = {stage.counts.samples for stage in plan.stages if stage.name == name}
        samples = " or ".join(f"{number:,}" for number in sorted(numbers)) or "no"
        head = f"Stage {name}: one run, {samples} samples; GPU-hours at {plan.mfu:.0%} MFU"
        sections.append((head, _stage(plan, name)))
    if plan.study.models:
        head = f"Models that are only evaluated: {plan.questions:,} questions each; GPU-hours at {plan.mfu:.0%} MFU"
        sections.append((head, _models(plan)))
    head = f"GB on each GPU: states, sharded, and activations of {PACK} packed tokens; does it fit?"
    for title, table in (*sections, (head, _memory(plan)), ("Needed files", needed(plan.needs))):
        console.print(Text(f"\n{title}", style="bold"))
        console.print(table)
    if plan.missing:
        console.print(Text("\nHow to get what is missing", style="bold"))
        for need in plan.missing:
            for command in need.commands:
                console.print(Text(f"  {command}"), soft_wrap=True)
    peaks = ", ".join(f"{gpu.name} {gpu.peak / 1e12:g}" for gpu in GPUS)
    largest = max(map(parameters, plan.arms), key=lambda sizes: sum(sizes.values()))
    sizes = ", ".join(f"{name.replace('_', ' ')} {_short(n)}" for name, n in largest.items())
    notes = (
        f"\nPeaks, dense bf16 TFLOP/s of the vendors' data sheets: {peaks}; GPUs of one peak take one time.\n"
        f"Parameters, largest arm: {sizes}.\n"
        "rec.: with full activation checkpointing; hours are for FLOPs without it, as MFU counts them.\n"
        "encoder: its share of the FLOPs. fp32: master weights.\n"
        "Tokens of text, and FLOPs with them, are estimates until blindspot data check has counted yours."
    )
    console.print(Text(notes, style="dim"))


def _summary(plan: StudyBudget) -> Group:
    table = Table.grid(padding=(0, 2))
    study, most, disk = plan.study, max(plan.gpus), plan.disk
    seeds = f"{study.seeds} seed{'s' if study.seeds > 1 else ''}"
    replicate = ", one of them a replicate" if study.arms.replicate else ""
    table.add_row("runs", f"{plan.runs}: {len(plan.arms)} arms{replicate}, x {seeds}")
    table.add_row("compute", f"{_flops(plan.total)} FLOPs; {_flops(plan.total / plan.runs)} a run on average")
    hours = {
        ", ".join(other.name for other in GPUS if other.peak == gpu.peak): plan.gpu_hours(plan.total, gpu)
        for gpu in _TIMED
    }
    each = [f"{name} {_days(value / most)}" for name, value in hours.items()]
    table.add_row("time", f"on {most} GPU{'s' if most > 1 else ''} at {plan.mfu:.0%} MFU: {'; '.join(each)}")
    table.add_row("GPU-hours", "; ".join(f"{name} {value:,.0f}" for name, value in hours.items()))
    worst = _largest(plan.stages, most)
    states, fits = worst.memory[most].states, [f"{gpu.name} {_FIT[worst.memory[most].fits(gpu)]}" for gpu in GPUS]
    table.add_row(
        "memory", f"{_gb(states)} GB of states a GPU in stage {worst.name}, and activations; fits: {', '.join(fits)}"
    )
    table.add_row(
        "disk",
        f"{_gb(disk['downloads'])} GB of data and checkpoints, {_gb(disk['models'])} GB of trained models, "
        f"{_gb(disk['running'])} GB while a run trains",
    )
    peaks = ", ".join(f"{_gb(most)} GB with --keep {keep}" for keep, most in plan.peaks.items())
    table.add_row("run folder", f"at most {peaks}, one run after another")
    table.add_row("missing", _missing(plan))
    commands = plan.next_commands or ("put your own files where the table of files says",)
    table.add_row("next", Text("\n".join(commands), style="cyan", overflow="fold"))
    return Group(Text(f"{study.name}: {study.title}", style="bold"), table)


def _missing(plan: StudyBudget) -> Text:
    if not plan.missing:
        return Text("nothing", style="green")
    kinds = {"checkpoint": "checkpoints", "data": "parts of the data"}
    numbers = {words: sum(need.kind == kind for need in plan.missing) for kind, words in kinds.items()}
    parts = ", ".join(f"{number} {words}" for words, number in numbers.items() if number)
    unsaid = plan.data_root is None and bool(numbers["parts of the data"])
    hint = "; where the data are is not said (--data FOLDER)" if unsaid else ""
    size = f", {_gb(plan.disk['missing'])} GB to download" if plan.disk["missing"] else ""
    return Text(f"{len(plan.missing)} of {len(plan.needs)} things ({parts}){size}{hint}", style="yellow")


def _arms(plan: StudyBudget) -> Table:
    def positions(arm: Arm) -> str:
        point = arm.point
        notes = [f"evaluated with {point.evaluate_with.label}"] * (point.evaluate_with != point.positions)
        notes += ["first patch dropped"] * point.drop_first_patch
        notes += [f"LM: {point.language_positions.label.removeprefix('LM ')}"] * (
            point.language_positions.name != "rope1d"
        )
        return "; ".join([point.positions.label, *notes])

    table = listing("arm !", "label", "encoder !", "px >", "tokens >", "encoder positions", padding=(0, 1, 0, 0))
    for arm in plan.arms:
        encoder, sizes = arm.point.encoder.split("/")[-1], (arm.point.image_size, arm.image_tokens)
        table.add_row(arm.id, arm.label, encoder, *map(str, sizes), positions(arm))
    return table


def _recipe(plan: StudyBudget) -> Table:
    def shown(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(part.replace("_", " ") for part in value)
        if isinstance(value, dict):
            return value["file"]
        return "as lr" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

    table = listing("", *STAGES, padding=(0, 1, 0, 0))
    stages = [getattr(plan.study, name).model_dump(exclude={"recipe"}) for name in STAGES]
    for key in stages[0]:
        values = [stage[key] for stage in stages]
        if values != [None, None]:
            table.add_row(key.replace("_", " "), *map(shown, values))
    return table


def _stage(plan: StudyBudget, name: str) -> Table:
    heads = ("tokens >", "batch >", "steps >", "trained >", "FLOPs >", "rec. >", "encoder >")
    table = listing("arm !", *heads, *(f"{gpu.name} >" for gpu in _TIMED), padding=(0, 1, 0, 0))
    for stage in plan.stages:
        if stage.name == name:
            flops = stage.flops
            table.add_row(
                stage.arm.id,
                f"{stage.counts.tokens / 1e6:,.0f}M",
                str(stage.arm.stages[name].batch),
                f"{stage.counts.steps:,}",
                _short(stage.trained),
                _flops(flops.total),
                _flops(flops.total + flops.recompute),
                f"{flops.encoder / flops.total:.1%}",
                *(f"{plan.gpu_hours(flops.total, gpu):,.1f}" for gpu in _TIMED),
            )
    return table


def _models(plan: StudyBudget) -> Table:
    table = listing("model !", "checkpoint", "GB >", *(f"{gpu.name} >" for gpu in _TIMED), padding=(0, 1, 0, 0))
    for model in plan.study.models:
        size, work = MODELS.get(model.model), plan.answers(model)
        told = _gb(size.download) if size else "on a server" if model.remote else "size unknown"
        hours = ("" if work is None else f"{plan.gpu_hours(work, gpu):,.1f}" for gpu in _TIMED)
        table.add_row(model.id, model.model, told, *hours)
    return table


def _memory(plan: StudyBudget) -> Table:
    heads = ("GPUs >", "weights >", "grads >", "fp32 >", "Adam >", "states >", "activ. >", "rec. >")
    table = listing("stage !", *heads, *(f"{gpu.name} !" for gpu in GPUS), padding=(0, 1, 0, 0))
    for name in STAGES:
        stages = [stage for stage in plan.stages if stage.name == name]
        for number in plan.gpus if stages else ():
            memory = _largest(stages, number).memory[number]
            parts = (memory.weights, memory.gradients, memory.master, memory.adam, memory.states)
            cells = map(_gb, (*parts, memory.activations, memory.recomputed))
            table.add_row(name, str(number), *cells, *(_FIT_SHORT[memory.fits(gpu)] for gpu in GPUS))
    return table


def _largest(stages: Iterable[StagePlan], gpus: int) -> StagePlan:
    return max(stages, key=lambda stage: stage.memory[gpus].states)


def needed(needs: Iterable[Need]) -> Table:
    """What a study needs, how large it is, where it belongs, and whether it is here."""
    table = listing("what", "GB >", "belongs in", "here", padding=(0, 1, 0, 0))
    for need in needs:
        part = f": {need.missing}" if need.missing not in (need.what, "all of it") else ""
        state = Text("yes", style="green") if need.here else Text(f"missing{part}", style="yellow")
        table.add_row(need.what, _gb(need.size) if need.size else "", need.where, state)
    return table


def _flops(value: float) -> str:
    return f"{value:.2e}".replace("e+", "e")


def _gb(value: float) -> str:
    return f"{value / 1e9:,.0f}" if value >= 10e9 else f"{value / 1e9:,.1f}"


def _short(value: int) -> str:
    return f"{value / 1e9:.2f}B" if value >= 1e9 else f"{value / 1e6:.1f}M"


def _days(hours: float) -> str:
    return f"{hours / 24:,.1f} days" if hours >= 48 else f"{hours:,.1f} h"
