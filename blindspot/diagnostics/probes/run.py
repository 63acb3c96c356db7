"""Probes by stage: what can be read where, from patch pixels to the token that the answer comes from.

A probe is trained on a model's states, so it tells what is there, not what is used: what a probe reads and the model
does not answer is the last table. Control tasks after Hewitt and Liang (2019): a read-out that learns random labels of
contents as well as the true ones has learned contents, not what was asked.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from blindspot.diagnostics.base import Budget, Findings, Report, Table
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.stimuli import answers
from blindspot.diagnostics.probes import plots
from blindspot.diagnostics.probes.readouts import Outcome, Read, readouts
from blindspot.diagnostics.probes.scores import Scores
from blindspot.diagnostics.probes.stages import WIDEST, Reader, Stage
from blindspot.diagnostics.probes.targets import NEW, PARTS, Set, Target, sets

_HELD_OUT = f"Held out: test pictures with a {NEW}, which no training picture shows."
_NO_ENCODER = "Encoder layers are left out: their tokens are not the patches of one whole picture."
_NOTES = (
    "Value: R2 of position (error: mean distance in cells), else the share that is right.",
    "Position is that of the red object, relation is the red object's to the green one, existence asks for a red "
    "circle, binding for the colour at a cell.",
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


@dataclass(frozen=True)
class _Probe:
    stage: Stage
    read: Read


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """Scores of all read-outs at all stages, what each stage loses, and what the model leaves unused."""
    reader = Reader(vlm, budget)
    drawn = [draw() for draw in sets(budget, vlm.speech)]
    steps = [-(-len(of.stimuli) // budget.batch) + len(reader.stages("subject" in of.stimuli[0].mentions))
             for of in drawn]  # fmt: skip
    done = 0

    def told() -> None:
        nonlocal done
        done += 1
        report(done, sum(steps))

    read, drops, gaps = [], [], []
    for of in drawn:
        states, choices_s = reader.read(of.stimuli, told)
        probes: dict[str, list[_Probe]] = {target.name: [] for target in of.targets}
        for stage, states_srd in states.items():
            for target in of.targets:
                found = readouts(stage, states_srd, reader.regions(stage), target, of, budget.seed)
                probes[target.name] += [_Probe(stage, read) for read in found]
            told()
        for target in of.targets:
            if probes[target.name]:
                read += _rows(probes[target.name], target, of)
                drops += _drops(probes[target.name], target, of)
                gaps += _gaps(probes[target.name], target, of, choices_s)
    left_out = () if reader.encoder else (_NO_ENCODER,)
    return Findings(
        [
            Table("stages", "What can be read at each stage", read, (*_NOTES, *left_out)),
            Table("drops", "Best score at a stage minus best score at the next", drops, (
                "Along the image tokens, then from those of the last layer to the last token.",
                "The best read-out of a stage is chosen on the test pictures. Intervals: paired bootstrap.")),
            Table("gap", "What a probe reads right minus what the model answers right, on the same pictures", gaps, (
                "Above 0: there, but not used.", "Intervals: paired bootstrap over pictures.")),
        ]
    )  # fmt: skip


def _rows(probes: Sequence[_Probe], target: Target, of: Set) -> list[plots.StageRow]:
    found: list[plots.StageRow] = []
    for part in ("test", "new"):
        chosen_s = of.part_s == PARTS.index(part)
        truth = Scores([probe.read.truth for probe in probes], chosen_s, target.kind != "place")
        control = Scores([probe.read.control for probe in probes], chosen_s, target.kind != "place")
        chance = _chance(target, of, chosen_s)
        for at, probe in enumerate(probes):
            stage, row, random = probe.stage, truth.row(at), float(control.value_o[at])
            selective = float(truth.value_o[at]) - max(random, chance)
            found.append({
                "stage": stage.label, "order": stage.order, "tokens": stage.tokens, "target": target.name,
                "readout": probe.read.readout, **row, "error": truth.error(at), "control": random,
                "selectivity": selective, "chance": chance, "held_out": part == "new",
            })  # fmt: skip
    return found


def _chance(target: Target, of: Set, chosen_s: np.ndarray) -> float:
    if target.kind == "place":
        return 0.0
    trained_u = of.part_s[target.scene_u] == PARTS.index("train")
    kinds, times = np.unique(target.truth_uk[trained_u], axis=0, return_counts=True)
    return float((target.truth_uk[chosen_s[target.scene_u]] == kinds[times.argmax()]).all(axis=1).mean())


def _drops(probes: Sequence[_Probe], target: Target, of: Set) -> list[plots.Drop]:
    best, scores = _best(probes, target, of)
    stages = [probes[at].stage for at in best.values()]
    image = [stage for stage in stages if stage.tokens == "image"]
    last = [stage for stage in stages if stage.tokens == "last"]
    path = [*image, *last[-1:]]
    return [
        {"from": before.label, "to": after.label, "target": target.name,
         **scores.difference(best[before.label], best[after.label])}
        for before, after in pairwise(path)
    ]  # fmt: skip


def _gaps(probes: Sequence[_Probe], target: Target, of: Set, choices_s: np.ndarray) -> list[plots.Gap]:
    if target.name != of.asks:
        return []
    wrong_s = (choices_s != answers(of.stimuli)).astype(float)
    model = Outcome(wrong_s, np.ones_like(wrong_s), np.zeros_like(wrong_s))
    best, scores = _best(probes, target, of, (model,))
    last = max((probes[at].stage for at in best.values()), key=lambda stage: stage.order)
    return [
        {"target": target.name, "stage": label, "readout": probes[best[label]].read.readout,
         "probe": float(scores.value_o[best[label]]), "model": float(scores.value_o[-1]),
         **scores.difference(best[label], len(probes))}
        for label in ("connector", last.label)
    ]  # fmt: skip


def _best(
    probes: Sequence[_Probe], target: Target, of: Set, more: Sequence[Outcome] = ()
) -> tuple[dict[str, int], Scores]:
    """The best probe of every stage, by label, in order; and scores of all probes and what else is given."""
    outcomes = [*(probe.read.truth for probe in probes), *more]
    scores = Scores(outcomes, of.part_s == PARTS.index("test"), target.kind != "place")
    best: dict[str, int] = {}
    for at, probe in enumerate(probes):
        if probe.stage.label not in best or scores.value_o[at] > scores.value_o[best[probe.stage.label]]:
            best[probe.stage.label] = at
    return best, scores
