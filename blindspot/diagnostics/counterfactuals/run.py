"""Counterfactuals: do answers follow what is in the picture, or where tokens are said to be?

Three things say where an object is: its place in the picture and so in the sequence of tokens (content), the position
ids of the language model, and the positions of the image encoder. Each is rearranged while the others stay, and nothing
is destroyed: content moves cell by cell, ids and encoder positions are handed to other patches. Answers then follow
the factor, or stay, or become something else. What has moved takes the ids and encoder positions of its new place, so
content has all of a model's sense of place; moving all three together leaves every object both its labels, and what
still follows reads the order of the tokens.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, share
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Changes
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, Rearrangement, claimed, order, rearranged, shuffle
from blindspot.diagnostics.core.stimuli import Stimulus, answers, directions
from blindspot.errors import UserError
from blindspot.scenes.relations import RELATIONS
from blindspot.scenes.render import render
from blindspot.scenes.world import CANVAS, GRID

MOVES = ("mirrored", "flipped", "transposed", "shuffled")
"""Each undoes itself, so a label that is moved with its content stays with its object."""
ORIGINAL, CONSTANT, ZERO = "original", "constant", "zero"
FACTORS = {
    "content": ("content",),
    "language ids": ("ids",),
    "encoder positions": ("encoder",),
    "order of tokens": ("content", "ids", "encoder"),
}
"""What is moved to ask for each factor."""
_SHARES = (
    "Follows: the answer becomes what the move makes right. Unchanged: it stays. Other: neither. Of the questions "
    "answered right as drawn whose right answer the move changes.",
    "Elsewhere: share of answers that stay where the move changes no right answer.",
    "Mirrored or flipped: left and right under the mirror, above and below under the flip.",
    "Order of tokens: content, ids and encoder positions moved together, so every object keeps its id and its encoder "
    "position.",
    "Shuffled: cells exchanged in random pairs, the same for all; objects that come to lie on a diagonal do not count.",
    "Intervals: Wilson.",
)
_FACTORIAL = (
    "By ids, by encoder: share of the answers that ids or encoder positions make right. Chance is a quarter.",
    "Constant: every image token has the id of the first. Zero: the encoder has no positions.",
    "Intervals: Wilson, on a quarter of the pictures.",
)
EXAMPLES, EXAMPLE_SIDE = 6, 128


class Arrangement(NamedTuple):
    """How the three factors are arranged: each as it was, by one of `MOVES`, or without places (constant, zero)."""

    content: str = ORIGINAL
    ids: str = ORIGINAL
    encoder: str = ORIGINAL


Moves = Mapping[str, Rearrangement]
Answers = dict[Arrangement, np.ndarray]


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    fewer = stimuli[: max(1, len(stimuli) // 4)]
    moves, blocked = moves_of(budget.seed), obstacles(vlm)

    def possible(arrangements: Iterable[Arrangement]) -> list[Arrangement]:
        return [one for one in dict.fromkeys(arrangements) if all(getattr(one, f) == ORIGINAL for f in blocked)]

    single = [_moved(factor, move) for factor in FACTORS.values() for move in (ORIGINAL, *MOVES)]
    single += [Arrangement(ids=CONSTANT), Arrangement(encoder=ZERO)]
    crossed = [Arrangement(*parts) for parts in product(
        (ORIGINAL, *MOVES), (ORIGINAL, *MOVES, CONSTANT), (ORIGINAL, "shuffled", ZERO)
    )]  # fmt: skip
    crossed += [Arrangement(*parts) for move in MOVES for parts in product((ORIGINAL, move), repeat=3)]
    given = ask(vlm, stimuli, possible(single), moves, budget, lambda done, of: report(done, 2 * of))
    by_all = ask(vlm, fewer, possible(crossed), moves, budget, lambda done, of: report(done + of, 2 * of))
    left_out = tuple(f"Left out, {factor}: {reason}." for factor, reason in blocked.items())
    rows, pictures = _examples(stimuli, given, moves)
    return Findings(
        [
            Table("shares", "Share of answers that follow each factor when it alone is moved",
                  _shares(stimuli, given, moves), (*_SHARES, *left_out)),
            Table("factorial", "Accuracy by the picture, for every combination of content, ids and encoder positions",
                  accuracy(fewer, by_all, moves), (*_FACTORIAL, *left_out)),
            Table("flips", "Answers to example pictures with one factor moved", rows,
                  ("Picture and drawn: indices into the array examples. Value: whether right by the picture.",)),
        ],
        {"examples": pictures},
    )  # fmt: skip


def moves_of(seed: int) -> Moves:
    """`MOVES` and none by name; the seed is the shuffle's."""
    return {name: SYMMETRIES[name] for name in (ORIGINAL, *MOVES[:-1])} | {"shuffled": shuffle(seed)}


