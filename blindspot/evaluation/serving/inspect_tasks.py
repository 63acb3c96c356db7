"""Blindspot's benchmarks as tasks of inspect_ai, scored by our rules: ``inspect eval blindspot/vsr --model MODEL``.

inspect_ai finds this module through the entry point group ``inspect_ai``. A task puts its questions in the words of a
prompt profile to any model that inspect_ai reaches; its number is the benchmark's own, pairs and weights included.
"""

# pyright: reportMissingImports=false, reportInvalidTypeForm=false, reportCallIssue=false

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from blindspot.benchmarks.base import Term
from blindspot.benchmarks.registry import BENCHMARKS, select
from blindspot.benchmarks.scoring import DEFAULT
from blindspot.benchmarks.scoring import profile as scoring_profile
from blindspot.benchmarks.sources.download import data_root
from blindspot.errors import UserError
from blindspot.evaluation.adapters import ADAPTERS
from blindspot.evaluation.base import Picture
from blindspot.evaluation.boxes import told
from blindspot.evaluation.items import Questions
from blindspot.evaluation.models.api import data_url
from blindspot.evaluation.run.opening import Opened
from blindspot.evaluation.run.questions import Asking
from blindspot.evaluation.run.runner import prepare

try:
    from inspect_ai import Task, task
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import (
        ChatMessageSystem,
        ChatMessageUser,
        ContentImage,
        ContentText,
        GenerateConfig,
    )
    from inspect_ai.scorer import SampleScore, Score, metric, scorer
    from inspect_ai.util import registry_info
except ImportError:  # then this module is imported by nobody, but can be
    Task = Sample = SampleScore = Score = MemoryDataset = GenerateConfig = ChatMessageSystem = ChatMessageUser = Any
    ContentImage = ContentText = registry_info = task = Any

    def metric(made: Any) -> Any:
        return made

    def scorer(**_: Any) -> Any:
        return metric


INSTALLED = task is not Any
ROW = "row"
"""In a sample's metadata its row of answers.jsonl, but for the answer."""


def benchmark_task(
    name: str, data: str | None = None, prompts: str = "plain", profile: str = DEFAULT, boxes: str | None = None
) -> Task:
    """A benchmark as a task.

    Args:
        name: of the benchmark, or the path of a file of your own questions.
        data: the folder of benchmarks; None: $BLINDSPOT_DATA, else ``data``.
        prompts: a prompt profile; one that brings a model's whole text is refused.
        boxes: the convention in which the model says where something is, where that is asked.
    """
    form = told(boxes, ADAPTERS["generic"]) if boxes else None
    nobody: Any = None
    opened = partial(Opened, nobody, prompts, form=form)
    root = data_root(Path(data) if data else None)
    evaluation = prepare(select(name), root, opened, prompts)
    (collection,) = evaluation.collections
    asking = Asking.of(collection, evaluation.ask, evaluation.condition, None)

    def failed(question: Any, why: str) -> None:
        raise UserError(f"{asking.name}, question {question.id}: {why}")

    rows = {one.id: one.row("", str(asking.prompt(one)), asking.shown(one)) for one in asking.questions}
    asked = (one for portion in asking.portions(asking.questions, (), failed) for one in portion)
    samples = [_sample(one, rows[one.id]) for one in asked]
    longest = max(asking.prompt(one).longest for one in asking.questions)
    config = GenerateConfig(temperature=0.0, max_tokens=longest)
    metrics = [overall(asking.name), standard_error(asking.name)]
    return Task(dataset=MemoryDataset(samples), scorer=rules(profile), metrics=metrics, config=config)


def _sample(asked: Any, row: dict[str, Any]) -> Sample:
    prompt = asked.prompt
    if prompt.whole:
        raise UserError("these --prompts bring a model's whole text, and inspect_ai puts a template around it")
    pictures = iter(asked.pictures)
    content = [
        ContentImage(image=data_url(next(pictures))) if isinstance(part, Picture) else ContentText(text=part)
        for part in prompt.content
    ]
    system = [ChatMessageSystem(content=prompt.system)] if prompt.system else []
    messages = [*system, ChatMessageUser(content=content)]
    return Sample(input=messages, target=str(row["answer"]), id=asked.id, metadata={ROW: row})


def _of(name: str, scores: list[SampleScore]) -> Any:
    """The scored items of the benchmark's own score: pairs and sets count as one, parts by their weights."""
    terms = BENCHMARKS[name].metrics[0].terms if name in BENCHMARKS else (Term(),)
    partials = [(one.score.metadata or {}).get("partial") for one in scores]
    partial_q = np.array([np.nan if value is None else value for value in partials], dtype=float)
    score_q = np.array([float(one.score.value) for one in scores])
    return Questions.of([one.sample_metadata[ROW]["groups"] for one in scores]).sample(terms, score_q, partial_q)


@metric
def overall(name: str) -> Callable[[list[SampleScore]], float]:
    """The benchmark's own score."""

    def value(scores: list[SampleScore]) -> float:  # what its type says decides what is given
        return float(_of(name, scores).value or 0.0)

    return value


@metric
def standard_error(name: str) -> Callable[[list[SampleScore]], float]:
    """Its standard error over pictures and pairs, as in ``scores.json``."""

    def error(scores: list[SampleScore]) -> float:
        return float(_of(name, scores).estimate().error or 0.0)

    return error


@scorer(metrics=[])
def rules(profile: str = DEFAULT) -> Callable[..., Any]:
    """A scoring profile, for rows in the metadata of samples."""
    judge = scoring_profile(profile)

    async def score(state: Any, target: Any) -> Score:
        raw = state.output.completion
        scored = judge.score(state.metadata[ROW] | {"raw": raw})
        return Score(value=scored.score, answer=str(scored.extracted), explanation=raw, metadata=scored.numbers())

    return score


def _named(name: str, made: Callable[..., Task]) -> Callable[..., Task]:
    """A task ``blindspot/NAME``: inspect_ai says so by itself of what is installed, but for what can be edited."""
    found = task(name=name)(made)
    return found if "/" in registry_info(found).name else task(name=f"blindspot/{name}")(made)


def _task(name: str) -> Callable[..., Task]:
    def made(data: str | None = None, prompts: str = "plain", profile: str = DEFAULT, boxes: str | None = None) -> Task:
        return benchmark_task(name, data, prompts, profile, boxes)

    return _named(name, made)


TASKS = {name: _task(name) for name in BENCHMARKS if INSTALLED}
"""By the benchmark's name, in plain words unless ``-T prompts=NAME`` asks for a harness's."""
QUESTIONS = _named("questions", benchmark_task) if INSTALLED else None
"""``-T name=my.jsonl``: a file of own questions."""
