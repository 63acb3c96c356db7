"""Puts benchmarks to a model and keeps every answer: killed at any moment, the same call goes on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from blindspot import plugins
from blindspot.benchmarks.base import USUAL, Benchmark, Collection, Draw
from blindspot.benchmarks.boxes import CONVENTION
from blindspot.benchmarks.registry import SETS
from blindspot.benchmarks.sources.download import UNFINISHED, locate
from blindspot.errors import UserError
from blindspot.evaluation.base import Answerer, Asked, Reply
from blindspot.evaluation.boxes import asking_for_boxes, with_form
from blindspot.evaluation.prompts import Profile, profile
from blindspot.evaluation.run import folder as answers
from blindspot.evaluation.run.opening import Opened
from blindspot.evaluation.run.questions import AS_PUBLISHED, Asking, Condition, share
from blindspot.files import fingerprint, locked
from blindspot.question import Question
from blindspot.rendezvous import Ranks, join_ranks

Report = Callable[[str, int, int, int], None]
"""Is told the benchmark, how many of this process's answers there are, also of earlier calls, of how many, and how many
tokens this call's have."""
_PATIENCE = timedelta(days=30)  # the first to finish waits for the last, and torchrun ends all if one dies


@dataclass(frozen=True)
class Evaluation:
    """A model and the benchmarks that are put to it, found at ``places``, by ``ask``, which the profile ``prompts`` is.

    Of each benchmark at least ``limit`` questions are asked, drawn by a fixed seed in whole sets; None: all.
    """

    opened: Opened
    collections: Sequence[Collection]
    prompts: str
    ask: Profile
    condition: Condition = AS_PUBLISHED
    limit: int | None = None
    places: Sequence[Path] = ()

    def preview(self, most: int = 3) -> Iterator[list[Asked]]:
        """The first questions of each benchmark as the model would get them."""
        for collection in self.collections:
            asking = Asking.of(collection, self.ask, self.condition, None)

            def failed(question: Question, why: str, name: str = asking.name) -> None:
                raise UserError(f"{name}, question {question.id}: {why}")

            yield [asked for portion in asking.portions(asking.questions[:most], (), failed) for asked in portion]

    def run(self, out: Path, report: Report = lambda *told: None) -> dict[str, dict[str, str]]:
        """Ask every question that has no answer yet in the run folder, which must be on a disk that all processes see.

        Under ``torchrun`` each process asks its share of the pictures, and the first one puts the answers together.
        A folder that is in use or holds another run is refused; what was answered is kept whatever happens.

        Returns:
            Why questions have no answer, by benchmark and question; empty: the run is complete.
        """
        askings = [Asking.of(collection, self.ask, self.condition, self.limit) for collection in self.collections]
        unanswered: dict[str, dict[str, str]] = {}
        with join_ranks(timeout=_PATIENCE) as ranks, ExitStack() as held:
            ranks.first_does(lambda: held.enter_context(locked(out)))
            ranks.first_does(lambda: self._claim(out, askings))
            for asking in askings:
                folder = out / asking.name
                if answers.finished(folder, asking):
                    ranks.first_does(partial(answers.tidy, folder))
                elif errors := _ask(asking, folder, self.opened.answerer, ranks, report):
                    unanswered[asking.name] = errors
        return unanswered

    def _claim(self, out: Path, askings: Sequence[Asking]) -> None:
        benchmarks: dict[str, Any] = {}
        for asking in askings:
            boxes = {one.groups[CONVENTION] for one in asking.questions if CONVENTION in one.groups}
            benchmarks[asking.name] = {
                "form": asking.collection.form,
                "digest": asking.collection.digest,
                "questions": len(asking.questions),
                "asked": fingerprint([(one.id, str(asking.prompt(one)), one.images) for one in asking.questions]),
                "notes": list(asking.collection.notes),
                **({"boxes": boxes.pop()} if boxes else {}),
                **({answers.PLACE: str(place.resolve())} if (place := asking.collection.benchmark.place) else {}),
                **({"shortcuts": asking.collection.shortcuts} if asking.collection.shortcuts else {}),
            }
        told = {} if self.opened.adapter is None else {"adapter": self.opened.adapter}
        identity = {
            "answerer": {**self.opened.answerer.identity, **told},
            "prompts": self.prompts,
            "condition": asdict(self.condition),
            "limit": self.limit,
            "versions": answers.versions(),
            **({"plugins": dict(brought)} if (brought := plugins.digests()) else {}),
            "benchmarks": benchmarks,
        }
        answers.claim(out, identity, all((out / name / answers.ANSWERS).is_file() for name in benchmarks))