def obstacles(vlm: HookedVLM) -> dict[str, str]:
    """Why a factor cannot be changed in this model, by factor (``ids``, ``encoder``)."""
    probe, grid, found = vlm.prepare(directions(1, 0, vlm.speech)), vlm.image_grid, {}
    if not vlm.roles.rotary:
        found["ids"] = "the language model does not turn tokens by their position ids"
    elif grid is None or grid[0] != grid[1] or grid[0] < GRID:
        found["ids"] = f"the picture's tokens lie on no square grid of at least {GRID} x {GRID}"
    elif int(probe.image_bt.sum()) != grid[0] * grid[1]:
        found["ids"] = "other tokens stand between those of the picture"
    try:
        vlm.run(probe, changes=Changes(encoder_places=torch.arange(len(vlm.patches.patches))))
        if vlm.patches.grid[0] < GRID:
            found["encoder"] = f"a picture has fewer than {GRID} x {GRID} patches"
    except UserError as error:
        found["encoder"] = str(error)
    return found


def ask(
    vlm: HookedVLM, stimuli: list[Stimulus], wanted: list[Arrangement], moves: Moves, budget: Budget, report: Report
) -> Answers:
    """Index of the answer to every stimulus, shape (stimuli,), by arrangement."""
    found: dict[Arrangement, list[np.ndarray]] = {one: [] for one in wanted}
    for start in range(0, len(stimuli), budget.batch):
        batch = stimuli[start : start + budget.batch]
        for content in dict.fromkeys(one.content for one in wanted):
            prepared = vlm.prepare([replace(s, scene=rearranged(s.scene, moves[content])) for s in batch])
            for one in (one for one in wanted if one.content == content):
                ids = encoder = None
                if one.ids != ORIGINAL:
                    assert vlm.image_grid is not None, "an obstacle otherwise"
                    order_n = order(moves[ORIGINAL if one.ids == CONSTANT else one.ids], vlm.image_grid[0])
                    ids = language_places(prepared, 0 * order_n if one.ids == CONSTANT else order_n)
                if one.encoder != ORIGINAL:
                    encoder = ZERO if one.encoder == ZERO else order(moves[one.encoder], vlm.patches.grid[0])
                trace = vlm.run(prepared, changes=Changes(language_places=ids, encoder_places=encoder))
                found[one].append(trace.choices_b.cpu().numpy())
        report(start + len(batch), len(stimuli))
    return {one: np.concatenate(parts) for one, parts in found.items()}


def language_places(prepared: Prepared, order_n: Tensor) -> Tensor:
    """Whose place each token has if the picture's n-th has that of its ``order_n[n]``-th, shape (batch, tokens)."""
    batch, length = prepared.image_bt.shape
    device = prepared.image_bt.device
    places_bt = torch.arange(length, device=device).repeat(batch, 1)
    index_bn = places_bt[prepared.image_bt].view(batch, -1)
    places_bt[prepared.image_bt] = index_bn[:, order_n.to(device)].flatten()
    return places_bt


