"""Consistency: do answers turn with the picture, and agree with themselves?

Answers that belong together may fit each other without being right, and be right one by one without a set of them
being all right. Both are counted: sets whose answers fit, and sets that are all right, beside what guessing reaches.
"""

import numpy as np

from blindspot.diagnostics.base import Budget, Findings, Report, Table, Value
from blindspot.diagnostics.consistency.plots import Symmetry, Together, Turned
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, answer_map, rearranged
from blindspot.diagnostics.core.stimuli import (
    Speech,
    Stimulus,
    answers,
    direction,
    directions,
    statement,
    statements,
)
from blindspot.evaluation.statistics import Sample
from blindspot.scenes.relations import RELATIONS
from blindspot.scenes.world import Cell, Scene

INVERSE = {"left": "right", "right": "left", "above": "below", "below": "above"}
TURNS = ("original", "turned 90", "turned 180", "turned 270")
EXAMPLES, EXAMPLE_SIDE = 2, 128
SYMMETRIES_NOTES = (
    "Agreement: the answer is that to the original, turned with the picture; of all: of the seven others.",
    "Turns are counter-clockwise: by 90 degrees left becomes below. Mirrored: left and right exchanged; flipped: above "
    "and below. Objects stay upright.",
    "Intervals: Wilson; of all, bootstrap over scenes.",
)
TOGETHER_NOTES = (
    "Fit: the answers do not contradict each other, right or wrong. Guess: what random answers reach.",
    "Four turns: the same two objects in all four relations. Objects exchanged: two pictures, one question. Asked the "
    "other way round: one picture, two questions.",
    "Inverse statements: A left of B and B right of A fit if both are affirmed or neither. Opposite: A left of B and A "
    "right of B fit unless both are affirmed. Four statements: the relations of A to B fit if exactly one is affirmed.",
    "n is scenes. Intervals: Wilson; where a scene has several sets, bootstrap over scenes.",
)
FLIPS_NOTES = ("Picture and drawn: indices into the array examples. Value: whether right.",)


class _Asked:
    """Asks lists of stimuli, and tells how far it is."""

    LISTS = len(SYMMETRIES) + 2 + 2 * len(RELATIONS)

    def __init__(self, vlm: HookedVLM, budget: Budget, report: Report) -> None:
        self.speech: Speech = vlm.speech
        self._vlm, self._budget, self._report, self._done = vlm, budget, report, 0

    def answers(self, stimuli: list[Stimulus]) -> np.ndarray:
        """Index of the answer to every stimulus, shape (stimuli,)."""
        found = self._vlm.choices(stimuli, self._budget.batch)
        self._done += 1
        self._report(self._done, self.LISTS)
        return found


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """Accuracy and agreement under every symmetry, and how answers that belong together fit."""
    asked = _Asked(vlm, budget, report)
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    turned = {
        name: [direction(rearranged(stimulus.scene, move), vlm.speech) for stimulus in stimuli]
        for name, move in SYMMETRIES.items()
    }
    given = {name: asked.answers(version) for name, version in turned.items()}
    right_sb = np.stack([given[name] == answers(turned[name]) for name in SYMMETRIES])
    fits_sb = np.stack([given[name] == _mapped(given["original"], answer_map(SYMMETRIES[name])) for name in SYMMETRIES])
    turns = [number for number, name in enumerate(SYMMETRIES) if name in TURNS]
    together = [
        *_group("eight symmetries", fits_sb, right_sb),
        *_group("four turns", fits_sb[turns], right_sb[turns]),
        *_exchanged(stimuli, given["original"], asked),
        *_stated(statements(budget.stimuli, budget.seed, vlm.speech), asked),
    ]
    flips, pictures = _examples(turned, given)
    return Findings(
        [
            Table("symmetries", "Accuracy and agreement under each symmetry of the square",
                  _symmetries(fits_sb, right_sb), SYMMETRIES_NOTES),
            Table("together", "Share of sets of questions answered consistently, and all right", together,
                  TOGETHER_NOTES),
            Table("flips", "Answers to example pictures under the eight symmetries", flips, FLIPS_NOTES),
        ],
        pictures,
    )  # fmt: skip


def _symmetries(fits_sb: np.ndarray, right_sb: np.ndarray) -> list[Symmetry]:
    rows: list[Symmetry] = []
    for number, name in enumerate(SYMMETRIES):
        rows.append({"symmetry": name, "measure": "accuracy", **_share(right_sb[number : number + 1])})
        if number:
            rows.append({"symmetry": name, "measure": "agreement", **_share(fits_sb[number : number + 1])})
    rows.append({"symmetry": "all", "measure": "accuracy", **_share(right_sb)})
    rows.append({"symmetry": "all", "measure": "agreement", **_share(fits_sb[1:])})
    return rows


