"""What a study of real size costs: tokens, floating-point operations, memory, disk, and what it needs that is missing.

Operations are those of the model (2 a multiply-add); recomputing activations is counted apart, so that hours at a
given MFU do not depend on it. N: parameters of a map; s: tokens of a sample; d, L: width and blocks.

- A linear map costs 2N a token forward, and again for each further pass of `passes`: 6N where it trains, 4N where it is
  frozen with something that trains before it, 2N where nothing does.
- Causal attention costs 2 s^2 d L a sample forward (full attention, in the encoder, twice that), and twice as much
  backward whether or not anything in it trains: both factors of its products are activations.
- The head and its loss see supervised tokens only; the encoder runs up to the layer that is read.
"""

import shlex
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heapify, heappop, heappush
from math import ceil
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.studies.arms import FEATURE_LAYER, STAGES, Arm, expand_arms
from blindspot.studies.axes import Choice
from blindspot.studies.needs import Need, needs
from blindspot.studies.progress import priorities
from blindspot.studies.schema import EvaluatedModel, LlavaStage, Study
from blindspot.studies.sizes import MODELS
from blindspot.studies.step import KEEP, Room, Step
from blindspot.training.flops import GPUS as KNOWN
from blindspot.training.flops import Gpu, passes

PACK = 4096
"""Tokens of a packed micro-batch on one GPU, for the estimate of activations: the trainer's default."""
CHUNK = 1024
"""Supervised tokens whose logits are in memory at once."""
CHECKPOINTS_KEPT = 2
"""Resumable checkpoints that a running stage keeps, beside one that it writes."""
TEXT_TOKENS = 64
"""Of a question of a benchmark, its template and its answer, about."""
ANSWER_BYTES = 1000
"""Of a question with its answer and score, written twice; measured on the paper's benchmarks in a rehearsal."""
QUESTIONS = 5000
"""Of a benchmark that does not say how many it has."""
REHEARSED_BYTES = {"data": 2e7}
OTHERS_REHEARSED_BYTES = 2e6
SAVE_EVERY = 500
"""Optimiser steps between them."""
GPUS = KNOWN[:4]
"""Those that a plan compares."""


@dataclass(frozen=True)
class StageCounts:
    """What a stage reads over all epochs: rows, those with an image, and the tokens of images, text and answers."""

    samples: int
    images: int
    image_tokens: int
    text_tokens: int
    supervised: int
    steps: int

    @property
    def tokens(self) -> int:
        """All tokens that enter the language model."""
        return self.image_tokens + self.text_tokens


@dataclass(frozen=True)
class Flops:
    """Operations of a stage, by part; ``recompute`` is what full activation checkpointing adds to their sum."""

    blocks: float
    attention: float
    head: float
    connector: float
    encoder: float
    recompute: float

    @property
    def total(self) -> float:
        """Of the model, without recomputation."""
        return self.blocks + self.attention + self.head + self.connector + self.encoder


@dataclass(frozen=True)
class Memory:
    """Bytes on each GPU, states sharded over all of them.

    Trained parameters take 16 bytes: 2 + 2 for bf16 weights and gradients, 4 for the fp32 master, 8 for Adam (FSDP2
    keeps fp32 weights and fp32 gradients instead: 4 + 4 + 8). Frozen ones take 2.

    Activations are estimated from the tensors that autograd keeps.
    """

    weights: float  # bf16, of all parts
    gradients: float  # bf16, of what trains
    master: float  # its fp32 copy
    adam: float  # its two fp32 moments
    gathered: float  # two blocks of the language model, unsharded for use; 0 on one GPU
    activations: float  # of `PACK` tokens, nothing recomputed
    recomputed: float  # likewise, every block recomputed in the backward pass

    @property
    def states(self) -> float:
        """Everything but activations."""
        return self.weights + self.gradients + self.master + self.adam + self.gathered

    def fits(self, gpu: Gpu) -> str:
        """How the stage runs on a GPU, a tenth of which is left to the allocator: ``none`` recomputed, ``full``, or
        ``no``, it does not run."""
        room = 0.9 * gpu.memory - self.states
        return "none" if room >= self.activations else "full" if room >= self.recomputed else "no"


