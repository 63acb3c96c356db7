"""Rows of answers.jsonl as arrays: what every number is computed from. Suffix ``q``: questions."""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any

import numpy as np

from blindspot.benchmarks.base import Benchmark, Metric, Term
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import read_row
from blindspot.benchmarks.rules import Item
from blindspot.benchmarks.scoring import HARNESS, Profile, has_thought, is_cut_off, profile
from blindspot.errors import UserError
from blindspot.evaluation.items import ABSENT, Labels, Questions
from blindspot.evaluation.run.folder import read_run
from blindspot.evaluation.statistics import Sample
from blindspot.files import read_jsonl

UNPARSED, OTHER = "unparsed", "other"
REPLIES = (*ascii_uppercase, "No", "Yes", OTHER, UNPARSED)
"""What can be read from a reply to a question that is not open."""
MEAN = Metric("mean", (Term(),), None)
"""Over rows: where a benchmark is not known here, or its own metric does not stand."""
FACTS = np.dtype(
    [("options", "i2"), ("cut", "?"), ("thought", "?"), ("unended", "?"), ("prompt", "i8"), ("images", "i4")]
)
"""Of a question and its answer: how many answers it offers (0: open), whether the answer was cut off at its longest,
holds a thought, opens one and never closes it; a number that differs, within this process, where the prompt differs;
how many pictures were shown."""
SCORES = np.dtype([("score", "f8"), ("partial", "f8"), ("guess", "f8"), ("parsed", "?"), ("reply", "i1")], align=True)
"""Of an answer under a profile: its score and partial match between 0 and 1 (NaN where there is none); what the harness
would add on average by drawing an option where it read none, which is not in the score; whether the reply could be
read, and its place in `REPLIES`."""
_SHORT, _MOST_KNOWN = 80, 2**16
"""Answers up to so many characters are remembered with their scores, so many at most: most are yes, no or a letter."""


@dataclass(frozen=True)
class ScoredAnswers:
    """The answers of one run to one benchmark, with their `FACTS`, and their `SCORES` by the profile's name.

    ``row_of`` has the row of each question by its id, ``unscored`` why a profile cannot score every row.
    """

    benchmark: Benchmark
    row_of: dict[str, int]
    questions: Questions
    gold: Labels
    kind: Labels
    facts_q: np.ndarray
    scores_q: dict[str, np.ndarray]
    unscored: dict[str, str]

    def __len__(self) -> int:
        return len(self.row_of)

    def take(self, ids: Sequence[str]) -> "ScoredAnswers":
        """Some of the questions in a given order."""
        rows = np.array([self.row_of[own] for own in ids])
        return replace(
            self,
            row_of={own: place for place, own in enumerate(ids)},
            questions=self.questions.take(rows),
            gold=self.gold.take(rows),
            kind=self.kind.take(rows),
            facts_q=self.facts_q[rows],
            scores_q={name: scores_q[rows] for name, scores_q in self.scores_q.items()},
        )

    def sample(self, profile: str, metric: Metric) -> Sample:
        """The scored items of a metric under a profile."""
        scores_q = self.scores_q[profile]
        return self.questions.sample(metric.terms, scores_q["score"], scores_q["partial"])

    def replies(self, profile: str) -> Labels:
        """What a profile read from each reply; nothing of open questions."""
        return Labels(REPLIES, self.scores_q[profile]["reply"])

    def metrics(self) -> tuple[Metric, ...]:
        """The benchmark's metrics that its rows make up, the score first; `MEAN` where that is not ``overall``.

        A metric does not stand where one of its sets is not whole, and ``overall`` not where it passes over a row.
        """
        overall, size = self.benchmark.metrics[0], self.benchmark.set_size

        def stands(metric: Metric) -> bool:
            if metric is overall and not self.questions.asked(metric.terms).all():
                return False
            asked = [self.questions.asked([term]) for term in metric.terms if term.unit == "set"]
            return size is None or all((np.bincount(self.questions.set_rows(each)) == size).all() for each in asked)

        kept = tuple(filter(stands, self.benchmark.metrics))
        return kept if kept and kept[0] is overall else (MEAN, *kept)


def collect(rows: Iterable[tuple[str, Any]], profiles: Sequence[Profile]) -> dict[str, ScoredAnswers]:
    """Score rows of answers.jsonl, each given with its place for messages, by benchmark in the order of first rows."""
    sheets: dict[str, _Sheet] = {}
    for place, row in rows:
        item = read_row(row, place)
        if item.benchmark not in sheets:
            known = BENCHMARKS.get(item.benchmark) or Benchmark(item.benchmark, item.benchmark, "", "", (), (MEAN,))
            sheets[item.benchmark] = _Sheet(known, profiles)
        sheets[item.benchmark].add(item, row)
    return {name: sheet.finish() for name, sheet in sheets.items()}


