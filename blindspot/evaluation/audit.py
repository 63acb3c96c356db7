"""A benchmark audited blind: what words alone score on each of its parts, beyond what guessing would."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from blindspot.benchmarks.base import Collection, Metric
from blindspot.errors import UserError
from blindspot.evaluation.items import Questions
from blindspot.evaluation.shortcuts import MODEL, RULES, Shortcuts, offers, template
from blindspot.evaluation.statistics import correct, difference, resampled_counts
from blindspot.files import fingerprint, locked, parse_json, read_jsonl, write_json
from blindspot.question import Question
from blindspot.text import clean_json, rounded

FOLDS, REFITS, PERMUTED, SELECTIONS = 5, 60, 20, 400
"""Folds; resamples on which the rules are learned anew; permutations of the right answers; resamples on which the best
rule is chosen."""
FEWEST_QUESTIONS, FEWEST_GROUPS = 20, 10
"""Of a part that is audited."""
TOGETHER = ("pictures", "templates")
RESULTS, MEASURED = "results.json", "measured.jsonl"
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Part:
    """A metric of the benchmark, and which groups it is about, in the order of its samples' clusters."""

    metric: Metric
    groups: np.ndarray
    questions: int


@dataclass(frozen=True)
class Audit:
    """What is audited: the rules, the questions that they answer, and the parts that are reported."""

    rules: Shortcuts
    questions: Questions
    parts: tuple[Part, ...]

    @classmethod
    def of(
        cls,
        questions: Sequence[Question],
        metrics: Sequence[Metric],
        together: str,
        forest: bool,
        said: Mapping[str, str] | None = None,
    ) -> "Audit":
        """From the questions of a benchmark.

        Args:
            questions: those of kinds that are not answered by an answer (boxes, points) are left out.
            metrics: of the benchmark.
            together: what no two folds share, one of `TOGETHER`.
            forest: whether there is a random forest among the rules, for which scikit-learn must be there.
            said: as of `Shortcuts`.
        """
        rules = Shortcuts(questions, forest, said)
        if not rules.questions:
            kinds = ", ".join(sorted({one.kind for one in questions})) or "nothing"
            raise UserError(f"the questions ask for {kinds}: there is no answer to guess from words")
        kept = Questions.of([{**one.groups, **_group(one, together)} for one in rules.questions])
        parts = []
        for metric in metrics:
            asked_q = kept.asked(metric.terms)
            groups = np.unique(kept.cluster_q[asked_q])
            whole = metric.chance is not None or all(term.unit == "question" for term in metric.terms)
            if whole and all(term.value != "partial" for term in metric.terms) and len(groups) >= FEWEST_GROUPS:
                parts += [Part(metric, groups, int(asked_q.sum()))] if asked_q.sum() >= FEWEST_QUESTIONS else []
        if not parts:
            raise UserError(
                f"no part has {FEWEST_QUESTIONS} questions in {FEWEST_GROUPS} groups, the fewest to learn on"
            )
        return cls(rules, kept, tuple(parts))

    @cached_property
    def groups(self) -> int:
        """How many there are."""
        return int(self.questions.cluster_q.max()) + 1

    @cached_property
    def fold(self) -> np.ndarray:
        """The fold of each question: groups are dealt at random, and stay whole."""
        present = np.unique(self.questions.cluster_q)
        fold_g = np.zeros(self.groups, dtype=np.int64)
        fold_g[np.random.default_rng(0).permutation(present)] = np.arange(len(present)) % FOLDS
        return fold_g[self.questions.cluster_q]

    def scores(self, gold: np.ndarray, count_g: np.ndarray, seed: int = 0) -> np.ndarray:
        """What chance and each rule score at each question that it did not learn from: ``(1 + rules, questions)``."""
        weight = count_g[self.questions.cluster_q].astype(float)
        return self.rules.scores(gold, weight, self.fold, seed)

    def values(self, scores: np.ndarray, count_rg: np.ndarray) -> np.ndarray:
        """The metrics as shares of the most, ``(r, 1 + rules, parts)``, where groups count as often as told."""
        found = np.empty((len(count_rg), len(scores), len(self.parts)))
        for place, part in enumerate(self.parts):
            for rule, score in enumerate(scores):
                if rule == 0 and part.metric.chance is not None:
                    found[:, 0, place] = part.metric.chance / part.metric.most
                    continue
                sample = self.questions.sample(part.metric.terms, score, np.full(len(score), np.nan))
                count_rc = count_rg[:, part.groups]
                with np.errstate(divide="ignore", invalid="ignore"):
                    means = (count_rc @ sample.sums_ct) / (count_rc @ sample.counts_ct)
                found[:, rule, place] = means @ sample.weights_t / sample.most
        return found


