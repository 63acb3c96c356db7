"""Consistency: do answers turn with the picture, and agree with themselves?

Answers that belong together may fit each other without being right, and be right one by one without a set of them
being all right. Both are counted: sets whose answers fit, and sets that are all right, beside what guessing reaches.
"""

from collections.abc import Callable

import numpy as np

from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, sampled, steps
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, answer_map, rearranged
from blindspot.diagnostics.core.stimuli import Speech, Stimulus, answers, direction, directions, statement, statements
from blindspot.scenes.relations import RELATIONS
from blindspot.scenes.world import Scene

INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
TURNS = ("original", "turned 90", "turned 180", "turned 270")
EXAMPLES, EXAMPLE_SIDE = 2, 128
_SYMMETRIES = (
    "Agreement: the answer is that to the original, turned with the picture; of all: of the seven others.",
    "Turns are counter-clockwise: by 90 degrees left becomes below. Mirrored: left and right exchanged; flipped: above "
    "and below. Objects stay upright.",
    "Intervals: Wilson; of all, bootstrap over scenes.",
)
_TOGETHER = (
    "Fit: the answers do not contradict each other, right or wrong. Guess: what random answers reach.",
    "Four turns: the same two objects in all four relations. Objects exchanged: two pictures, one question. Asked the "
    "other way round: one picture, two questions.",
    "Inverse statements: A left of B and B right of A fit if both are affirmed or neither. Opposite: A left of B and A "
    "right of B fit unless both are affirmed. Four statements: the relations of A to B fit if exactly one is affirmed.",
    "n is scenes. Intervals: Wilson; where a scene has several sets, bootstrap over scenes.",
)
Ask = Callable[[list[Stimulus]], np.ndarray]


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    step = steps(report, len(SYMMETRIES) + 2 + 2 * len(RELATIONS))

    def ask(stimuli: list[Stimulus]) -> np.ndarray:
        found_b = vlm.choices(stimuli, budget.batch)
        step()
        return found_b

    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    turned = {
        name: [direction(rearranged(stimulus.scene, move), vlm.speech) for stimulus in stimuli]
        for name, move in SYMMETRIES.items()
    }
    given = {name: ask(version) for name, version in turned.items()}
    right = {name: given[name] == answers(turned[name]) for name in SYMMETRIES}
    fits = {name: given[name] == _mapped(given["original"], answer_map(move)) for name, move in SYMMETRIES.items()}
    rows: list[Row] = []
    for name in SYMMETRIES:
        rows.append({"symmetry": name, "measure": "accuracy", **_share(right[name])})
        if name != "original":
            rows.append({"symmetry": name, "measure": "agreement", **_share(fits[name])})
    right_sb, fits_sb = np.stack(list(right.values())), np.stack(list(fits.values()))
    rows.append({"symmetry": "all", "measure": "accuracy", **_share(right_sb)})
    rows.append({"symmetry": "all", "measure": "agreement", **_share(fits_sb[1:])})
    together: list[Row] = []
    for name, versions in (("eight symmetries", tuple(SYMMETRIES)), ("four turns", TURNS)):
        fit_b, right_b = (np.all([of[version] for version in versions], axis=0) for of in (fits, right))
        together += _pair(name, fit_b, 0.25 ** (len(versions) - 1), right_b, 0.25 ** len(versions))
    together += _exchanged(stimuli, given["original"], ask, vlm.speech)
    together += _stated(statements(budget.stimuli, budget.seed, vlm.speech), ask, vlm.speech)
    count = min(EXAMPLES, len(stimuli))
    flips: list[Row] = [
        {"picture": picture, "drawn": drawn, "symmetry": name, "prompt": turned[name][picture].prompt,
         "answer": RELATIONS[given[name][picture]], "right": turned[name][picture].answer,
         "value": float(right[name][picture]), "low": None, "high": None, "n": 1}
        for picture in range(count) for drawn, name in enumerate(SYMMETRIES)
    ]  # fmt: skip
    shown = [[version[picture].image(EXAMPLE_SIDE) for version in turned.values()] for picture in range(count)]
    return Findings(
        [
            Table("symmetries", "Accuracy and agreement under each symmetry of the square", rows, _SYMMETRIES),
            Table("together", "Share of sets of questions answered consistently, and all right", together, _TOGETHER),
            Table("flips", "Answers to example pictures under the eight symmetries", flips,
                  ("Picture and drawn: indices into the array examples. Value: whether right.",)),
        ],
        {"examples": np.array(shown)},
    )  # fmt: skip


