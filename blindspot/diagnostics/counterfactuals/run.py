"""Counterfactuals: do answers follow what is in the picture, or where tokens are said to be?

Three things say where an object is: its place in the picture and so in the sequence of tokens (content), the position
ids of the language model, and the positions of the image encoder. Each is rearranged while the others stay, and nothing
is destroyed: content moves cell by cell, ids and encoder positions are handed to other patches. Answers then follow
the factor, or stay, or become something else. What has moved takes the ids and encoder positions of its new place, so
content has all of a model's sense of place; moving all three together leaves every object both its labels, and what
still follows reads the order of the tokens.
"""

from dataclasses import replace
from itertools import product

import numpy as np

from blindspot.diagnostics.base import Budget, Findings, Report, Table, share
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.rearrangements import rearranged
from blindspot.diagnostics.core.stimuli import Stimulus, answers, directions
from blindspot.diagnostics.counterfactuals.answers import CONSTANT, MOVES, ORIGINAL, ZERO, Condition, Counterfactuals
from blindspot.diagnostics.counterfactuals.plots import Arranged, Arrangement, Follows, Moved, Outcomes
from blindspot.scenes.relations import RELATIONS

FACTORS = {
    "content": ("content",),
    "language ids": ("ids",),
    "encoder positions": ("encoder",),
    "order of tokens": ("content", "ids", "encoder"),
}
"""What is moved to ask for each factor."""
SHARES_NOTES = (
    "Follows: the answer becomes what the move makes right. Unchanged: it stays. Other: neither. Of the questions "
    "answered right as drawn whose right answer the move changes.",
    "Elsewhere: share of answers that stay where the move changes no right answer.",
    "Mirrored or flipped: left and right under the mirror, above and below under the flip.",
    "Order of tokens: content, ids and encoder positions moved together, so every object keeps its id and its encoder "
    "position.",
    "Shuffled: cells exchanged in random pairs, the same for all; objects that come to lie on a diagonal do not count.",
    "Intervals: Wilson.",
)
FACTORIAL_NOTES = (
    "By ids, by encoder: share of the answers that ids or encoder positions make right. Chance is a quarter.",
    "Constant: every image token has the id of the first. Zero: the encoder has no positions.",
    "Intervals: Wilson, on a quarter of the pictures.",
)
FLIPS_NOTES = ("Picture and drawn: indices into the array examples. Value: whether right by the picture.",)
EXAMPLES, EXAMPLE_SIDE = 6, 128
Answers = dict[Condition, np.ndarray]


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """Shares of answers that follow each factor, accuracy for every combination, and examples."""
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    asked = Counterfactuals(vlm, budget.seed)
    single = [_moved(factor, move) for factor in FACTORS.values() for move in (ORIGINAL, *MOVES)]
    single += [Condition(ids=CONSTANT), Condition(encoder=ZERO)]
    given = asked.answers(stimuli, dict.fromkeys(single), budget, lambda done, of: report(done, 2 * of))
    fewer = stimuli[: max(1, len(stimuli) // 4)]
    crossed = asked.answers(fewer, _factorial(), budget, lambda done, of: report(done + of, 2 * of))
    left_out = tuple(f"Left out, {factor}: {reason}." for factor, reason in asked.obstacles.items())
    rows, pictures = _examples(asked, stimuli, given)
    return Findings(
        [
            Table("shares", "Share of answers that follow each factor when it alone is moved",
                  _shares(asked, stimuli, given), (*SHARES_NOTES, *left_out)),
            Table("factorial", "Accuracy by the picture, for every combination of content, ids and encoder positions",
                  _accuracy(asked, fewer, crossed), (*FACTORIAL_NOTES, *left_out)),
            Table("flips", "Answers to example pictures with one factor moved", rows, FLIPS_NOTES),
        ],
        pictures,
    )  # fmt: skip


def _moved(factor: tuple[str, ...], move: str) -> Condition:
    return Condition(**dict.fromkeys(factor, move))


def _factorial() -> list[Condition]:
    """Every content with every set of ids and three sets of encoder positions, and all three by one move or not."""
    full = [Condition(*parts) for parts in product(
        (ORIGINAL, *MOVES), (ORIGINAL, *MOVES, CONSTANT), (ORIGINAL, "shuffled", ZERO)
    )]  # fmt: skip
    pure = [Condition(*parts) for move in MOVES for parts in product((ORIGINAL, move), repeat=3)]
    return list(dict.fromkeys(full + pure))


def _shares(asked: Counterfactuals, stimuli: list[Stimulus], given: Answers) -> list[Follows]:
    right_b = given[Condition()] == answers(stimuli)
    rows: list[Follows] = []
    for factor, parts in FACTORS.items():
        if _moved(parts, MOVES[0]) not in given:
            continue
        outcomes = {move: _outcome(asked, stimuli, given, _moved(parts, move), move) for move in MOVES}
        changed = {move: right_b & outcomes[move][1] for move in MOVES}
        pooled = [(outcomes[move][0], changed[move]) for move in ("mirrored", "flipped")]
        pooled_b = np.concatenate([outcome_b[chosen_b] for outcome_b, chosen_b in pooled])
        rows.append({"factor": factor, "move": "mirrored or flipped", **_share(pooled_b), "elsewhere": None,
                     "asked": len(stimuli)})  # fmt: skip
        for move in MOVES:
            outcome_b, stays_b = outcomes[move][0], right_b & outcomes[move][2]
            elsewhere = share(outcome_b[stays_b] == "unchanged")["value"]
            rows.append({"factor": factor, "move": move, **_share(outcome_b[changed[move]]), "elsewhere": elsewhere})
    return rows


def _outcome(
    asked: Counterfactuals, stimuli: list[Stimulus], given: Answers, condition: Condition, move: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What becomes of each answer, and whether the move changes the right answer, and whether it leaves it."""
    before_b, claim_b = answers(stimuli), asked.claims(stimuli, move)
    changes_b = (claim_b >= 0) & (claim_b != before_b)
    same_b, follows_b = given[condition] == before_b, given[condition] == claim_b
    outcome_b = np.select([same_b, follows_b], ["unchanged", "follows"], "other")
    return outcome_b, changes_b, claim_b == before_b


def _share(outcome_b: np.ndarray) -> Outcomes:
    unchanged, other = (share(outcome_b == name)["value"] for name in ("unchanged", "other"))
    return {**share(outcome_b == "follows"), "unchanged": unchanged, "other": other}


def _accuracy(asked: Counterfactuals, stimuli: list[Stimulus], given: Answers) -> list[Arranged]:
    rows: list[Arranged] = []
    for condition, answer_b in given.items():
        truth_b = asked.claims(stimuli, condition.content)
        by = []
        for label in (condition.ids, condition.encoder):
            claim_b = None if label in (CONSTANT, ZERO) else asked.claims(stimuli, condition.content, label)
            by.append(None if claim_b is None else share((answer_b == claim_b)[claim_b >= 0])["value"])
        right = share((answer_b == truth_b)[truth_b >= 0])
        rows.append({**_arranged(condition), **right, "by ids": by[0], "by encoder": by[1]})
    return rows


def _arranged(condition: Condition) -> Arrangement:
    return {"content": condition.content, "ids": condition.ids, "encoder": condition.encoder}


def _examples(
    asked: Counterfactuals, stimuli: list[Stimulus], given: Answers
) -> tuple[list[Moved], dict[str, np.ndarray]]:
    """Pictures of both axes, answered right as drawn where there are such, and every answer with one factor moved."""
    right_b = given[Condition()] == answers(stimuli)
    horizontal_b = np.isin(answers(stimuli), (RELATIONS.index("left"), RELATIONS.index("right")))
    axes = [[b for b in np.argsort(~right_b, kind="stable").tolist() if horizontal_b[b] == axis] for axis in (1, 0)]
    chosen = [b for axis in axes for b in axis[: EXAMPLES // 2]]
    contents = (ORIGINAL, *MOVES)
    shown = [
        [replace(stimuli[b], scene=rearranged(stimuli[b].scene, asked.moves[content])).image(EXAMPLE_SIDE)
         for content in contents]
        for b in chosen
    ]  # fmt: skip
    rows: list[Moved] = []
    for picture, b in enumerate(chosen):
        for condition, answer_b in given.items():
            claim = int(asked.claims([stimuli[b]], condition.content)[0])
            rows.append({
                "picture": picture, "drawn": contents.index(condition.content), **_arranged(condition),
                "prompt": stimuli[b].prompt, "answer": RELATIONS[answer_b[b]],
                "right": RELATIONS[claim] if claim >= 0 else None,
                "value": float(answer_b[b] == claim), "low": None, "high": None, "n": 1,
            })  # fmt: skip
    return rows, {"examples": np.array(shown)}