def _group(question: Question, together: str) -> dict[str, str]:
    if together == "templates":
        return {"cluster": template(question.prompt)}
    own = "-".join(map(str, question.images)) or question.id
    return {"cluster": str(question.groups.get("cluster", own))}


@dataclass(frozen=True)
class Said:
    """What a language model finds likeliest of the answers that a benchmark's questions allow, without a picture.

    Attributes:
        answers: by question; those that allow too many answers to list are left out.
        model: which it was, and how it was asked.
    """

    answers: Mapping[str, str]
    model: Mapping[str, Any]


def ask_blind(collection: Collection, model: str, out: Path, report: Report = lambda what, done, total: None) -> Said:
    """Ask a model on this machine, of text alone or of pictures too, for likelihoods, and keep them as a run does.

    Args:
        collection: the benchmark.
        model: a folder or a Hugging Face id.
        out: the run folder, which is one of ``blindspot evaluate --blind none --likelihood``.
        report: told of questions.
    """
    from blindspot.evaluation.prompts import profile
    from blindspot.evaluation.run.folder import ANSWERS
    from blindspot.evaluation.run.opening import open_local
    from blindspot.evaluation.run.questions import Condition, allowed_answers
    from blindspot.evaluation.run.runner import Evaluation, why_unanswered

    few = tuple(one for one in Shortcuts(collection.questions, False).questions if allowed_answers(one))
    if not few:
        raise UserError("its questions allow too many answers to ask how likely each is; leave out --model")
    opened = open_local(model, text=True)
    asking = replace(collection, questions=few)
    run = Evaluation(opened, [asking], opened.prompts, profile(opened.prompts), Condition("none", likelihood=True))
    if unanswered := run.run(out, lambda name, done, total, tokens: report("asking the model", done, total)):
        raise UserError(why_unanswered(out, unanswered))
    rows = read_jsonl(out / collection.benchmark.name / ANSWERS)
    identity = {key: opened.answerer.identity[key] for key in ("model", "weights_sha256")}
    return Said({row["id"]: row["raw"] for row in rows}, {**identity, "prompts": opened.prompts})


