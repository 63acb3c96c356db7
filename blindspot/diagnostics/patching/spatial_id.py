"""Spatial-ID vectors: what a token's state says about where its object is, and whether answers follow it.

r(place) = mean over scenes of [state with the object at the place - mean of the state over all places], at the word
that names the object (the spatial IDs of github.com/Raphoo/linear-mech-vlms), and likewise at the object's patches. The
two first principal components of r over the grid of places are compared with rows and columns: a model with a map of
the picture shows a lattice.

Steering: h += strength x (r(target) - r(source)) at the word or the patches of the subject tells the token that its
object is elsewhere. The target is a random place with another relation to the reference. A random direction of the same
length stands beside it.
"""

from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from blindspot.diagnostics.base import Budget, Report, Row, estimate, share
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import Changes, Site
from blindspot.diagnostics.core.stimuli import Speech, Stimulus, direction
from blindspot.scenes.relations import RELATIONS, relation
from blindspot.scenes.world import CELLS, Cell, Scene, draw_distinct, place

TOKENS = ("subject word", "subject's patches")
SHUFFLES = 500
ROUNDING = 1e-6
STRENGTHS = (1.0, 2.0, 4.0)
PLACES_L2 = np.array(CELLS, dtype=float) - np.mean(CELLS, axis=0)
Ids = dict[tuple[str, Site], np.ndarray]
"""For tokens and a site the states' deviations, shape (scenes, places, width)."""


class Lattice(NamedTuple):
    """How much a set of vectors, one a place, looks like a grid.

    Attributes:
        score: R2 of the best linear map from row and column to the first two components, adjusted for its two inputs:
            0 on average for vectors that have nothing to do with places, 1 for a lattice.
        chance: of places in random order, 95 % score less.
        share: of the vectors' variance that the two components hold.
        points: the vectors on the two components, turned so that they lie as rows and columns do; shape (places, 2).
    """

    score: float
    chance: float
    share: float
    points: np.ndarray


def tour(count: int, seed: int, speech: Speech) -> list[Stimulus]:
    """Scenes in which the subject visits all places, one scene after the other; everything else stands at random."""
    rng = Random(f"diagnostics/tour/{seed}")
    found = []
    for _ in range(count):
        drawn = draw_distinct(rng, "train")
        for cell in CELLS:
            reference = rng.choice([other for other in CELLS if relation(cell, other)])
            free = [other for other in CELLS if other not in (cell, reference)]
            cells = [cell, reference, *rng.sample(free, len(drawn.things) - 2)]
            things = (place(rng, t.colour, t.shape, at) for t, at in zip(drawn.things, cells, strict=True))
            found.append(direction(Scene(tuple(things), drawn.background), speech))
    return found


def deviations(vlm: HookedVLM, scenes: int, budget: Budget, report: Report) -> Ids:
    """By how much every state of a `tour` deviates from the mean over places of the same scene."""
    stimuli = tour(scenes, budget.seed, vlm.speech)
    sites = vlm.some_sites("language")
    parts: dict[tuple[str, Site], list[np.ndarray]] = defaultdict(list)
    for prepared in vlm.batches(stimuli, budget.batch):
        states, groups = vlm.run(prepared, sites).states, prepared.token_groups(vlm.image_grid)
        for name, site in product((name for name in TOKENS if name in groups), sites):
            total_bd = (states[site].double() * groups[name][..., None]).sum(dim=1)
            parts[name, site].append((total_bd / groups[name].sum(dim=1, keepdim=True)).cpu().numpy())
        report(sum(len(part) for part in parts[TOKENS[0], sites[0]]), len(stimuli))
    found: Ids = {}
    for key, part in parts.items():
        states_sld = np.concatenate(part).reshape(scenes, len(CELLS), -1)
        deviations_sld = states_sld - states_sld.mean(axis=1, keepdims=True)
        noise = ROUNDING * np.linalg.norm(states_sld, axis=-1).max()
        is_rounding = np.linalg.norm(deviations_sld, axis=-1).max() <= noise
        found[key] = np.zeros_like(states_sld) if is_rounding else deviations_sld
    return found


def lattice(vectors_ld: np.ndarray, seed: int = 0) -> Lattice | None:
    """Compare one vector for each of `CELLS` with rows and columns; None if they are all the same."""
    centred_ld = vectors_ld - vectors_ld.mean(axis=0)
    if not centred_ld.any():
        return None
    points_l2 = _components(centred_ld)
    orders_rl = np.random.default_rng(seed).permuted(np.tile(np.arange(len(CELLS)), (SHUFFLES, 1)), axis=1)
    chance = float(np.quantile(_adjusted(points_l2[orders_rl]), 0.95))
    turn_left, _, turn_right = np.linalg.svd(points_l2.T @ PLACES_L2)
    held = float((points_l2**2).sum() / (centred_ld**2).sum())
    return Lattice(float(_adjusted(points_l2)), chance, held, points_l2 @ turn_left @ turn_right)


def _components(centred_ld: np.ndarray) -> np.ndarray:
    """Coordinates on the first two principal components, shape (places, 2)."""
    left_lk, sizes_k, _ = np.linalg.svd(centred_ld, full_matrices=False)
    return left_lk[:, :2] * sizes_k[:2]