def parameters(arm: Arm) -> dict[str, int]:
    """Parameters of each part. A connector other than ``linear`` is counted as the two-layer MLP: under 1 % of a 7B."""
    width, language = arm.encoder_size.width, arm.language_size
    second = 0 if arm.point.connector.values["name"] == "linear" else (language.width + 1) * language.width
    return {
        "connector": (width + 1) * language.width + second,
        "language_model": language.parameters,
        "encoder": arm.encoder_size.parameters,
    }


def counts(arm: Arm, stage: LlavaStage) -> StageCounts:
    """Samples and tokens of a stage; an error if the study does not say how large its data are."""
    data = stage.data
    if data.rows is None or data.with_image is None or data.text_tokens is None or data.supervised_tokens is None:
        stated = "rows, with_image, text_tokens and supervised_tokens"
        raise UserError(f"{data.file}: how large it is is not said; write {stated} under data")
    rows, images = ceil(data.rows * stage.epochs), round(data.with_image * stage.epochs)
    text, supervised = data.text_tokens * rows, data.supervised_tokens * rows
    return StageCounts(rows, images, images * arm.image_tokens, text, supervised, stage.steps)


def room(study: Study, kind: str, arm: Arm | None, benchmarks: Sequence[str] = ()) -> Room:
    """Bytes of a step's folder; of an evaluation of real size those of its ``benchmarks``."""
    if study.rehearsed:
        most = REHEARSED_BYTES.get(kind, OTHERS_REHEARSED_BYTES)
        return Room(most, 0.0, most)
    if study.recipe == "toy":
        model, data = study.model, study.data
        if kind == "data":
            images = 6.0 * (data.train + data.test) * model.image**2
            return Room(images, 0.0, images)
        layers = model.encoder_layers + model.language_layers
        weights = 4.0 * layers * (4 * model.width**2 + 3 * model.width * model.mlp)
        return Room(2 * weights, weights, 2 * weights)  # as much again for logs and answers
    if arm is None or kind not in STAGES:
        from blindspot.benchmarks.registry import BENCHMARKS

        answers = ANSWER_BYTES * sum((name in BENCHMARKS and BENCHMARKS[name].size) or QUESTIONS for name in benchmarks)
        return Room(answers, 0.0, 2.0 * answers)
    sizes, stage = parameters(arm), arm.stages[kind]
    trained = sum(sizes[part] for part in {"connector", *stage.trains})
    left = 2.0 * sum(sizes.values()) if kind == "instruct" else 4.0 * trained  # in bf16; stage 1's parts in fp32
    saves = min(CHECKPOINTS_KEPT + 1, ceil((stage.steps or SAVE_EVERY) / SAVE_EVERY))
    checkpoint = 12.0 * trained  # fp32 weights and two moments
    return Room(left, left, max(saves * checkpoint, min(saves, CHECKPOINTS_KEPT) * checkpoint + left))


def index_bytes(arms: Iterable[Arm]) -> float:
    """Bytes of the rows that training reads, indexed once beside the steps: about four of a token and 100 of a row."""
    sets = {stage.data.file: stage.data for arm in arms for stage in arm.own_stages.values()}
    return sum((data.rows or 0) * (4.0 * (data.text_tokens or 0) + 100) for data in sets.values())


