"""Probes by stage: what can be read where, from patch pixels to the token that the answer comes from.

A probe is trained on a model's states, so it tells what is there, not what is used: what a probe reads and the model
does not answer is the last table. Control tasks after Hewitt and Liang (2019): a read-out that learns random labels of
contents as well as the true ones has learned contents, not what was asked.

Suffixes: ``s`` pictures, ``u`` units (what is predicted: pictures, cells or tokens), ``k`` outputs, ``r`` tokens as
read, ``o`` outcomes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, bounds, estimate, resampled, steps
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.stimuli import answers
from blindspot.diagnostics.probes.fits import AttentionPool, HiddenLayer, learn, ridge
from blindspot.diagnostics.probes.stages import WIDEST, ProbedStage, read, stages_of
from blindspot.diagnostics.probes.targets import NEW, NEW_SOLID, PARTS, SETS, Set, Target
from blindspot.errors import UserError
from blindspot.evaluation.statistics import is_binary, wilson

FOLDS = 4
_HELD_OUT = f"Held out: test pictures with a {NEW}, of solids a {NEW_SOLID}, which no training picture shows."
_NO_ENCODER = "Encoder layers are left out: their tokens are not the patches of one whole picture."
_NOTES = (
    "Value: R2 of position (error: mean distance in cells) and depth (in units of its world), else the share that is "
    "right.",
    "Position is that of the red object, relation is the red object's to the green one, existence asks for a red "
    "circle, binding for the colour at a cell; of solids nearer asks for the red or the green one and depth is the red "
    "one's, where silhouettes tell neither.",
    "Read-outs: linear (the word's or last token), mean (of image tokens), all (image tokens side by side), elsewhere "
    "(image tokens off the object), cell (the token at the cell), attention (one learned query), hidden (one hidden "
    "layer, on the mean).",
    "Linear ones are ridge regressions, of classes on one-hot labels, of a number on the number, rounded; strength by "
    "4-fold cross-validation over training pictures.",
    "Control: the same read-out for labels drawn at random, one for each content. Selectivity: value minus the larger "
    "of control and chance.",
    "Chance: R2 of 0; the share of the class that is most frequent in training.",
    _HELD_OUT,
    f"Image tokens are averaged in at most 4 x 4 regions; states wider than {WIDEST} are projected at random.",
    "Intervals: Wilson where each picture is right or wrong, else bootstrap over test pictures.",
)


class Outcome(NamedTuple):
    """What one read-out got wrong, picture by picture: its score is 1 - sum of ``lost`` / sum of ``stake``.

    Attributes:
        lost_s: wrong units; or squared errors.
        stake_s: units; or squared distances from the mean of training.
        apart_s: mean distance from the truth in the truth's units, of numbers.
    """

    lost_s: np.ndarray
    stake_s: np.ndarray
    apart_s: np.ndarray


class Probe(NamedTuple):
    """One read-out of one target at one stage: how it did with the truth and with the labels of the control task.

    For pictures of all parts, 0 for those trained on.
    """

    stage: ProbedStage
    readout: str
    truth: Outcome
    control: Outcome


class _Units(NamedTuple):
    """What is predicted (``x``: tokens as read, shape (units, tokens, width)), each unit of one picture."""

    x_urd: np.ndarray
    truth_uk: np.ndarray
    control_uk: np.ndarray
    scene_u: np.ndarray


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    drawn, left_out = [], [] if vlm.encoder_grid else [_NO_ENCODER]
    for draw in SETS:
        few = draw(replace(budget, stimuli=2), vlm.speech)
        try:
            vlm.prepare(few.stimuli[:1])
        except UserError as error:
            left_out.append(f"Left out: {', '.join(target.name for target in few.targets)}; {error}.")
        else:
            drawn.append(draw(budget, vlm.speech))
    if not drawn:
        raise UserError(left_out[-1])
    stages = [[stage for stage in stages_of(vlm) if stage.tokens != "word" or "subject" in of.stimuli[0].mentions]
              for of in drawn]  # fmt: skip
    told = steps(report, sum(-(-len(of.stimuli) // budget.batch) + len(own)
                             for of, own in zip(drawn, stages, strict=True)))  # fmt: skip
    rows, drops, gaps = [], [], []
    for of, own in zip(drawn, stages, strict=True):
        states, choices_s = read(vlm, own, of.stimuli, budget, told)
        probes: dict[str, list[Probe]] = {target.name: [] for target in of.targets}
        for stage, states_srd in zip(own, states, strict=True):
            for target in of.targets:
                probes[target.name] += readouts(stage, states_srd, target, of, budget.seed)
            told()
        for target in of.targets:
            if found := probes[target.name]:
                rows += [*scored(found, target, of, "test"), *scored(found, target, of, "new")]
                drops += _drops(found, target, of)
                gaps += _gaps(found, target, of, choices_s) if target.name == of.asks else []
    return Findings(
        [
            Table("stages", "What can be read at each stage", rows, (*_NOTES, *left_out)),
            Table("drops", "Best score at a stage minus best score at the next", drops, (
                "Along the image tokens, then from those of the last layer to the last token.",
                "The best read-out of a stage is chosen on the test pictures. Intervals: paired bootstrap.")),
            Table("gap", "What a probe reads right minus what the model answers right, on the same pictures", gaps, (
                "Above 0: there, but not used.", "Intervals: paired bootstrap over pictures.")),
        ]
    )  # fmt: skip


def readouts(stage: ProbedStage, states_srd: np.ndarray, target: Target, of: Set, seed: int) -> Iterator[Probe]:
    """All read-outs that suit a target at a stage.

    ``linear``: of the word's or the last token. ``mean``: of the mean of the picture's tokens; ``all``: of all tokens
    side by side; ``elsewhere``: of each token that does not touch the object, one probe for all, features and target
    centred token by token, so that where a token is says nothing; ``cell``: of the token at the cell in question. These
    are ridge regressions (of classes: on one-hot labels, the largest wins; of a number: on the number, rounded).
    ``attention``: a probe that looks for one place; ``hidden``: one with a hidden layer.
    """
    units = _Units(states_srd, target.truth_uk, target.control_uk, target.scene_u)
    pooled = units._replace(x_urd=states_srd.mean(axis=1, keepdims=True))
    grid, chosen = stage.regions.grid, {}
    if target.cell_uv is not None:
        if stage.tokens == "image" and grid is not None:
            x_ud = states_srd[target.scene_u, stage.regions.at(target.cell_uv, grid)]
            chosen["cell"] = units._replace(x_urd=x_ud[:, None])
    else:
        if stage.tokens == "image":
            chosen |= {"mean": pooled, "all": units._replace(x_urd=states_srd.reshape(len(states_srd), 1, -1))}
            if target.name == "position" and grid is not None:
                touched_sr = stage.regions.touched([stimulus.subject for stimulus in of.stimuli], grid)
                chosen |= _elsewhere(units, ~touched_sr, of.part_s == 0)
            chosen |= {"attention": units} if target.name in ("position", "existence") else {}
        else:
            chosen["linear"] = units
        chosen |= {"hidden": pooled} if target.kind == "class" else {}
    fold_s = np.random.default_rng(0).permutation(len(of.part_s)) % FOLDS  # at random, since answers take turns
    for name, (x_urd, *labels, scene_u) in chosen.items():
        fitted = of.part_s[scene_u] == 0
        folds, known = fold_s[scene_u[fitted]], [y_uk[fitted] for y_uk in labels]
        if name in ("attention", "hidden"):
            make = AttentionPool if name == "attention" else HiddenLayer
            told = learn(make, x_urd[fitted], known, folds, x_urd, seed)
        else:
            x_ud = x_urd[:, 0]
            told = [fit(x_ud) for fit in ridge(x_ud[fitted], known, folds)]
        truth, control = (_outcome(*pair, scene_u, target, of) for pair in zip(told, labels, strict=True))
        yield Probe(stage, name, truth, control)


def _elsewhere(units: _Units, apart_sr: np.ndarray, trained_s: np.ndarray) -> dict[str, _Units]:
    """Every token away from the object as a unit of its own; nothing if there are too few."""
    found: list[_Units] = []
    for region, apart_s in enumerate(apart_sr.T):
        if (apart_s & trained_s).sum() >= FOLDS:
            scene_u = np.nonzero(apart_s)[0]
            parts = (values[scene_u].astype(float) for values in (units.x_urd[:, region], *units[1:3]))
            x_ud, truth_uk, control_uk = (part - part[trained_s[scene_u]].mean(axis=0) for part in parts)
            found.append(_Units(x_ud[:, None], truth_uk, control_uk, scene_u))
    return {"elsewhere": _Units(*map(np.concatenate, zip(*found, strict=True)))} if found else {}


def _outcome(told_uk: np.ndarray, truth_uk: np.ndarray, scene_u: np.ndarray, target: Target, of: Set) -> Outcome:
    part_u, count = of.part_s[scene_u], len(of.part_s)
    if target.kind == "place":
        lost_u = np.square(told_uk - truth_uk).sum(axis=1)
        stake_u = np.square(truth_uk - truth_uk[part_u == 0].mean(axis=0)).sum(axis=1)
    else:
        if target.kind == "class":
            decided_u, true_u = told_uk.argmax(axis=1), truth_uk.argmax(axis=1)
        else:
            decided_u, true_u = told_uk[:, 0].clip(target.truth_uk.min(), target.truth_uk.max()).round(), truth_uk[:, 0]
        lost_u = (decided_u != true_u).astype(float)
        stake_u = np.ones_like(lost_u)
    lost_s, stake_s, apart_s = (
        np.bincount(scene_u, values_u * (part_u != 0), count) for values_u in (lost_u, stake_u, np.sqrt(lost_u))
    )
    return Outcome(lost_s, stake_s, apart_s / np.bincount(scene_u, minlength=count).clip(1))


class Scores:
    """Scores of several outcomes on the same pictures of a part: 1 - lost / stake, share of right units or R2.

    Intervals and differences come from the same resampled pictures.
    """

    def __init__(self, outcomes: Sequence[Outcome], target: Target, of: Set, part: str) -> None:
        chosen_s = of.part_s == PARTS.index(part)
        self.n, self.classes = int(chosen_s.sum()), target.kind != "place"
        self.lost_so = np.stack([outcome.lost_s[chosen_s] for outcome in outcomes], axis=1)
        self.stake_so = np.stack([outcome.stake_s[chosen_s] for outcome in outcomes], axis=1)
        self.apart_o = [float(outcome.apart_s[chosen_s].mean()) for outcome in outcomes]
        lost_ro, stake_ro = np.hsplit(resampled(np.hstack([self.lost_so, self.stake_so])), 2)
        self._drawn_ro = 1 - lost_ro / stake_ro
        self.value_o = 1 - self.lost_so.sum(axis=0) / self.stake_so.sum(axis=0)

    def row(self, at: int) -> Row:
        """Score of one outcome: Wilson where every picture is right or wrong, else bootstrap."""
        value, ends, lost_s = float(self.value_o[at]), bounds(self._drawn_ro[:, at]), self.lost_so[:, at]
        single = bool((self.stake_so[:, at] == 1).all()) and is_binary(lost_s)
        if self.classes and (single or np.ptp(lost_s) == 0):
            interval = wilson(value * self.n, self.n)
            ends = interval.low, interval.high
        return estimate(value, ends, self.n)

    def difference(self, first: int, second: int) -> Row:
        """Score of one outcome minus that of another, with a paired bootstrap."""
        ends = bounds(self._drawn_ro[:, first] - self._drawn_ro[:, second])
        return estimate(self.value_o[first] - self.value_o[second], ends, self.n)

    def best(self, probes: Sequence[Probe]) -> dict[str, int]:
        found: dict[str, int] = {}
        for at, probe in enumerate(probes):
            label = probe.stage.label
            if label not in found or self.value_o[at] > self.value_o[found[label]]:
                found[label] = at
        return found


def scored(probes: Sequence[Probe], target: Target, of: Set, part: str) -> list[Row]:
    """Scores of probes with what guessing and random labels reach."""
    truth = Scores([probe.truth for probe in probes], target, of, part)
    control_o = Scores([probe.control for probe in probes], target, of, part).value_o.tolist()
    chance = 0.0
    if target.kind != "place":
        part_u = of.part_s[target.scene_u]
        kinds, times = np.unique(target.truth_uk[part_u == 0], axis=0, return_counts=True)
        tested_uk = target.truth_uk[part_u == PARTS.index(part)]
        chance = float((tested_uk == kinds[times.argmax()]).all(axis=1).mean())
    return [
        {"stage": stage.label, "order": stage.order, "tokens": stage.tokens, "target": target.name, "readout": readout,
         **truth.row(at), "error": None if truth.classes else truth.apart_o[at], "control": control_o[at],
         "selectivity": float(truth.value_o[at]) - max(control_o[at], chance), "chance": chance,
         "held_out": part == "new"}
        for at, (stage, readout, *_) in enumerate(probes)
    ]  # fmt: skip


def _drops(probes: Sequence[Probe], target: Target, of: Set) -> list[Row]:
    scores = Scores([probe.truth for probe in probes], target, of, "test")
    best = scores.best(probes)
    image = [label for label, at in best.items() if probes[at].stage.tokens == "image"]
    last = [label for label, at in best.items() if probes[at].stage.tokens == "last"]
    return [
        {"from": before, "to": after, "target": target.name, **scores.difference(best[before], best[after])}
        for before, after in pairwise([*image, *last[-1:]])
    ]


def _gaps(probes: Sequence[Probe], target: Target, of: Set, choices_s: np.ndarray) -> list[Row]:
    wrong_s = (choices_s != answers(of.stimuli)).astype(float)
    model = Outcome(wrong_s, np.ones_like(wrong_s), np.zeros_like(wrong_s))
    scores = Scores([*(probe.truth for probe in probes), model], target, of, "test")
    best = scores.best(probes)
    last = max(best, key=lambda label: probes[best[label]].stage.order)
    return [
        {"target": target.name, "stage": label, "readout": probes[best[label]].readout,
         "probe": float(scores.value_o[best[label]]), "model": float(scores.value_o[-1]),
         **scores.difference(best[label], len(probes))}
        for label in ("connector", last)
    ]  # fmt: skip