def _group(name: str, fits_sb: np.ndarray, right_sb: np.ndarray) -> list[Together]:
    """Pictures of one scene: whether all answers turn with it, and whether all are right."""
    guess = 1 / len(RELATIONS)
    fits_b, right_b = np.all(fits_sb, axis=0, keepdims=True), np.all(right_sb, axis=0, keepdims=True)
    return _pair(name, fits_b, guess ** (len(fits_sb) - 1), right_b, guess ** len(right_sb))


def _exchanged(stimuli: list[Stimulus], given_b: np.ndarray, asked: _Asked) -> list[Together]:
    """The two objects change cells; or the picture stays, and the question names them the other way round."""
    pictures = [direction(_cells_exchanged(stimulus.scene), asked.speech) for stimulus in stimuli]
    questions = [direction(_roles_exchanged(stimulus.scene), asked.speech) for stimulus in stimuli]
    rows = []
    for name, others in (("objects exchanged", pictures), ("asked the other way round", questions)):
        other_b = asked.answers(others)
        right_b = (given_b == answers(stimuli)) & (other_b == answers(others))
        rows += _pair(name, other_b == _mapped(given_b, INVERSE), 1 / 4, right_b, 1 / 16)
    return rows


def _stated(stimuli: list[Stimulus], asked: _Asked) -> list[Together]:
    """All four relations of two objects, each also as its inverse from the other object's side."""
    scenes = [stimulus.scene for stimulus in stimuli]
    other_side = [_roles_exchanged(scene) for scene in scenes]
    yes, right, same, both = {}, {}, [], []
    for name in RELATIONS:
        stated = [statement(scene, name, asked.speech) for scene in scenes]
        inverse = [statement(scene, INVERSE[name], asked.speech) for scene in other_side]
        said_b, inverse_b = asked.answers(stated), asked.answers(inverse)
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


def _pair(name: str, fits: np.ndarray, fits_guess: float, right: np.ndarray, right_guess: float) -> list[Together]:
    """Rows of one kind of sets; arrays of shape (scenes,) or (sets a scene, scenes)."""
    return [
        {"set": name, "measure": "fit", **_share(np.atleast_2d(fits)), "guess": fits_guess},
        {"set": name, "measure": "all right", **_share(np.atleast_2d(right)), "guess": right_guess},
    ]


def _share(holds_sb: np.ndarray) -> Value:
    """Mean over several questions of every scene, shape (questions a scene, scenes); scenes are the clusters."""
    scores_q = holds_sb.T.astype(float).ravel()
    interval = Sample.of(scores_q, np.repeat(np.arange(holds_sb.shape[1]), len(holds_sb))).estimate().interval
    return {"value": float(scores_q.mean()), "low": interval.low, "high": interval.high, "n": holds_sb.shape[1]}


def _mapped(answer_b: np.ndarray, becomes: dict[str, str]) -> np.ndarray:
    return np.array([RELATIONS.index(becomes[name]) for name in RELATIONS])[answer_b]


def _cells_exchanged(scene: Scene) -> Scene:
    """The first two objects in each other's cell."""
    first, second = scene.things[0].cell, scene.things[1].cell
    other: dict[Cell, Cell] = {first: second, second: first}
    return rearranged(scene, lambda cell, side: other.get(cell, cell))


def _roles_exchanged(scene: Scene) -> Scene:
    """The same picture, whose second object is now the one that is asked about."""
    first, second, *rest = scene.things
    return scene._replace(things=(second, first, *rest))


def _examples(
    turned: dict[str, list[Stimulus]], given: dict[str, np.ndarray]
) -> tuple[list[Turned], dict[str, np.ndarray]]:
    count = min(EXAMPLES, len(turned["original"]))
    shown = [[version[picture].image(EXAMPLE_SIDE) for version in turned.values()] for picture in range(count)]
    rows: list[Turned] = []
    for picture in range(count):
        for drawn, (name, version) in enumerate(turned.items()):
            stimulus, answer = version[picture], RELATIONS[given[name][picture]]
            rows.append({
                "picture": picture, "drawn": drawn, "symmetry": name, "prompt": stimulus.prompt, "answer": answer,
                "right": stimulus.answer, "value": float(answer == stimulus.answer), "low": None, "high": None, "n": 1,
            })  # fmt: skip
    return rows, {"examples": np.array(shown)}
