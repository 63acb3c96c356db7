"""How probes read a stage: from which tokens, with which fit."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from blindspot.diagnostics.probes.learned_readouts import AttentionPool, Hidden, learn
from blindspot.diagnostics.probes.ridge import ridge
from blindspot.diagnostics.probes.stages import Regions, Stage
from blindspot.diagnostics.probes.targets import PARTS, Set, Target

FOLDS = 4


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


class Read(NamedTuple):
    """One read-out of one target at one stage.

    Attributes:
        readout: its name.
        truth: how it did, for pictures of all parts (0 for those trained on).
        control: likewise with the labels of the control task.
    """

    readout: str
    truth: Outcome
    control: Outcome


class _Units(NamedTuple):
    """What is predicted (``x``: tokens as read, shape (units, tokens, width)), each unit of one picture."""

    x_urd: np.ndarray
    truth_uk: np.ndarray
    control_uk: np.ndarray
    scene_u: np.ndarray


def readouts(
    stage: Stage, states_srd: np.ndarray, regions: Regions, target: Target, of: Set, seed: int
) -> Iterator[Read]:
    """All read-outs that suit a target at a stage.

    ``linear``: of the word's or the last token. ``mean``: of the mean of the picture's tokens; ``all``: of all tokens
    side by side; ``elsewhere``: of each token that does not touch the object, one probe for all, features and target
    centred token by token, so that where a token is says nothing; ``cell``: of the token at the cell in question. These
    are ridge regressions (of classes: on one-hot labels, the largest wins; of a number: on the number, rounded).
    ``attention`` and ``hidden``: see `learned_readouts`.
    """
    units = _Units(states_srd, target.truth_uk, target.control_uk, target.scene_u)
    if target.cell_uv is not None:
        if stage.tokens == "image" and regions.grid is not None:
            x_u1d = states_srd[target.scene_u, regions.at(target.cell_uv)][:, None]
            yield _linear("cell", units._replace(x_urd=x_u1d), target, of)
        return
    if stage.tokens == "image":
        yield _linear("mean", units._replace(x_urd=states_srd.mean(axis=1, keepdims=True)), target, of)
        yield _linear("all", units._replace(x_urd=states_srd.reshape(len(states_srd), 1, -1)), target, of)
        if target.name == "position" and regions.grid is not None:
            touched_sr = regions.touched([stimulus.subject for stimulus in of.stimuli])
            apart = _elsewhere(units, ~touched_sr, of.part_s == 0)
            if apart is not None:
                yield _linear("elsewhere", apart, target, of)
        if target.name in ("position", "existence"):
            yield _learned("attention", units, target, of, seed)
    else:
        yield _linear("linear", units, target, of)
    if target.kind == "class":
        pooled = units._replace(x_urd=states_srd.mean(axis=1, keepdims=True))
        yield _learned("hidden", pooled, target, of, seed)


def _linear(name: str, units: _Units, target: Target, of: Set) -> Read:
    x_ud = units.x_urd[:, 0]
    fitted = of.part_s[units.scene_u] == 0
    labels = [units.truth_uk, units.control_uk]
    maps = ridge(x_ud[fitted], [y_uk[fitted] for y_uk in labels], _fold_s(len(of.part_s))[units.scene_u[fitted]])
    return Read(name, *(_outcome(fit(x_ud), y_uk, units, target, of) for fit, y_uk in zip(maps, labels, strict=True)))


def _learned(name: str, units: _Units, target: Target, of: Set, seed: int) -> Read:
    fitted = of.part_s[units.scene_u] == 0
    labels = [units.truth_uk, units.control_uk]
    make = AttentionPool if name == "attention" else Hidden
    folds, known = _fold_s(len(of.part_s))[units.scene_u[fitted]], [y_uk[fitted] for y_uk in labels]
    told = learn(make, units.x_urd[fitted], known, folds, units.x_urd, seed)
    return Read(name, *(_outcome(p_uk, y_uk, units, target, of) for p_uk, y_uk in zip(told, labels, strict=True)))


def _fold_s(scenes: int) -> np.ndarray:
    """The fold of every picture; at random, since answers take turns."""
    return np.random.default_rng(0).permutation(scenes) % FOLDS


def _elsewhere(units: _Units, apart_sr: np.ndarray, trained_s: np.ndarray) -> _Units | None:
    """Every token away from the object as a unit of its own; None if there are too few."""
    tokens = [region for region in range(apart_sr.shape[1]) if (apart_sr[:, region] & trained_s).sum() >= FOLDS]
    found: list[_Units] = []
    for region in tokens:
        scene_u = np.nonzero(apart_sr[:, region])[0]
        trained_u = trained_s[scene_u]
        x_ud, truth_uk, control_uk = (
            values[scene_u].astype(np.float64) for values in (units.x_urd[:, region], units.truth_uk, units.control_uk)
        )
        x_ud, truth_uk, control_uk = (v - v[trained_u].mean(axis=0) for v in (x_ud, truth_uk, control_uk))
        found.append(_Units(x_ud[:, None], truth_uk, control_uk, scene_u))
    return _Units(*(np.concatenate(parts) for parts in zip(*found, strict=True))) if found else None


def _outcome(told_uk: np.ndarray, truth_uk: np.ndarray, units: _Units, target: Target, of: Set) -> Outcome:
    part_u = of.part_s[units.scene_u]
    if target.kind == "place":
        lost_u = np.square(told_uk - truth_uk).sum(axis=1)
        stake_u = np.square(truth_uk - truth_uk[part_u == 0].mean(axis=0)).sum(axis=1)
    else:
        lost_u = (_decided(told_uk, target) != _decided(truth_uk, target)).astype(float)
        stake_u = np.ones_like(lost_u)
    tested_u, count = part_u != PARTS.index("train"), len(of.part_s)
    sums = [np.bincount(units.scene_u, values * tested_u, count) for values in (lost_u, stake_u, np.sqrt(lost_u))]
    return Outcome(sums[0], sums[1], sums[2] / np.bincount(units.scene_u, minlength=count).clip(1))


def _decided(told_uk: np.ndarray, target: Target) -> np.ndarray:
    """The class or whole number that a prediction amounts to, shape (units,)."""
    if target.kind == "class":
        return told_uk.argmax(axis=1)
    return told_uk[:, 0].clip(target.truth_uk.min(), target.truth_uk.max()).round()