class _Sheet:
    """A `ScoredAnswers` that grows row by row."""

    def __init__(self, benchmark: Benchmark, profiles: Sequence[Profile]) -> None:
        self._benchmark, self._profiles = benchmark, list(profiles)
        self._row_of: dict[str, int] = {}
        self._items: list[tuple[str, str]] = []
        self._facts: list[tuple[Any, ...]] = []
        self._groups: list[dict[str, Any]] = []
        self._scores: dict[str, list[tuple[Any, ...]]] = {one.name: [] for one in profiles}
        self._unscored: dict[str, str] = {}
        self._known: dict[Hashable, list[tuple[Any, ...]]] = {}

    def add(self, item: Item, row: Mapping[str, Any]) -> None:
        """Add a row that `read_row` has read as ``item``; of a circular group each pass, all of them one set."""
        own, groups, images = row.get("id"), row.get("groups") or {}, row.get("images") or []
        if not isinstance(own, str | int | None):
            raise UserError(f"{item.where}: 'id' must be a text or a number")
        own = item.where if own is None else str(own)
        if own in self._row_of:
            raise UserError(f"{item.where}: question {own[:80]!r} is answered twice; keep one of the rows")
        if not isinstance(groups, dict):
            raise UserError(f"{item.where}: 'groups' must be a JSON object")
        if not isinstance(images, list):
            raise UserError(f"{item.where}: 'images' must be a list")
        for number, each in enumerate(item.passes):
            together = {"cluster": own, **groups, "set": own, "pass": number}
            self.add(each, {**row, "id": f"{own}, pass {number}", "groups": together})
        if item.passes:
            return
        self._row_of[own] = len(self._row_of)
        scores = self._judge(item)  # after which some profiles may be gone
        for one, scored in zip(self._profiles, scores, strict=True):
            self._scores[one.name].append(scored)
        self._items.append((item.gold, item.kind))
        self._groups.append(groups)
        options = len(item.choices) if item.kind == "mcq" else 2 if item.kind == "yes_no" else 0
        thoughts = has_thought(item.raw), is_cut_off(item.raw)
        cut, prompt = row.get("stopped") == "length", hash(str(row.get("prompt")))
        self._facts.append((options, cut, *thoughts, prompt, len(images)))

    def _judge(self, item: Item) -> list[tuple[Any, ...]]:
        """`SCORES` under each profile; short answers that came before are not judged again."""
        short = not item.likelihood and len(item.raw) <= _SHORT
        key = (item.raw, item.gold, item.kind, item.golds, item.seen, *item.choices, *item.choices.values())
        if short and key in self._known:
            return self._known[key]
        for one in [*self._profiles]:
            if problem := one.why_not(item):
                self._unscored[one.name] = f"{item.where}: {problem}"
                self._profiles.remove(one)
                self._known.clear()
        allowed = ("Yes", "No") if item.kind == "yes_no" else item.choices if item.kind == "mcq" else None
        scores: list[tuple[Any, ...]] = []
        for one in self._profiles:
            scored = one.judge(item)
            reply = UNPARSED if not scored.parsed else str(scored.extracted)
            if allowed is not None and scored.parsed and scored.extracted not in allowed:
                reply = OTHER
            place = ABSENT if allowed is None else REPLIES.index(reply)
            partial = float("nan") if scored.partial is None else scored.partial
            scores.append((scored.score, partial, scored.guess, scored.parsed, place))
        if short:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = scores
        return scores

    def finish(self) -> ScoredAnswers:
        gold, kind = zip(*self._items, strict=True)
        return ScoredAnswers(
            self._benchmark,
            self._row_of,
            Questions.of(self._groups),
            Labels.of(gold),
            Labels.of(kind),
            np.array(self._facts, dtype=FACTS),
            {one.name: np.array(self._scores[one.name], dtype=SCORES) for one in self._profiles},
            self._unscored,
        )


@dataclass(frozen=True)
class ScoredRun:
    """A run of `blindspot evaluate`, or a bare file of answers: what was answered, and by whom.

    ``info`` is what ``run.json`` says; ``answers`` come in the registry's order, of benchmarks that it does not know
    last; ``notes`` say what is missing and why.
    """

    path: Path
    info: Mapping[str, Any]
    answers: Mapping[str, ScoredAnswers]
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """A short name: of the folder, or of the file without its ending."""
        return self.path.resolve().name.removesuffix(".jsonl")

    def of(self, benchmark: str) -> Mapping[str, Any]:
        """What ``run.json`` says of a benchmark."""
        return self.info.get("benchmarks", {}).get(benchmark, {})


def load_run(path: Path, profiles: Sequence[str], thinking: str = HARNESS) -> ScoredRun:
    """Read the answers of a run folder, or of one file, and score them.

    A benchmark that the first of the profiles cannot score is left out.
    """
    info: dict[str, Any] = {}
    notes: list[str] = []
    files = _files(path)
    if path.is_dir():
        info = read_run(path, "score its answers.jsonl files one by one") or {}
        unfinished = set(info.get("benchmarks", {})) - {file.parent.name for file in files}
        notes = [f"{name}: not all questions are answered yet; left out" for name in sorted(unfinished)]
        if not files:
            yet = " yet: the evaluation is not finished" if unfinished else ""
            raise UserError(
                f"{path} holds no */answers.jsonl{yet}; give a run folder of blindspot evaluate, or such a file"
            )
    answers = collect(_rows(files), [profile(name, thinking) for name in profiles])
    if not answers:
        raise UserError(f"{path}: no answers in it")
    unscored = {name: held.unscored[profiles[0]] for name, held in answers.items() if profiles[0] in held.unscored}
    if len(unscored) == len(answers):
        raise UserError(next(iter(unscored.values())))
    notes += [f"{name}: left out, as {why}" for name, why in unscored.items()]
    scored = {name: answers[name] for name in (*BENCHMARKS, *answers) if name in answers and name not in unscored}
    return ScoredRun(path, info, scored, tuple(notes))


def scored_rows(path: Path, profiles: Sequence[str], thinking: str = HARNESS) -> Iterator[dict[str, dict[str, Any]]]:
    """``extracted`` and ``score`` of each row by profile, in the order of the files; None where it has none for it."""
    rules = [profile(name, thinking) for name in profiles]
    for place, row in _rows(_files(path)):
        item = read_row(row, place)
        found = {one.name: None if one.why_not(item) else one.judge(item) for one in rules}
        yield {name: {key: getattr(each, key, None) for key in ("extracted", "score")} for name, each in found.items()}


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*/answers.jsonl")) if path.is_dir() else [path]


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for file in files:
        for number, row in enumerate(read_jsonl(file), start=1):
            yield f"{file}:{number}", row
