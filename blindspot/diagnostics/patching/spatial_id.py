"""Spatial-ID vectors: what a token's state says about where its object is, and whether that forms a map.

r(place) = mean over scenes of [state with the object at the place - mean of the state over all places], at the word
that names the object (the spatial IDs of github.com/Raphoo/linear-mech-vlms), and likewise at the object's patches. The
two first principal components of r over the grid of places are compared with rows and columns: a model with a map of
the picture shows a lattice.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from scipy import stats
from torch import Tensor

from blindspot.diagnostics.base import Report
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Site
from blindspot.diagnostics.core.stimuli import Speech, Stimulus, direction
from blindspot.diagnostics.core.token_groups import language_groups
from blindspot.diagnostics.patching import plots
from blindspot.scenes.relations import relation
from blindspot.scenes.world import CELLS, Cell, Scene, draw_distinct, place

TOKENS = ("subject word", "subject's patches")
SHUFFLES = 500
ROUNDING = 1e-6
PLACES_L2 = np.array(CELLS, dtype=float) - np.mean(CELLS, axis=0)
Ids = dict[tuple[str, Site], np.ndarray]
"""For tokens and a site the states' deviations, shape (scenes, places, width)."""


@dataclass(frozen=True)
class Lattice:
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


def deviations(vlm: HookedVLM, scenes: int, batch: int, seed: int, report: Report) -> Ids:
    """By how much every state of a `tour` deviates from the mean over places of the same scene.

    Args:
        vlm: the model.
        scenes: number of them.
        batch: stimuli at a time.
        seed: of the scenes.
        report: progress.
    """
    stimuli = tour(scenes, seed, vlm.speech)
    sites = vlm.some_sites("language")
    found: dict[tuple[str, Site], list[np.ndarray]] = defaultdict(list)
    for prepared in vlm.batches(stimuli, batch):
        states = vlm.run(prepared, sites).states
        for name, mask_bt in spoken_of(vlm, prepared).items():
            for site in sites:
                total_bd = (states[site].double() * mask_bt[..., None]).sum(dim=1)
                found[name, site].append((total_bd / mask_bt.sum(dim=1, keepdim=True)).cpu().numpy())
        report(sum(len(part) for part in found[TOKENS[0], sites[0]]), len(stimuli))
    return {key: _deviating(np.concatenate(parts).reshape(scenes, len(CELLS), -1)) for key, parts in found.items()}


def spoken_of(vlm: HookedVLM, prepared: Prepared) -> dict[str, Tensor]:
    """The groups of tokens that stand for the subject, each of shape (batch, tokens)."""
    groups = language_groups(prepared, vlm.image_grid)
    return {name: groups[name] for name in TOKENS if name in groups}


def lattice(vectors_ld: np.ndarray, seed: int = 0) -> Lattice | None:
    """Compare one vector for each of `CELLS` with rows and columns; None if they are all the same."""
    centred_ld = vectors_ld - vectors_ld.mean(axis=0)
    if not centred_ld.any():
        return None
    points_l2 = _components(centred_ld)
    rng = np.random.default_rng(seed)
    orders_rl = rng.permuted(np.tile(np.arange(len(CELLS)), (SHUFFLES, 1)), axis=1)
    shuffled_r = _adjusted(points_l2[orders_rl])
    turn_left, _, turn_right = np.linalg.svd(points_l2.T @ PLACES_L2)
    share = float((points_l2**2).sum() / (centred_ld**2).sum())
    turned_l2 = points_l2 @ turn_left @ turn_right
    return Lattice(float(_adjusted(points_l2)), float(np.quantile(shuffled_r, 0.95)), share, turned_l2)


def maps(ids: Ids, seed: int) -> tuple[list[plots.LatticeRow], np.ndarray]:
    """The lattice of every kind of token and site, with jackknife intervals over scenes.

    Returns:
        Rows of a table; and for each the points, shape (rows, places, 2).
    """
    listed: list[plots.LatticeRow] = []
    points = []
    for (token, site), deviations_sld in ids.items():
        whole = lattice(deviations_sld.mean(axis=0), seed)
        low = high = None
        if whole is not None:
            low, high = _jackknife(whole.score, deviations_sld)
        listed.append({
            "token": token, "layer": site.layer, "value": whole and whole.score, "low": low, "high": high,
            "n": len(deviations_sld), "chance": whole and whole.chance, "share": whole and whole.share,
        })  # fmt: skip
        points.append(np.zeros((len(CELLS), 2)) if whole is None else whole.points)
    return listed, np.stack(points).astype(np.float32)


def place_vectors(deviations_sld: np.ndarray, cells: Sequence[Cell]) -> np.ndarray:
    """The spatial-ID vector of each of the given places, shape (cells, width)."""
    return deviations_sld.mean(axis=0)[[CELLS.index(cell) for cell in cells]]


def _deviating(states_sld: np.ndarray) -> np.ndarray:
    """States less their mean over places; differences that are rounding alone become zero."""
    deviations_sld = states_sld - states_sld.mean(axis=1, keepdims=True)
    noise = ROUNDING * np.linalg.norm(states_sld, axis=-1).max()
    return deviations_sld if np.linalg.norm(deviations_sld, axis=-1).max() > noise else np.zeros_like(states_sld)


def _components(centred_ld: np.ndarray) -> np.ndarray:
    """Coordinates on the first two principal components, shape (places, 2)."""
    left_lk, sizes_k, _ = np.linalg.svd(centred_ld, full_matrices=False)
    return left_lk[:, :2] * sizes_k[:2]


def _adjusted(points_l2: np.ndarray) -> np.ndarray:
    """Adjusted R2 of a linear map from row and column to centred points, for every set of them in front."""
    basis_l2 = np.linalg.qr(PLACES_L2)[0]
    explained = ((basis_l2.T @ points_l2) ** 2).sum(axis=(-2, -1)) / (points_l2**2).sum(axis=(-2, -1))
    return 1 - (1 - explained) * (len(CELLS) - 1) / (len(CELLS) - 3)


def _jackknife(score: float, deviations_sld: np.ndarray) -> tuple[float | None, float | None]:
    """Interval of the score when another sample of scenes had been drawn; None for a single scene."""
    scenes = len(deviations_sld)
    if scenes < 2:
        return None, None
    without_sld = deviations_sld.sum(axis=0) - deviations_sld
    scores_s = _adjusted(np.stack([_components(left_ld) for left_ld in without_sld]))
    error = float(np.sqrt((scenes - 1) * scores_s.var()))
    half = float(stats.t.ppf(0.975, scenes - 1)) * error
    return score - half, min(score + half, 1.0)