def prepare(
    benchmarks: Sequence[Benchmark],
    data: Path,
    open_model: Callable[[], Opened],
    prompts: str = "auto",
    condition: Condition = AS_PUBLISHED,
    limit: int | None = None,
) -> Evaluation:
    """Read benchmarks and open what is asked, for `blindspot evaluate` and for any study's evaluation.

    Args:
        data: the folder of all benchmarks, which is read before the model is opened: that takes its time.
        open_model: opens what is asked; questions for boxes are put in its own form.
        prompts: a prompt profile's name; ``auto``: that of the model's family.
        condition: how the run departs from the benchmarks.
        limit: only so many questions of each benchmark; None: all.
    """
    draw = Draw(condition.size or USUAL.size, condition.cue or USUAL.cue, condition.seed, limit)
    if (condition.size or condition.cue) and not any(benchmark.draw for benchmark in benchmarks):
        raise UserError(f"--size and --cue say how {', '.join(SETS['drawn'])} are drawn; add one to --benchmarks")
    places = {benchmark.name: locate(benchmark, data) for benchmark in benchmarks}
    found = {name: place for name, place in places.items() if place is not None}
    if missing := [name for name in places if name not in found]:
        raise UserError(
            f"{', '.join(missing)} not found in {data / missing[0]}, {data} or the caches of Hugging Face; get it with "
            f"`blindspot data get {missing[0]}`, say where it is with --data, or choose other --benchmarks"
        )
    for name, place in found.items():
        if (place / UNFINISHED).exists():
            raise UserError(f"{place} is not whole; go on with `blindspot data get {name}`")
    collections = [benchmark.read(found[benchmark.name], draw) for benchmark in benchmarks]
    opened = open_model()
    name = opened.prompts if prompts == "auto" else prompts
    collections = [with_form(collection, opened.form) for collection in collections]
    ask = asking_for_boxes(profile(name))
    return Evaluation(opened, collections, name, ask, condition, limit, list(found.values()))


def _ask(asking: Asking, folder: Path, answerer: Answerer, ranks: Ranks, report: Report) -> dict[str, str]:
    """Ask what is left of a benchmark; returns why questions have no answer, of all processes."""
    ranks.first_does(lambda: answers.mend(folder))
    held = answers.read_parts(folder)
    mine = share(asking.questions, ranks.rank, ranks.world)
    names = [name for question in mine for name in asking.names(question)]
    answered, tokens = sum(name in held for name in names), 0
    report(asking.name, answered, len(names), tokens)
    errors: dict[str, str] = {}
    with answers.part(folder, ranks.rank) as write:
        for portion in asking.portions(mine, held, lambda question, why: errors.update({question.id: why})):
            for reply in _replies(answerer, portion):
                if reply.error is not None:
                    errors[reply.id] = reply.error
                    continue
                write(reply)
                answered, tokens = answered + 1, tokens + sum(reply.tokens or ())
                report(asking.name, answered, len(names), tokens)
    everybodys = {name: why for theirs in ranks.gather(errors) for name, why in theirs.items()}
    order = (name for question in asking.questions for name in asking.names(question))
    errors = {name: everybodys[name] for name in order if name in everybodys}
    ranks.first_does(lambda: answers.finish(folder, asking, errors))
    return errors


def _replies(answerer: Answerer, portion: Sequence[Asked]) -> Iterator[Reply]:
    """One reply for each question, whatever the answerer does; none with likelihoods that no file could hold."""
    waiting = dict.fromkeys(asked.id for asked in portion)
    for reply in answerer.answer(portion):
        if reply.id not in waiting:
            raise RuntimeError(f"the answerer answered {reply.id!r} twice, or without being asked")
        del waiting[reply.id]
        for label, value in (reply.likelihood or {}).items():
            if not (isinstance(value, int | float) and abs(value) < float("inf")):
                reply = Reply(reply.id, "", error=f"the likelihood of {label!r} is {value}")
                break
        yield reply
    yield from (Reply(name, "", error="the answerer gave no reply") for name in waiting)


def why_unanswered(folder: Path, unanswered: Mapping[str, Mapping[str, str]]) -> str:
    """One line about the questions that have no answer: how many, why, and what to do."""

    def first(texts: Sequence[str], separator: str, more: str) -> str:
        left = len(texts) - 3
        return separator.join(texts[:3]) + (more.format(left) if left > 0 else "")

    parts = []
    for benchmark, errors in unanswered.items():
        reasons: dict[str, list[str]] = {}
        for question, why in errors.items():
            reasons.setdefault(why, []).append(question)
        named = [f"{first(questions, ', ', ' and {:,} more')}: {why}" for why, questions in reasons.items()]
        parts.append(f"{benchmark}: {first(named, '; ', '; {} other reasons')}")
    count = sum(map(len, unanswered.values()))
    have = "question has" if count == 1 else "questions have"
    lists = ", ".join(str(folder / benchmark / answers.ERRORS) for benchmark in unanswered)
    return (
        f"{count:,} {have} no answer ({'. '.join(parts)}). All others are kept; the same command asks these again. "
        f"They are listed in {lists}"
    )