def peak(
    steps: Sequence[Step],
    keep: str = "all",
    workers: int = 1,
    done: Collection[str] = (),
    bare: Collection[str] = (),
) -> float:
    """Most bytes that steps add to what is on the disk at any time, carried out as the engine does by their estimates.

    Args:
        steps: inputs before what needs them.
        keep: one of `KEEP`.
        workers: steps side by side.
        done: ids of the steps that are done already.
        bare: those of them whose weights are removed.
    """
    of, places = {step.id: step for step in steps}, {step.id: place for place, step in enumerate(steps)}
    first = priorities(steps, keep)
    readers: dict[str, set[str]] = {step.id: set() for step in steps}
    for step in steps:
        for source in step.inputs.values():
            readers[source].add(step.id)
    finished, missing = set(done), {step.id: len(set(step.inputs.values()) - set(done)) for step in steps}
    ready = [(-first[name], places[name]) for name, left in missing.items() if not left and name not in finished]
    heapify(ready)
    removed, running, clock, held, working, most = set(bare), list[tuple[float, int]](), 0.0, 0.0, 0.0, 0.0
    while ready or running:
        while ready and len(running) < workers:
            step = steps[heappop(ready)[1]]
            heappush(running, (clock + step.estimate, places[step.id]))
            working += step.room.working
        most = max(most, held + working)
        clock, place = heappop(running)
        step = steps[place]
        finished.add(step.id)
        working, held = working - step.room.working, held + step.room.kept
        for name in readers[step.id] - finished:
            missing[name] -= 1
            if not missing[name]:
                heappush(ready, (-first[name], places[name]))
        for name in {step.id, *step.inputs.values()} - removed:
            if of[name].kind in KEEP[keep] and readers[name] <= finished:
                removed.add(name)
                held -= of[name].room.weights
    return most


def flops(arm: Arm, stage: LlavaStage) -> Flops:
    """Operations of a whole stage."""
    count, language, encoder = counts(arm, stage), arm.language_size, arm.encoder_size
    trained, tower = "language_model" in stage.trains, "encoder" in stage.trains
    text = count.text_tokens / count.samples
    squares = count.images * (arm.image_tokens + text) ** 2 + (count.samples - count.images) * text**2
    attention = 2 * squares * language.query * language.layers
    linear = 2 * passes(trained, True)
    patches = arm.grid[0] * arm.grid[1]
    seen, layers = patches + encoder.prefix, encoder.layers + 1 + FEATURE_LAYER
    of_blocks = layers * (2 * seen * encoder.block + 4 * seen**2 * encoder.width)
    read = count.images * (of_blocks + 2 * patches * 3 * encoder.patch**2 * encoder.width)
    connected = count.images * (2 * patches * parameters(arm)["connector"])
    return Flops(
        blocks=linear * language.blocks * count.tokens,
        attention=3 * attention,
        head=linear * language.head * count.supervised,
        connector=connected * passes("connector" in stage.trains, tower),
        encoder=read * passes(tower, False),
        recompute=2 * language.blocks * count.tokens + attention + read * tower,
    )


def answering(weights: float, image_tokens: int, questions: int) -> float:
    """Operations of some answers, about: every token goes through all weights. Those on one picture cost less."""
    return 2 * weights * (image_tokens + TEXT_TOKENS) * questions


def memory(arm: Arm, stage: LlavaStage, gpus: int) -> Memory:
    """Memory of a stage on each of some GPUs."""
    count, language, encoder, sizes = counts(arm, stage), arm.language_size, arm.encoder_size, parameters(arm)
    trained = sum(sizes[part] for part in stage.trains)
    full = "language_model" in stage.trains
    # Kept for the backward pass, in a Llama block: both norms' input (bf16 and fp32) and the gated MLP's branches; the
    # inputs of linear maps only where these train.
    width, attention = language.width, 2 * (2 * language.query + 2 * language.key)
    kept = attention + (12 * width + 6 * language.mlp) + (4 * width + 2 * language.mlp if full else 0)
    logits = CHUNK * language.vocabulary * 6
    images = PACK * count.images / count.tokens if "encoder" in stage.trains else 0
    seen = images * (arm.grid[0] * arm.grid[1] + encoder.prefix)
    tower = seen * 2 * (8 * encoder.width + (4 if encoder.gated else 2) * encoder.mlp)
    inputs = PACK * 2 * width * language.layers + seen * 2 * encoder.width * encoder.layers
    return Memory(
        weights=2 * sum(sizes.values()) / gpus,
        gradients=2 * trained / gpus,
        master=4 * trained / gpus,
        adam=8 * trained / gpus,
        gathered=2 * 2 * language.block if gpus > 1 else 0,
        activations=PACK * kept * language.layers + tower * encoder.layers + logits,
        recomputed=PACK * kept + tower + inputs + logits,
    )