def _adjusted(points_l2: np.ndarray) -> np.ndarray:
    """Adjusted R2 of a linear map from row and column to centred points, for every set of them in front."""
    basis_l2 = np.linalg.qr(PLACES_L2)[0]
    explained = ((basis_l2.T @ points_l2) ** 2).sum(axis=(-2, -1)) / (points_l2**2).sum(axis=(-2, -1))
    return 1 - (1 - explained) * (len(CELLS) - 1) / (len(CELLS) - 3)


def maps(ids: Ids, seed: int) -> tuple[list[Row], np.ndarray]:
    """The lattice of every kind of token and site, with jackknife intervals over scenes; points (rows, places, 2)."""
    rows: list[Row] = []
    points = []
    for (token, site), deviations_sld in ids.items():
        whole, scenes = lattice(deviations_sld.mean(axis=0), seed), len(deviations_sld)
        ends = None, None
        if whole is not None and scenes > 1:
            without_sld = deviations_sld.sum(axis=0) - deviations_sld
            scores_s = _adjusted(np.stack([_components(left_ld) for left_ld in without_sld]))
            error = float(np.sqrt((scenes - 1) * scores_s.var()))
            half = float(stats.t.ppf(0.975, scenes - 1)) * error
            ends = whole.score - half, min(whole.score + half, 1.0)
        rows.append({"token": token, "layer": site.layer, **estimate(whole and whole.score, ends, scenes),
                     "chance": whole and whole.chance, "share": whole and whole.share})  # fmt: skip
        points.append(np.zeros((len(CELLS), 2)) if whole is None else whole.points)
    return rows, np.stack(points).astype(np.float32)


def targets(stimuli: Sequence[Stimulus], seed: int) -> list[Cell]:
    """For each a place that would change the answer, other relations equally likely."""
    rng = Random(f"diagnostics/steering/{seed}")
    found = []
    for stimulus in stimuli:
        by_answer = {name: [cell for cell in CELLS if relation(cell, stimulus.reference.cell) == name]
                     for name in RELATIONS if name != stimulus.answer}  # fmt: skip
        found.append(rng.choice(by_answer[rng.choice([name for name, cells in by_answer.items() if cells])]))
    return found


def steered(site: Site, mask_bt: Tensor, vectors_bd: np.ndarray) -> Changes:
    """Add a vector to the states of a group of tokens, each picture its own."""

    def change(states_btd: Tensor) -> Tensor:
        added_bd = torch.from_numpy(vectors_bd).to(states_btd)
        return states_btd + mask_bt[..., None] * added_bd[:, None]

    return Changes([(site, change)])


def turns(vlm: HookedVLM, stimuli: Sequence[Stimulus], ids: Ids, budget: Budget, report: Report) -> list[Row]:
    """Share of answers that become what they would be at the target, for every token, site, direction and strength.

    Stimuli that are answered so without steering do not count. None of the stimuli may have made ``ids``.
    """
    goals = targets(stimuli, budget.seed)
    end = len(vlm.roles.layers)  # what leaves the last block is read at the last token alone
    keys = [(token, site) for token, site in ids if site.layer < end and ids[token, site].any()]
    cases = list(product(keys, ("spatial id", "random"), STRENGTHS))
    turned: list[list[np.ndarray]] = [[] for _ in cases]
    for done, prepared in enumerate(vlm.batches(stimuli, budget.batch)):
        cells = goals[done * budget.batch :][: len(prepared.stimuli)]
        asked = list(zip(prepared.stimuli, cells, strict=True))
        wanted_b = np.array([RELATIONS.index(relation(cell, s.reference.cell) or "") for s, cell in asked])
        at_target, at_source = [CELLS.index(cell) for cell in cells], [CELLS.index(s.subject.cell) for s, _ in asked]
        open_b = vlm.run(prepared).choices_b.cpu().numpy() != wanted_b
        groups = prepared.token_groups(vlm.image_grid)
        rng = np.random.default_rng([budget.seed, done])
        for number, ((token, site), how, strength) in enumerate(cases):
            vectors_ld = ids[token, site].mean(axis=0)
            vectors_bd = strength * (vectors_ld[at_target] - vectors_ld[at_source])
            if how == "random":
                drawn_bd, lengths_b1 = rng.standard_normal(vectors_bd.shape), _norms(vectors_bd)
                vectors_bd = drawn_bd * lengths_b1 / _norms(drawn_bd)
            trace = vlm.run(prepared, changes=steered(site, groups[token], vectors_bd))
            turned[number].append((trace.choices_b.cpu().numpy() == wanted_b)[open_b])
            report(done * budget.batch * len(cases) + (number + 1) * len(cells), len(stimuli) * len(cases))
    return [
        {"token": token, "layer": site.layer, "direction": how, "strength": strength, **share(np.concatenate(parts))}
        for ((token, site), how, strength), parts in zip(cases, turned, strict=True)
    ]


def _norms(vectors_bd: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors_bd, axis=1, keepdims=True)