def claims(stimuli: list[Stimulus], *moves: Rearrangement) -> np.ndarray:
    """Index of the answer that moves, one after the other, make right; -1 where there is none."""
    found = [claimed(stimulus.scene, *moves) for stimulus in stimuli]
    return np.array([-1 if answer is None else RELATIONS.index(answer) for answer in found])


def _moved(factor: tuple[str, ...], move: str) -> Arrangement:
    return Arrangement(**dict.fromkeys(factor, move))


def _shares(stimuli: list[Stimulus], given: Answers, moves: Moves) -> list[Row]:
    before_b = answers(stimuli)
    right_b = given[Arrangement()] == before_b
    rows: list[Row] = []
    for factor, parts in FACTORS.items():
        if _moved(parts, MOVES[0]) not in given:
            continue
        changed, elsewhere = {}, {}
        for move in MOVES:
            claim_b, answer_b = claims(stimuli, moves[move]), given[_moved(parts, move)]
            outcome_b = np.select([answer_b == before_b, answer_b == claim_b], ["unchanged", "follows"], "other")
            changed[move] = outcome_b[right_b & (claim_b >= 0) & (claim_b != before_b)]
            elsewhere[move] = share(outcome_b[right_b & (claim_b == before_b)] == "unchanged")["value"]
        pooled_b = np.concatenate([changed["mirrored"], changed["flipped"]])
        rows.append({"factor": factor, "move": "mirrored or flipped", **_share(pooled_b), "elsewhere": None,
                     "asked": len(stimuli)})  # fmt: skip
        rows += [{"factor": factor, "move": move, **_share(changed[move]), "elsewhere": elsewhere[move]}
                 for move in MOVES]  # fmt: skip
    return rows


def _share(outcome_b: np.ndarray) -> Row:
    unchanged, other = (share(outcome_b == name)["value"] for name in ("unchanged", "other"))
    return {**share(outcome_b == "follows"), "unchanged": unchanged, "other": other}


def accuracy(stimuli: list[Stimulus], given: Answers, moves: Moves) -> list[Row]:
    """Shares of answers that the picture makes right, and that ids and encoder positions make right."""
    rows: list[Row] = []
    for one, answer_b in given.items():
        content, found = moves[one.content], []
        for label in (ORIGINAL, one.ids, one.encoder):
            if label in (CONSTANT, ZERO):
                found.append({"value": None})
            else:
                claim_b = claims(stimuli, content, moves[label])
                found.append(share((answer_b == claim_b)[claim_b >= 0]))
        rows.append({**one._asdict(), **found[0], "by ids": found[1]["value"], "by encoder": found[2]["value"]})
    return rows


def _examples(stimuli: list[Stimulus], given: Answers, moves: Moves) -> tuple[list[Row], np.ndarray]:
    """Pictures of both axes, answered right as drawn where there are such, and every answer with one factor moved."""
    right_b = given[Arrangement()] == answers(stimuli)
    horizontal_b = np.isin(answers(stimuli), (RELATIONS.index("left"), RELATIONS.index("right")))
    axes = [[b for b in np.argsort(~right_b, kind="stable").tolist() if horizontal_b[b] == axis] for axis in (1, 0)]
    chosen = [b for axis in axes for b in axis[: EXAMPLES // 2]]
    contents = (ORIGINAL, *MOVES)
    rows: list[Row] = []
    for (picture, b), (one, answer_b) in product(enumerate(chosen), given.items()):
        answer, right = RELATIONS[answer_b[b]], claimed(stimuli[b].scene, moves[one.content])
        rows.append({
            "picture": picture, "drawn": contents.index(one.content), **one._asdict(), "prompt": stimuli[b].prompt,
            "answer": answer, "right": right, "value": float(answer == right), "low": None, "high": None, "n": 1,
        })  # fmt: skip
    scenes = [[rearranged(stimuli[b].scene, moves[content]) for content in contents] for b in chosen]
    return rows, np.array([[render(scene, EXAMPLE_SIDE // CANVAS) for scene in line] for line in scenes])