def audit(
    name: str,
    questions: Sequence[Question],
    metrics: Sequence[Metric],
    out: Path,
    together: str = TOGETHER[0],
    report: Report = lambda what, done, total: None,
    said: Said | None = None,
) -> dict[str, Any]:
    """Learn every rule on four fifths of a benchmark and score it on the last, for all fifths; write ``results.json``.

    The error of a score is its spread over resamples of groups in each of which the rules are learned anew. Where the
    best of several rules is named, its excess over chance is what the rule that is best in a resample has outside of it
    (Tsamardinos, Greasidou and Borboudakis 2018), and its error the spread of the best over the resamples. What a
    language model ``said`` is one more rule, which learns nothing. Killed, the same call goes on.

    Returns:
        ``benchmark``, ``questions``, ``left_out`` (by kind), ``groups``, ``together``, ``rules``, ``model`` (of
        `Said`), ``method``, ``notes``, and ``parts``: of each ``part``, ``n``, ``groups``, ``chance``, ``rules``
        (``value``, ``excess`` with ``low`` and ``high``, ``permuted``: the excess that permuted answers leave, with
        ``permuted_error``), ``best``.
    """
    forest = find_spec("sklearn") is not None
    subject = Audit.of(questions, metrics, together, forest, said.answers if said else None)
    asked = [[one.id, one.kind, one.prompt, one.answer, *offers(one)] for one in subject.rules.questions]
    parts = [[part.metric.name, part.questions] for part in subject.parts]
    identity = [asked, parts, subject.questions.cluster_q.tolist(), together, subject.rules.names]
    identity = fingerprint([*identity, *([dict(said.answers)] if said else [])])
    kinds = Counter(one.kind for one in questions)
    with locked(out):
        report("learning", 0, REFITS + PERMUTED + 1)
        scores = subject.scores(subject.rules.gold, np.ones(subject.groups))
        measured = _measured(subject, out / MEASURED, identity, report)
        found = {
            "version": 1,
            "benchmark": name,
            "questions": len(subject.rules.questions),
            "left_out": dict(kinds - Counter(one.kind for one in subject.rules.questions)),
            "groups": len(np.unique(subject.questions.cluster_q)),
            "together": together,
            "rules": {rule: RULES[rule] for rule in subject.rules.names}
            | ({MODEL: f"{RULES[MODEL]}: {said.model['model']}"} if said else {}),
            "model": dict(said.model) if said else None,
            "method": {"folds": FOLDS, "refits": REFITS, "permutations": PERMUTED, "selections": SELECTIONS},
            **_parts(subject, scores, measured),
        }
        if not forest:
            found["notes"].append("no random forest: pip install 'spatial-blindspot[audit]'")
        if said and (left := len(subject.rules.questions) - len(said.answers)):
            found["notes"].append(f"{left} questions allow too many answers for a model; it counts as chance there")
        found = clean_json(rounded(found))
        write_json(out / RESULTS, found)
    return found


def _measured(subject: Audit, path: Path, identity: str, report: Report) -> dict[str, np.ndarray]:
    """`Audit.values` of resamples and of permuted answers, those that an earlier call left first."""
    ones = np.ones((1, subject.groups))
    present = np.bincount(subject.questions.cluster_q, minlength=subject.groups) > 0
    draws = np.zeros((REFITS, subject.groups), dtype=np.int64)
    draws[:, present] = np.concatenate([*resampled_counts(np.ones(int(present.sum()), dtype=np.int64), REFITS)])

    def work(what: str, number: int) -> np.ndarray:
        if what == "refits":
            return subject.values(subject.scores(subject.rules.gold, draws[number], number + 1), draws[number][None])[0]
        gold = subject.rules.permuted(np.random.default_rng([1, number]))
        return subject.values(subject.scores(gold, ones[0], number + 1), ones)[0]

    kept = _kept(path, identity)
    todo = [("refits", number) for number in range(REFITS)] + [("permuted", number) for number in range(PERMUTED)]
    found: dict[str, list[np.ndarray]] = {"refits": [], "permuted": []}
    with path.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(line) + "\n" for line in (identity, *kept))
        for place, (what, number) in enumerate(todo):
            values = np.array(kept[place], dtype=float) if place < len(kept) else work(what, number)
            if place >= len(kept):
                lines.write(json.dumps([[None if np.isnan(v) else v for v in row] for row in values.tolist()]) + "\n")
                lines.flush()
            found[what].append(values)
            report("learning", place + 2, len(todo) + 1)
    return {what: np.array(values) for what, values in found.items()}


def _kept(path: Path, identity: str) -> list[Any]:
    """What an earlier call with the same questions left, up to the first line that is torn."""
    lines: list[Any] = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            lines.append(parse_json(line))
    except (OSError, ValueError):
        pass
    return lines[1:] if lines[:1] == [identity] else []