def _exchanged(stimuli: list[Stimulus], given_b: np.ndarray, ask: Ask, speech: Speech) -> list[Row]:
    """The two objects change cells; or the picture stays, and the question names them the other way round."""

    def exchanged(scene: Scene) -> Scene:
        first, second = scene.things[0].cell, scene.things[1].cell
        return rearranged(scene, lambda cell, _: {first: second, second: first}.get(cell, cell))

    rows: list[Row] = []
    for name, change in (("objects exchanged", exchanged), ("asked the other way round", _other_side)):
        others = [direction(change(stimulus.scene), speech) for stimulus in stimuli]
        other_b = ask(others)
        right_b = (given_b == answers(stimuli)) & (other_b == answers(others))
        rows += _pair(name, other_b == _mapped(given_b, INVERSE), 1 / 4, right_b, 1 / 16)
    return rows


def _other_side(scene: Scene) -> Scene:
    """The same picture, whose second object is now the one that is asked about."""
    first, second, *rest = scene.things
    return scene._replace(things=(second, first, *rest))


def _stated(stimuli: list[Stimulus], ask: Ask, speech: Speech) -> list[Row]:
    """All four relations of two objects, each also as its inverse from the other object's side."""
    scenes = [stimulus.scene for stimulus in stimuli]
    yes, right, same, both = {}, {}, [], []
    for name in RELATIONS:
        stated = [statement(scene, name, speech) for scene in scenes]
        inverse = [statement(_other_side(scene), INVERSE[name], speech) for scene in scenes]
        said_b, inverse_b = ask(stated), ask(inverse)
        yes[name], right[name] = said_b == 0, said_b == answers(stated)
        same.append(said_b == inverse_b)
        both.append(right[name] & (inverse_b == answers(inverse)))
    axes = (("left", "right"), ("above", "below"))
    not_both = np.stack([~(yes[a] & yes[b]) for a, b in axes])
    both_right = np.stack([right[a] & right[b] for a, b in axes])
    one, all_right = np.sum(list(yes.values()), axis=0) == 1, np.all(list(right.values()), axis=0)
    return [
        *_pair("inverse statements", np.stack(same), 1 / 2, np.stack(both), 1 / 4),
        *_pair("opposite statements", not_both, 3 / 4, both_right, 1 / 4),
        *_pair("four statements", one, 1 / 4, all_right, 1 / 16),
    ]


def _pair(name: str, fits: np.ndarray, fits_guess: float, right: np.ndarray, right_guess: float) -> list[Row]:
    """Rows of one kind of sets; arrays of shape (scenes,) or (sets a scene, scenes)."""
    return [
        {"set": name, "measure": "fit", **_share(fits), "guess": fits_guess},
        {"set": name, "measure": "all right", **_share(right), "guess": right_guess},
    ]


def _share(holds: np.ndarray) -> Row:
    """Mean over one question of every scene, or over several of shape (questions a scene, scenes), in clusters."""
    holds_sb = np.atleast_2d(holds)
    return sampled(holds_sb.T.astype(float).ravel(), np.repeat(np.arange(holds_sb.shape[1]), len(holds_sb)))


def _mapped(answer_b: np.ndarray, becomes: dict[str, str]) -> np.ndarray:
    return np.array([RELATIONS.index(becomes[name]) for name in RELATIONS])[answer_b]
