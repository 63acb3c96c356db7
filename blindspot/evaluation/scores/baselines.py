"""What can be had without looking: guesses and always the same answer; and what the answers look like as a whole."""

from typing import Any

import numpy as np

from blindspot.benchmarks.base import Metric, Term
from blindspot.evaluation.items import ABSENT
from blindspot.evaluation.scores.answers import UNPARSED, Answers, Scoring


def chance_level(answers: Answers, metric: Metric) -> float | None:
    """What guessing gives: the benchmark's own figure, or else one over the number of options of each question.

    None where questions are open or partial matches count.
    """
    if metric.chance is not None:
        return metric.chance
    total, weight = 0.0, 0.0
    for term in metric.terms:
        chosen_q = answers.questions.asked([term])
        options_q = answers.facts_q["options"][chosen_q]
        if term.value == "partial" or not options_q.all():
            return None
        if len(options_q):
            guess = 1 / options_q
            if term.unit == "set":
                guess = np.exp(np.bincount(answers.questions.set_rows(chosen_q), weights=np.log(guess)))
            total += term.weight * float(guess.mean())
            weight += term.weight
    return total * metric.most / weight if weight else None


def constant_answer(answers: Answers, metric: Metric) -> tuple[float, str] | None:
    """The best value that one and the same gold answer to every question reaches, and that answer.

    Answers are compared as they stand. None where the metric has no questions or rewards partial matches.
    """
    best: tuple[float, str] | None = None
    total_a, weight = np.zeros(len(answers.gold.names)), 0.0
    for term in metric.terms:
        if term.value == "partial":
            return None
        share_a = _shares(answers, term)
        if share_a is not None:
            total_a += term.weight * share_a
            weight += term.weight
    if weight:
        total_a *= metric.most / weight
        most = total_a.max()
        best = float(most), min(answers.gold.names[place] for place in np.flatnonzero(total_a >= most - 1e-12))
    return best


def habits(answers: Answers, profile: str) -> dict[str, Any]:
    """How the model answers as a whole: unreadable and cut-off shares, yes-rate, histogram of letters.

    ``guess`` is what the harness would add to the mean score by drawing an option wherever it reads none.
    ``yes_rate`` is the share of yes among all answers to yes/no questions, unreadable ones included; ``yes_gold`` the
    share that is right. ``precision``, ``recall`` and ``f1`` of yes count an unreadable answer as no.
    """
    scoring = answers.scorings[profile]
    row: dict[str, Any] = {
        "unparsed": float(np.mean(~scoring.parsed_q)),
        "cut_off": float(np.mean(answers.facts_q["cut"])),
        "guess": float(np.mean(scoring.guess_q)),
    }
    yes_no_q, mcq_q = answers.kind.equal("yes_no"), answers.kind.equal("mcq")
    if yes_no_q.any():
        row["yes_rate"] = float(np.mean(scoring.reply.equal("Yes")[yes_no_q]))
        row["yes_gold"] = float(np.mean(answers.gold.equal("Yes")[yes_no_q]))
        row |= _detection(answers, scoring, yes_no_q)
    if mcq_q.any():
        row["letters"] = scoring.reply.counts(mcq_q)
        row["letters_gold"] = answers.gold.counts(mcq_q)
    return row


def always(answers: Answers, profile: str) -> str | None:
    """The letter or word that every readable answer consists of, if there is only one; None otherwise."""
    counts = answers.scorings[profile].reply.counts()
    counts.pop(UNPARSED, None)
    return next(iter(counts)) if len(counts) == 1 and sum(counts.values()) > 1 else None


def _detection(answers: Answers, scoring: Scoring, yes_no_q: np.ndarray) -> dict[str, float | None]:
    said_q, true_q = scoring.reply.equal("Yes") & yes_no_q, answers.gold.equal("Yes") & yes_no_q
    hits, said, true = int((said_q & true_q).sum()), int(said_q.sum()), int(true_q.sum())
    return {
        "precision": hits / said if said else None,
        "recall": hits / true if true else None,
        "f1": 2 * hits / (said + true) if said + true else None,
    }


def _shares(answers: Answers, term: Term) -> np.ndarray | None:
    """For each gold answer the share of a term's units that it would get right."""
    chosen_q = answers.questions.asked([term])
    code_q = answers.gold.code_q[chosen_q]
    if len(code_q) == 0:
        return None
    if term.unit == "set":
        set_q = answers.questions.set_rows(chosen_q)
        lowest_u = np.full(int(set_q.max()) + 1, len(answers.gold.names))
        highest_u = np.full(len(lowest_u), ABSENT)
        np.minimum.at(lowest_u, set_q, code_q)
        np.maximum.at(highest_u, set_q, code_q)
        return np.bincount(lowest_u[lowest_u == highest_u], minlength=len(answers.gold.names)) / len(lowest_u)
    return np.bincount(code_q, minlength=len(answers.gold.names)) / len(code_q)