@dataclass(frozen=True)
class StagePlan:
    """One stage of one arm, of a single seed; ``memory`` by number of GPUs."""

    arm: Arm
    name: str
    counts: StageCounts
    flops: Flops
    trained: int
    memory: dict[int, Memory]


@dataclass(frozen=True)
class StudyBudget:
    """What a study will do."""

    study: Study
    reference: str  # how the user named it, for commands
    arms: tuple[Arm, ...]
    stages: tuple[StagePlan, ...]
    needs: tuple[Need, ...]
    disk: dict[str, float]  # bytes, by what takes them
    peaks: dict[str, float]  # most bytes that the run folder has at once, by what is kept (`KEEP`)
    gpus: tuple[int, ...]  # numbers of GPUs that memory and days are told for
    mfu: float  # share of the peak that is reached
    data_root: Path | None

    @property
    def runs(self) -> int:
        """Trained models: every arm from every seed."""
        return sum(len(arm.seeds) for arm in self.arms)

    @property
    def total(self) -> float:
        """Operations of all runs."""
        return sum(stage.flops.total * len(stage.arm.seeds) for stage in self.stages)

    @cached_property
    def questions(self) -> int:
        """Those of all benchmarks, which every model is asked after each stage, and one that is not trained once."""
        from blindspot.benchmarks.registry import select

        return sum(benchmark.size for benchmark in select(self.study.asked))

    def answers(self, model: EvaluatedModel) -> float | None:
        """Operations of all answers of a model that is only evaluated; None where its size is not known."""
        size = MODELS.get(model.model)
        return None if size is None else answering(size.parameters, size.image_tokens, self.questions)

    @property
    def missing(self) -> list[Need]:
        """What is not there."""
        return [need for need in self.needs if not need.here]

    def gpu_hours(self, operations: float, gpu: Gpu) -> float:
        """Hours of one GPU for some operations, at the plan's MFU."""
        return operations / (gpu.peak * self.mfu * 3600)

    @property
    def next_commands(self) -> tuple[str, ...]:
        """What to type next."""
        study = shlex.quote(self.reference)
        if self.data_root is None and any(need.kind == "data" for need in self.needs):
            return (f"blindspot study {study} --plan --data FOLDER",)
        where = f" --data {shlex.quote(str(self.data_root))}" if self.data_root else ""
        if self.missing:
            fetched = any(need.commands for need in self.missing)
            return (f"blindspot data get {study}{where}",) if fetched else ()
        started = f"torchrun --nproc-per-node {max(self.gpus)} -m blindspot" if max(self.gpus) > 1 else "blindspot"
        return (f"{started} train {study} --arm {self.arms[0].id}{where}",)