def _parts(subject: Audit, scores: np.ndarray, measured: dict[str, np.ndarray]) -> dict[str, Any]:
    """``parts`` and ``notes`` of the results."""
    plain = subject.values(scores, np.ones((1, subject.groups)))[0]
    excess, (refitted, lucky) = plain[1:] - plain[0], (each[:, 1:] - each[:, :1] for each in measured.values())
    errors, best_errors = (np.nanstd(each, axis=0, ddof=1) for each in (refitted, np.nanmax(refitted, axis=1)))
    lucky_errors = np.nanstd(lucky, axis=0, ddof=1) / np.sqrt(PERMUTED)
    permuted, (chosen, chosen_errors) = np.nanmean(lucky, axis=0), _selected(subject, scores)
    best_errors = np.hypot(best_errors, chosen_errors)
    rows: list[dict[str, Any]] = []
    for place, part in enumerate(subject.parts):
        clusters = min(REFITS, len(part.groups))

        def tested(value: float, error: float, clusters: int = clusters) -> dict[str, Any]:
            # without any spread, that of one group more that is right and one that is wrong, as of other differences
            error = 2**0.5 / (clusters + 2) if error < 1e-9 else error
            found = difference(value, error, clusters, None)
            return {"excess": value, "low": found.low, "high": found.high, "error": error, "p": found.p}

        rules = [
            {"rule": name, "value": plain[1 + rule, place], **tested(excess[rule, place], errors[rule, place])}
            | {"permuted": permuted[rule, place], "permuted_error": lucky_errors[rule, place]}
            for rule, name in enumerate(subject.rules.names)
        ]
        best = max(rules, key=lambda row: row["excess"])
        row = {"part": part.metric.name, "n": part.questions, "groups": len(part.groups), "chance": plain[0, place]}
        is_open = part.metric.chance is None and (subject.questions.asked(part.metric.terms) & subject.rules.open).any()
        row |= {"chance_is": "constant" if is_open else "guess"}
        row |= {"rules": rules, "best": {"rule": best["rule"], "apparent": best["excess"]}}
        row["best"] |= tested(float(chosen[place]), float(best_errors[place]))
        rows.append(row)
    correct([row["best"] for row in rows], lambda row: "all")
    for row in rows:
        row["best"]["above"] = row["best"]["significant"] and row["best"]["excess"] > 0
    return {"parts": rows, "notes": _notes(rows)}


def _selected(subject: Audit, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By part, what the rule that is best on a resample of the groups has above chance on those that are not in it.

    With the error that comes from how many resamples there are.
    """
    present = np.unique(subject.questions.cluster_q)
    count_sg = np.zeros((SELECTIONS, subject.groups))
    count_sg[:, present] = np.concatenate([*resampled_counts(np.ones(len(present), dtype=np.int64), SELECTIONS)])
    inside, outside = subject.values(scores, count_sg), subject.values(scores, count_sg == 0)
    best_sp = (inside[:, 1:] - inside[:, :1]).argmax(axis=1)
    excess = np.take_along_axis(outside[:, 1:] - outside[:, :1], best_sp[:, None], axis=1)[:, 0]
    return np.nanmean(excess, axis=0), np.nanstd(excess, axis=0, ddof=1) / np.sqrt(SELECTIONS)


def _notes(rows: Sequence[dict[str, Any]]) -> list[str]:
    each = [(f"{row['part']} ({one['rule']})", one) for row in rows for one in row["rules"]]
    lucky = [name for name, one in each if one["permuted"] > max(4 * one["permuted_error"], 0.01)]
    turned = [name for name, one in each if (one["high"] or 0) < 0]
    notes = []
    turned = [*turned[:6], f"{len(turned) - 6} more"] if len(turned) > 7 else turned
    if lucky:
        notes.append(f"permuted answers give more than chance on {', '.join(lucky)}: do not trust these")
    if turned:
        notes.append(
            f"below chance: {', '.join(turned)}. Answers to the same words are balanced there, so that those which are "
            "learned from lean away from those left: no shortcut to whoever has not seen answers of this very test"
        )
    if any(row["chance_is"] == "constant" for row in rows):
        notes.append("where answers are open, chance is what the answer scores that is best for a whole task")
    return notes
