"""Rows of answers.jsonl as arrays: what every number is computed from. Suffix ``q``: questions."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blindspot.benchmarks.base import Benchmark, Metric, Term
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import read_row
from blindspot.benchmarks.rules import Item
from blindspot.benchmarks.scoring import Profile, has_thought, is_cut_off
from blindspot.errors import UserError
from blindspot.evaluation.items import Labels, Questions
from blindspot.evaluation.statistics import Sample
from blindspot.files import read_jsonl

UNPARSED, OTHER = "unparsed", "other"
MEAN = Metric("mean", (Term(),), None)
"""Over rows: where a benchmark is not known here, or its own metric does not stand."""
_YES_NO = ("Yes", "No")
_NAN = float("nan")
_SHORT, _MOST_KNOWN = 80, 2**16
"""Answers up to so many characters are remembered with their scores, so many at most: most are yes, no or a letter."""


@dataclass(frozen=True)
class Scoring:
    """What one profile made of the answers.

    Attributes:
        score_q: between 0 and 1.
        partial_q: partial match; NaN where the benchmark has none.
        guess_q: what the harness would add on average by drawing an option where it read none; not in ``score_q``.
        parsed_q: whether a reply could be read.
        reply: the letter, ``Yes`` or ``No`` that was read, `UNPARSED`, or `OTHER`; none for open questions.
    """

    score_q: np.ndarray
    partial_q: np.ndarray
    guess_q: np.ndarray
    parsed_q: np.ndarray
    reply: Labels

    def take(self, rows: np.ndarray) -> "Scoring":
        """The same of some questions."""
        return Scoring(
            self.score_q[rows], self.partial_q[rows], self.guess_q[rows], self.parsed_q[rows], self.reply.take(rows)
        )


FACTS = np.dtype(
    [("options", "i2"), ("cut", "?"), ("thought", "?"), ("unended", "?"), ("prompt", "i8"), ("images", "i4")]
)


@dataclass(frozen=True)
class Answers:
    """The answers of one run to one benchmark, with their scores under some profiles.

    Attributes:
        benchmark: which.
        row_of: row of each question by its id.
        questions: what they have in common.
        gold: the gold answers.
        kind: of the questions.
        facts_q: of each question and its answer: ``options`` (how many answers it offers; 0 for open ones), ``cut``
            (whether the answer was cut off at its longest), ``thought`` (whether there is one in the answer),
            ``unended`` (whether it opens one and never closes it), ``prompt`` (a number that differs, within this
            process, where the prompt differs), ``images`` (how many pictures were shown).
        scorings: by the profile's name.
        unscored: why there is none, by the name of each profile that cannot score every row.
    """

    benchmark: Benchmark
    row_of: dict[str, int]
    questions: Questions
    gold: Labels
    kind: Labels
    facts_q: np.ndarray
    scorings: dict[str, Scoring]
    unscored: dict[str, str]

    def __len__(self) -> int:
        return len(self.row_of)

    def take(self, ids: Sequence[str]) -> "Answers":
        """Some of the questions in a given order."""
        rows = np.array([self.row_of[own] for own in ids])
        return replace(
            self,
            row_of={own: place for place, own in enumerate(ids)},
            questions=self.questions.take(rows),
            gold=self.gold.take(rows),
            kind=self.kind.take(rows),
            facts_q=self.facts_q[rows],
            scorings={name: scoring.take(rows) for name, scoring in self.scorings.items()},
        )

    def sample(self, profile: str, metric: Metric) -> Sample:
        """The scored items of a metric under a profile."""
        scoring = self.scorings[profile]
        return self.questions.sample(metric.terms, scoring.score_q, scoring.partial_q)

    def metrics(self) -> tuple[Metric, ...]:
        """The benchmark's metrics that its rows make up, the score first; `MEAN` where that is not ``overall``.

        A metric does not stand where one of its sets is not whole, and ``overall`` not where it passes over a row.
        """
        kept = tuple(metric for metric in self.benchmark.metrics if self._stands(metric))
        return kept if kept and kept[0] is self.benchmark.metrics[0] else (MEAN, *kept)

    def _stands(self, metric: Metric) -> bool:
        if metric is self.benchmark.metrics[0] and not self.questions.asked(metric.terms).all():
            return False
        size, sets = self.benchmark.set_size, [term for term in metric.terms if term.unit == "set"]
        counts = (np.bincount(self.questions.set_rows(self.questions.asked([term]))) for term in sets)
        return size is None or all((count == size).all() for count in counts)


def read_answers(paths: Sequence[Path], profiles: Sequence[Profile]) -> dict[str, Answers]:
    """Read and score files of answers, by benchmark, in the order of their first rows.

    Raises:
        UserError: if a file cannot be read or a row is not an answer; it names the line.
    """
    rows = ((f"{path}:{number}", row) for path in paths for number, row in enumerate(read_jsonl(path), start=1))
    return collect(rows, profiles)


def collect(rows: Iterable[tuple[str, Any]], profiles: Sequence[Profile]) -> dict[str, Answers]:
    """Score rows of answers as in answers.jsonl, each given with its place for messages.

    Raises:
        UserError: as `read_answers`.
    """
    sheets: dict[str, _Sheet] = {}
    for place, row in rows:
        item = read_row(row, place)
        sheet = sheets.get(item.benchmark)
        if sheet is None:
            known = BENCHMARKS.get(item.benchmark) or Benchmark(item.benchmark, item.benchmark, "", "", (), (MEAN,))
            sheet = sheets[item.benchmark] = _Sheet(known, profiles)
        sheet.add(item, row)
    return {name: sheet.finish() for name, sheet in sheets.items()}


class _Verdict(NamedTuple):
    """What one profile says of one answer."""

    score: float
    partial: float
    guess: float
    parsed: bool
    reply: str | None


class _Sheet:
    """An `Answers` that grows row by row."""

    def __init__(self, benchmark: Benchmark, profiles: Sequence[Profile]) -> None:
        self._benchmark, self._profiles = benchmark, list(profiles)
        self._row_of: dict[str, int] = {}
        self._gold: list[str] = []
        self._kind: list[str] = []
        self._facts: list[tuple[Any, ...]] = []
        self._groups: list[dict[str, Any]] = []
        self._verdicts: dict[str, list[_Verdict]] = {profile.name: [] for profile in profiles}
        self._unscored: dict[str, str] = {}
        self._known: dict[Hashable, list[_Verdict]] = {}

    def add(self, item: Item, row: Mapping[str, Any]) -> None:
        """Add a row that `read_row` has read as ``item``; of a circular group each pass, all of them one set.

        Raises:
            UserError: if its id came before, or it is malformed.
        """
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
        verdicts = self._judged(item)  # after which some profiles may be gone
        for profile, verdict in zip(self._profiles, verdicts, strict=True):
            self._verdicts[profile.name].append(verdict)
        self._gold.append(item.gold)
        self._kind.append(item.kind)
        self._groups.append(groups)
        options = len(item.choices) if item.kind == "mcq" else 2 if item.kind == "yes_no" else 0
        thoughts = has_thought(item.raw), is_cut_off(item.raw)
        self._facts.append(
            (options, row.get("stopped") == "length", *thoughts, hash(str(row.get("prompt"))), len(images))
        )

    def _judged(self, item: Item) -> list[_Verdict]:
        """What each profile says; short answers that came before are not judged again."""
        if item.likelihood or len(item.raw) > _SHORT:
            return self._judge(item)
        key = (item.raw, item.gold, item.kind, item.golds, item.seen, *item.choices, *item.choices.values())
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[key] = self._judge(item)
        return found

    def _judge(self, item: Item) -> list[_Verdict]:
        unable = {one.name: problem for one in self._profiles if (problem := one.why_not(item))}
        if unable:
            self._unscored |= {name: f"{item.where}: {problem}" for name, problem in unable.items()}
            self._profiles = [one for one in self._profiles if one.name not in unable]
            self._known.clear()
        return [_verdict(one, item) for one in self._profiles]

    def finish(self) -> Answers:
        return Answers(
            self._benchmark,
            self._row_of,
            Questions.of(self._groups),
            Labels.of(self._gold),
            Labels.of(self._kind),
            np.array(self._facts, dtype=FACTS),
            {one.name: _scoring(self._verdicts[one.name]) for one in self._profiles},
            self._unscored,
        )


def _verdict(profile: Profile, item: Item) -> _Verdict:
    scored = profile.judge(item)
    allowed = _YES_NO if item.kind == "yes_no" else item.choices if item.kind == "mcq" else None
    reply = None
    if allowed is not None:
        reply = UNPARSED if not scored.parsed else str(scored.extracted) if scored.extracted in allowed else OTHER
    return _Verdict(
        scored.score, _NAN if scored.partial is None else scored.partial, scored.guess, scored.parsed, reply
    )


def _scoring(verdicts: Sequence[_Verdict]) -> Scoring:
    score, partial, guess, parsed, reply = zip(*verdicts, strict=True)
    return Scoring(np.array(score), np.array(partial), np.array(guess), np.array(parsed, dtype=bool), Labels.of(reply))