def plan(
    study: Study,
    gpus: Sequence[int] = (1, 8),
    data_root: Path | None = None,
    mfu: float = 0.4,
    reference: str | None = None,
) -> StudyBudget:
    """Budget a study. Reads configs and looks for files; needs no weights, no GPU and no network, and torch only to
    read the sizes of encoders and language models that are not released ones.

    Args:
        gpus: numbers of GPUs to tell memory and days for.
        data_root: the data folder, laid out as LLaVA's ``playground/data``.
        mfu: share of the peak in (0, 1].
        reference: how the user named the study; by default its name.
    """
    if not 0 < mfu <= 1:
        raise UserError(f"--mfu: {mfu:g}: should be above 0 and at most 1")
    if not gpus or min(gpus) < 1:
        raise UserError("--gpus: should be at least 1")
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"--data: {data_root} is not a folder; make it, or name the one that holds coco, gqa, ...")
    arms, numbers = tuple(expand_arms(study)), tuple(sorted(set(gpus)))
    stages: list[StagePlan] = []
    for arm in arms:
        for name, stage in arm.own_stages.items():
            trained = sum(parameters(arm)[part] for part in stage.trains)
            on = {number: memory(arm, stage, number) for number in numbers}
            stages.append(StagePlan(arm, name, counts(arm, stage), flops(arm, stage), trained, on))
    wanted = tuple(needs(arms, data_root, models=study.models))
    disk = {
        "downloads": sum(need.size for need in wanted),  # unpacked; archives need as much again until they are deleted
        "missing": sum(need.size for need in wanted if not need.here),
        "models": sum(2 * sum(parameters(arm).values()) * len(arm.seeds) for arm in arms),  # bf16 weights
        "running": max(room(study, stage.name, stage.arm).working for stage in stages),
    }
    from blindspot.studies.plan import plan_steps  # which asks here what its steps cost

    steps, beside = plan_steps(study, ""), index_bytes(arms)
    peaks = {keep: peak(steps, keep) + beside for keep in KEEP}
    return StudyBudget(
        study, reference or study.name, arms, tuple(stages), wanted, disk, peaks, numbers, mfu, data_root
    )


def as_json(plan: StudyBudget) -> dict[str, Any]:
    """The plan as plain values. Operations, bytes and hours; ``per_run`` numbers are of one seed."""

    def whole(value: Flops | Memory | StageCounts) -> dict[str, int]:
        return {name: round(number) for name, number in vars(value).items()}

    def hours(operations: float | None) -> dict[str, float] | None:
        return None if operations is None else {gpu.name: round(plan.gpu_hours(operations, gpu), 2) for gpu in GPUS}

    return {
        "study": plan.study.name,
        "title": plan.study.title,
        "runs": plan.runs,
        "mfu": plan.mfu,
        "gpus": list(plan.gpus),
        "peaks_tflops": {gpu.name: gpu.peak / 1e12 for gpu in GPUS},
        "flops": plan.total,
        "gpu_hours": hours(plan.total),
        "arms": [
            {
                **{key: getattr(arm, key) for key in ("id", "label", "block", "image_tokens", "replicate_of")},
                **{axis: dict(one.values) if isinstance(one, Choice) else one for axis, one in arm.point.given.items()},
                "grid": list(arm.grid),
                "seeds": list(arm.seeds),
                "against": list(arm.against),
                "stages": {name: stage.model_dump(exclude_none=True) for name, stage in arm.stages.items()},
                "parameters": parameters(arm),
            }
            for arm in plan.arms
        ],
        "stages": [
            {
                "arm": stage.arm.id,
                "stage": stage.name,
                "batch": stage.arm.stages[stage.name].batch,
                "trained_parameters": stage.trained,
                **whole(stage.counts),
                "tokens": stage.counts.tokens,
                "flops_per_run": {**whole(stage.flops), "total": round(stage.flops.total)},
                "gpu_hours_per_run": hours(stage.flops.total),
                "memory_per_gpu": {
                    str(number): {**whole(on), "states": round(on.states)}
                    | {"recompute": {gpu.name: on.fits(gpu) for gpu in GPUS}}
                    for number, on in stage.memory.items()
                },
            }
            for stage in plan.stages
        ],
        "questions": plan.questions,
        "models": [
            {
                **model.model_dump(exclude_none=True),
                "download": size.download if (size := MODELS.get(model.model)) else None,
                "gpu_hours": hours(plan.answers(model)),
            }
            for model in plan.study.models
        ],
        "packed_tokens": PACK,
        "disk": {**plan.disk, "peak": plan.peaks},
        "needs": [{**vars(need), "commands": list(need.commands), "here": need.here} for need in plan.needs],
        "next": list(plan.next_commands),
    }
