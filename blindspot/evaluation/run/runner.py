"""Puts benchmarks to an answerer and keeps every answer: killed at any moment, the same call goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Collection
from blindspot.benchmarks.boxes import CONVENTION
from blindspot.errors import UserError
from blindspot.evaluation.base import Answerer, Asked, Prompt, Reply
from blindspot.evaluation.prompts import Profile
from blindspot.evaluation.run import answers
from blindspot.evaluation.run.asking import Asking, drawn, share
from blindspot.evaluation.run.conditions import AS_PUBLISHED, Condition
from blindspot.evaluation.run.folder import claim, versions
from blindspot.evaluation.run.ranks import Ranks, joined
from blindspot.files import fingerprint, locked
from blindspot.question import Question

Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a run left.

    Attributes:
        folder: the run folder.
        unanswered: why questions have no answer, by benchmark and question; empty: the run is complete.
    """

    folder: Path
    unanswered: Mapping[str, Mapping[str, str]]


@dataclass(frozen=True)
class _Task:
    """One benchmark of a run."""

    collection: Collection
    asking: Asking
    questions: tuple[Question, ...]
    folder: Path

    @property
    def name(self) -> str:
        return self.collection.benchmark.name

    def record(self) -> dict[str, Any]:
        """What its answers depend on, besides the model."""
        asked = [(one.id, str(self.asking.prompt(one)), one.images) for one in self.questions]
        boxes = {one.groups[CONVENTION] for one in self.questions if CONVENTION in one.groups}
        return {
            "form": self.collection.form,
            "digest": self.collection.digest,
            "questions": len(self.questions),
            "asked": fingerprint(asked),
            "notes": list(self.collection.notes),
            **({"boxes": boxes.pop()} if boxes else {}),
        }


def evaluate(
    answerer: Answerer,
    collections: Sequence[Collection],
    out: Path,
    *,
    prompts: Profile,
    prompt_profile: str,
    adapter: str | None = None,
    condition: Condition = AS_PUBLISHED,
    limit: int | None = None,
    report: Report | None = None,
) -> Outcome:
    """Ask every question that has no answer yet.

    Under ``torchrun`` each process asks its share of the pictures, and the first one puts the answers together.

    Args:
        answerer: what is asked.
        collections: the benchmarks.
        out: run folder, on a disk that all processes see.
        prompts: makes the prompts.
        prompt_profile: its name.
        adapter: the model's family, and how it was known; told, but no part of what a run is.
        condition: how the run departs from the benchmarks.
        limit: only so many questions of each benchmark, drawn by a fixed seed, whole sets; None: all.
        report: told ``(benchmark, answered, all)`` of this process, also what earlier calls answered.

    Raises:
        UserError: if the folder is in use, holds another run or cannot be written, or the answerer cannot go on. What
            was answered is kept.
    """
    tasks = [_task(collection, out, prompts, condition, limit) for collection in collections]
    settings = {"prompts": prompt_profile, "condition": condition.to_dict(), "limit": limit}
    with joined() as ranks, _held(ranks, out):
        ranks.first_does(lambda: _claim(out, tasks, answerer, adapter, settings))
        unanswered: dict[str, Mapping[str, str]] = {}
        for task in tasks:
            if answers.finished(task.folder, task.questions):
                ranks.first_does(lambda task=task: answers.tidy(task.folder))
                continue
            errors = _ask(task, answerer, ranks, report or _silent)
            if errors:
                unanswered[task.name] = errors
    return Outcome(out, unanswered)


def preview(
    collection: Collection, prompts: Profile, condition: Condition = AS_PUBLISHED, most: int = 3
) -> list[Asked]:
    """The first questions as an answerer would get them.

    Raises:
        UserError: if a picture cannot be read.
    """
    task = _task(collection, Path(), prompts, condition, limit=None)

    def failed(question: Question, why: str) -> None:
        raise UserError(f"{task.name}, question {question.id}: {why}")

    return [asked for portion in task.asking.portions(task.questions[:most], (), failed) for asked in portion]


