"""Rows of answers.jsonl as arrays: what every number is computed from. Suffix ``q``: questions."""

from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from blindspot.benchmarks.base import Benchmark, Metric, Term
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import read_row
from blindspot.benchmarks.rules.common import Item
from blindspot.benchmarks.scoring import Profile, has_thought, is_cut_off
from blindspot.errors import UserError
from blindspot.evaluation.scores.labels import Labels, LabelsBuilder
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
        reply: the letter, ``Yes`` or ``No`` that was read, `UNPARSED`, or `OTHER`; `labels.ABSENT` for open questions.
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


@dataclass(frozen=True)
class Answers:
    """The answers of one run to one benchmark, with their scores under some profiles.

    Attributes:
        benchmark: which.
        row_of: row of each question by its id.
        gold: the gold answers.
        kind: of the questions.
        options_q: how many answers a question offers; 0 for open ones.
        cut_q: whether the answer was cut off at its longest.
        thought_q: whether there is a thought in the answer.
        unended_q: whether it opens a thought and never closes it.
        prompt_q: a number that differs, within this process, where the prompt differs.
        images_q: how many pictures were shown.
        groups: labels to report by; a group that a question lacks is `labels.ABSENT`.
        scorings: by the profile's name.
        unscored: why there is none, by the name of each profile that cannot score every row.
    """

    benchmark: Benchmark
    row_of: dict[str, int]
    gold: Labels
    kind: Labels
    options_q: np.ndarray
    cut_q: np.ndarray
    thought_q: np.ndarray
    unended_q: np.ndarray
    prompt_q: np.ndarray
    images_q: np.ndarray
    groups: dict[str, Labels]
    scorings: dict[str, Scoring]
    unscored: dict[str, str]

    def __len__(self) -> int:
        return len(self.row_of)

    def take(self, rows: np.ndarray) -> "Answers":
        """Some of the questions in a given order."""
        ids = list(self.row_of)
        return replace(
            self,
            row_of={ids[row]: place for place, row in enumerate(rows.tolist())},
            gold=self.gold.take(rows),
            kind=self.kind.take(rows),
            options_q=self.options_q[rows],
            cut_q=self.cut_q[rows],
            thought_q=self.thought_q[rows],
            unended_q=self.unended_q[rows],
            prompt_q=self.prompt_q[rows],
            images_q=self.images_q[rows],
            groups={name: labels.take(rows) for name, labels in self.groups.items()},
            scorings={name: scoring.take(rows) for name, scoring in self.scorings.items()},
        )


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


class _Scored:
    """A `Scoring` that grows."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._score, self._partial, self._guess = array("d"), array("d"), array("d")
        self._parsed = array("b")
        self._reply = LabelsBuilder()

    def judge(self, item: Item) -> _Verdict:
        scored = self.profile.judge(item)
        allowed = _YES_NO if item.kind == "yes_no" else item.choices if item.kind == "mcq" else None
        reply = None
        if allowed is not None:
            reply = UNPARSED if not scored.parsed else str(scored.extracted) if scored.extracted in allowed else OTHER
        partial = _NAN if scored.partial is None else scored.partial
        return _Verdict(scored.score, partial, scored.guess, scored.parsed, reply)

    def add(self, verdict: _Verdict) -> None:
        self._score.append(verdict.score)
        self._partial.append(verdict.partial)
        self._guess.append(verdict.guess)
        self._parsed.append(verdict.parsed)
        self._reply.add(verdict.reply)

    def finish(self) -> Scoring:
        return Scoring(
            np.array(self._score),
            np.array(self._partial),
            np.array(self._guess),
            np.array(self._parsed, dtype=bool),
            self._reply.finish(),
        )


class _Sheet:
    """An `Answers` that grows row by row."""

    def __init__(self, benchmark: Benchmark, profiles: Sequence[Profile]) -> None:
        self._benchmark = benchmark
        self._row_of: dict[str, int] = {}
        self._gold, self._kind = LabelsBuilder(), LabelsBuilder()
        self._options, self._cut, self._images, self._prompt = array("b"), array("b"), array("l"), array("q")
        self._thought, self._unended = array("b"), array("b")
        self._groups: dict[str, LabelsBuilder] = {}
        self._scored = [_Scored(profile) for profile in profiles]
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
        place = self._row_of[own] = len(self._row_of)
        verdicts = self._judged(item)
        for scored, verdict in zip(self._scored, verdicts, strict=True):
            scored.add(verdict)
        self._gold.add(item.gold)
        self._kind.add(item.kind)
        self._options.append(len(item.choices) if item.kind == "mcq" else 2 if item.kind == "yes_no" else 0)
        self._cut.append(row.get("stopped") == "length")
        self._thought.append(has_thought(item.raw))
        self._unended.append(is_cut_off(item.raw))
        self._prompt.append(hash(str(row.get("prompt"))))
        self._images.append(len(images))
        for name, label in groups.items():
            builder = self._groups.get(name)
            if builder is None:
                builder = self._groups[name] = LabelsBuilder()
            builder.add_at(place, label if isinstance(label, str) else str(label))

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
        unable = {scored.profile.name: problem for scored in self._scored if (problem := scored.profile.why_not(item))}
        if unable:
            self._unscored |= {name: f"{item.where}: {problem}" for name, problem in unable.items()}
            self._scored = [scored for scored in self._scored if scored.profile.name not in unable]
            self._known.clear()
        return [scored.judge(item) for scored in self._scored]

    def finish(self) -> Answers:
        rows = len(self._row_of)
        return Answers(
            self._benchmark,
            self._row_of,
            self._gold.finish(),
            self._kind.finish(),
            np.array(self._options),
            np.array(self._cut, dtype=bool),
            np.array(self._thought, dtype=bool),
            np.array(self._unended, dtype=bool),
            np.array(self._prompt, dtype=np.int64),
            np.array(self._images, dtype=np.int64),
            {name: builder.finish(rows) for name, builder in self._groups.items()},
            {scored.profile.name: scored.finish() for scored in self._scored},
            self._unscored,
        )
