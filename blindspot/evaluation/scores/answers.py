"""Rows of answers.jsonl as arrays: what every number is computed from. Suffix ``q``: questions."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

import numpy as np

from blindspot.benchmarks.base import Benchmark, Metric, Term
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rows import further, read_row
from blindspot.benchmarks.rules import Item
from blindspot.benchmarks.scoring import HARNESS, TAGS, Profile, Scored, has_thought, is_cut_off, profile
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
    [("options", "i2"), ("cut", "f8"), ("thought", "f8"), ("unended", "f8"), ("prompt", "i8"), ("images", "i4")]
)
"""Of a question and its answers: how many answers it offers (0: open); which share of what was said was cut off at its
longest, holds a thought, opens one and never closes it; a number that differs, within this process, where the prompt
differs; how many pictures were shown."""
SCORES = np.dtype(
    [("score", "f8"), ("partial", "f8"), ("guess", "f8"), ("parsed", "f8"), ("best", "f8"), ("majority", "f8"),
     ("reply", "i1")], align=True
)  # fmt: skip
"""Of a question under a profile, means over its answers: score and partial match between 0 and 1 (NaN where there is
none); what the harness would add on average by drawing an option where it read none, which is not in the score; whether
the reply could be read. Then the best score, the score of what most of them say, and the place of that in `REPLIES`."""
_SHORT, _MOST_KNOWN = 80, 2**16
"""Answers up to so many characters are remembered with their scores, so many at most: most are yes, no or a letter."""


@dataclass(frozen=True)
class ScoredAnswers:
    """The answers of one run to one benchmark, with their `FACTS`, and their `SCORES` by the profile's name.

    ``row_of`` has the row of each question by its id, ``drawn_qk`` the score of each of its samples, ``unscored`` why a
    profile cannot score every row.
    """

    benchmark: Benchmark
    row_of: dict[str, int]
    questions: Questions
    gold: Labels
    kind: Labels
    facts_q: np.ndarray
    scores_q: dict[str, np.ndarray]
    drawn_qk: dict[str, np.ndarray]
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
            drawn_qk={name: score_qk[rows] for name, score_qk in self.drawn_qk.items()},
        )

    @property
    def samples(self) -> int:
        """How many answers there are to each question."""
        return next(score_qk.shape[1] for score_qk in self.drawn_qk.values())

    def sample(self, profile: str, metric: Metric, of: Literal["score", "best", "majority"] = "score") -> Sample:
        """The scored items of a metric under a profile.

        Of several answers to a question the mean, the ``best`` (pass@N) or what most of them say (self-consistency).
        Questions are the items in any case.
        """
        scores_q, score_qk = self.scores_q[profile], self.drawn_qk[profile]
        columns = score_qk.T if of == "score" else [scores_q[of]]
        each = [self.questions.sample(metric.terms, score_q, scores_q["partial"]) for score_q in columns]
        return each[0] if len(each) == 1 else Sample.combined(each, [1 / len(each)] * len(each))

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
        self._drawn: dict[str, list[list[float]]] = {one.name: [] for one in profiles}
        self._samples = 0
        self._unscored: dict[str, str] = {}
        self._known: dict[Hashable, dict[str, tuple[Any, ...]]] = {}

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
        said = [(item.raw, str(row.get("stopped"))), *further(row, item.where)]
        self._samples = self._samples or len(said)
        if len(said) != self._samples:
            raise UserError(f"{item.where}: {len(said)} samples, but the rows before it have {self._samples}")
        self._row_of[own] = len(self._row_of)
        strips = any(one.thoughts == "strip" for one in self._profiles)
        raws = [f"{TAGS[0][0]}{raw}" if strips and stopped == "thought" else raw for raw, stopped in said]
        judged = [self._judge(item if raw == item.raw else replace(item, raw=raw)) for raw in raws]
        for one in self._profiles:  # some of which may be gone by now
            each = [scored[one.name] for scored in judged]
            self._scores[one.name].append(_together(each))
            self._drawn[one.name].append([scored[0] for scored in each])
        self._items.append((item.gold, item.kind))
        self._groups.append(groups)
        options = len(item.choices) if item.kind == "mcq" else 2 if item.kind == "yes_no" else 0
        facts = [
            (stopped in ("length", "thought"), has_thought(raw) or stopped == "thought",
             is_cut_off(raw) or stopped == "thought") for raw, stopped in said
        ]  # fmt: skip
        shares = [sum(each) / len(said) for each in zip(*facts, strict=True)]
        self._facts.append((options, *shares, hash(str(row.get("prompt"))), len(images)))

    def _judge(self, item: Item) -> dict[str, tuple[Any, ...]]:
        """Under each profile the score, partial match, guess, whether the reply was read, its place in `REPLIES`, and
        what was read; short answers that came before are not judged again."""
        short = not item.likelihood and len(item.raw) <= _SHORT
        key = (item.raw, item.gold, item.kind, item.golds, item.seen, *item.choices, *item.choices.values())
        if short and key in self._known:
            return self._known[key]
        judged: dict[str, Scored] = {}
        for one in [*self._profiles]:
            found = one.attempt(item)
            if isinstance(found, Scored):
                judged[one.name] = found
                continue
            self._unscored[one.name] = found
            self._profiles.remove(one)
            self._known.clear()
        allowed = ("Yes", "No") if item.kind == "yes_no" else item.choices if item.kind == "mcq" else None
        scores: dict[str, tuple[Any, ...]] = {}
        for name, scored in judged.items():
            reply = UNPARSED if not scored.parsed else str(scored.extracted)
            if allowed is not None and scored.parsed and scored.extracted not in allowed:
                reply = OTHER
            place = ABSENT if allowed is None else REPLIES.index(reply)
            partial = float("nan") if scored.partial is None else scored.partial
            scores[name] = (scored.score, partial, scored.guess, scored.parsed, place, str(scored.extracted))
        if short:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = scores
        return scores

    def finish(self) -> ScoredAnswers:
        gold, kind = zip(*self._items, strict=True)
        benchmark = self._benchmark
        if benchmark.name not in BENCHMARKS:
            labels = sorted({str(groups["group"]) for groups in self._groups if "group" in groups})
            parts = (Metric(f"group/{label}", (Term({"group": label}),), None) for label in labels)
            benchmark = replace(benchmark, metrics=(MEAN, *parts))
        return ScoredAnswers(
            benchmark,
            self._row_of,
            Questions.of(self._groups),
            Labels.of(gold),
            Labels.of(kind),
            np.array(self._facts, dtype=FACTS),
            {one.name: np.array(self._scores[one.name], dtype=SCORES) for one in self._profiles},
            {one.name: np.array(self._drawn[one.name]) for one in self._profiles},
            self._unscored,
        )


def _together(each: Sequence[tuple[Any, ...]]) -> tuple[Any, ...]:
    """`SCORES` of the answers to a question; of what they say equally often, what came first counts, if it was read."""
    score, partial, guess, parsed, _, said = zip(*each, strict=True)
    votes = Counter(text for text, read in zip(said, parsed, strict=True) if read) or Counter(said)
    chosen = each[said.index(votes.most_common(1)[0][0])]
    means = [sum(values) / len(each) for values in (score, partial, guess, parsed)]
    return *means, max(score), chosen[0], chosen[4]


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

    def shortcuts(self, benchmark: str, metric: str) -> Mapping[str, float]:
        """What rules that do not read what is asked for score on a metric; empty where that is not known."""
        return self.of(benchmark).get("shortcuts", {}).get(metric, {})

    @property
    def model(self) -> str:
        """What answered, as ``run.json`` names it; nothing where it does not."""
        answerer = self.info.get("answerer")
        return str(answerer.get("model", "")) if isinstance(answerer, Mapping) else ""

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
    """``extracted`` and ``score`` of each row by profile, in the order of the files; None where it has none for it.

    Of several answers to a question lists of them.
    """
    rules = [profile(name, thinking) for name in profiles]
    for place, row in _rows(_files(path)):
        item = read_row(row, place)
        items = [item, *(replace(item, raw=raw) for raw, _ in further(row, place))]
        found = {one.name: [one.attempt(each) for each in items] for one in rules}

        def told(scored: list[Scored | str], key: str) -> Any:
            values = [getattr(one, key, None) for one in scored]
            return values if len(values) > 1 else values[0]

        yield {name: {key: told(each, key) for key in ("extracted", "score")} for name, each in found.items()}


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*/answers.jsonl")) if path.is_dir() else [path]


def _rows(files: Sequence[Path]) -> Iterator[tuple[str, Any]]:
    for file in files:
        for number, row in enumerate(read_jsonl(file), start=1):
            yield f"{file}:{number}", row