def _task(collection: Collection, out: Path, prompts: Profile, condition: Condition, limit: int | None) -> _Task:
    benchmark = collection.benchmark
    _refuse_twins(benchmark.name, collection.questions)
    built: dict[str, Prompt] = {}

    def prompt(question: Question) -> Prompt:
        if question.id not in built:
            built[question.id] = prompts(question)
        return built[question.id]

    asking = Asking(benchmark, condition.images(collection.images), prompt, condition.likelihood)
    questions = drawn(condition.questions(collection.questions), limit)
    return _Task(collection, asking, questions, out / benchmark.name)


def _claim(
    out: Path, tasks: Sequence[_Task], answerer: Answerer, adapter: str | None, settings: Mapping[str, Any]
) -> None:
    told = {} if adapter is None else {"adapter": adapter}
    identity = {
        "answerer": {**answerer.identity, **told},
        **settings,
        "versions": versions(),
        "benchmarks": {task.name: task.record() for task in tasks},
    }
    claim(out, identity, all((task.folder / answers.ANSWERS).is_file() for task in tasks))


def _refuse_twins(name: str, questions: Sequence[Question]) -> None:
    seen: set[str] = set()
    for question in questions:
        if question.id in seen:
            raise UserError(f"{name} has two questions with the id {question.id!r}; number its rows anew")
        seen.add(question.id)


def _ask(task: _Task, answerer: Answerer, ranks: Ranks, report: Report) -> dict[str, str]:
    """Ask what is left of a benchmark; returns why questions have no answer, of all processes."""
    ranks.first_does(lambda: answers.mend(task.folder))
    held = answers.read_parts(task.folder)
    mine = share(task.questions, ranks.rank, ranks.world)
    answered = sum(question.id in held for question in mine)
    report(task.name, answered, len(mine))
    errors: dict[str, str] = {}
    with answers.Part(task.folder, ranks.rank) as part:
        for portion in task.asking.portions(mine, held, lambda question, why: errors.update({question.id: why})):
            for reply in _replies(answerer, portion):
                if reply.error is not None:
                    errors[reply.id] = reply.error
                    continue
                part.write(reply)
                answered += 1
                report(task.name, answered, len(mine))
    everybodys = {name: why for theirs in ranks.gather(errors) for name, why in theirs.items()}
    errors = {question.id: everybodys[question.id] for question in task.questions if question.id in everybodys}
    ranks.first_does(lambda: _close(task, errors))
    return errors


def _replies(answerer: Answerer, portion: Sequence[Asked]) -> Iterator[Reply]:
    """One reply for each question, whatever the answerer does."""
    waiting = dict.fromkeys(asked.id for asked in portion)
    for reply in answerer.answer(portion):
        if reply.id not in waiting:
            raise RuntimeError(f"the answerer answered {reply.id!r} twice, or without being asked")
        del waiting[reply.id]
        yield _finite(reply)
    yield from (Reply(name, "", error="the answerer gave no reply") for name in waiting)


def _finite(reply: Reply) -> Reply:
    """The reply, or an error in place of likelihoods that overflowed: no file could hold them."""
    for label, value in (reply.likelihood or {}).items():
        if not (isinstance(value, int | float) and abs(value) < float("inf")):
            return Reply(reply.id, "", error=f"the likelihood of {label!r} is {value}")
    return reply


def _close(task: _Task, errors: Mapping[str, str]) -> None:
    if errors:
        answers.write_errors(task.folder, errors)
    else:
        answers.finish(task.folder, task.questions, task.asking.prompt, answers.read_parts(task.folder))


@contextmanager
def _held(ranks: Ranks, out: Path) -> Iterator[None]:
    """Hold the run folder, for all processes of the run."""
    with ExitStack() as stack:
        ranks.first_does(lambda: stack.enter_context(locked(out)))
        yield


def _silent(benchmark: str, answered: int, total: int) -> None:
    pass
