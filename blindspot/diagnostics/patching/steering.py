"""Steering: does the answer follow when a token is told by a spatial-ID vector that its object is elsewhere?

h += strength x (r(target) - r(source)) at the word or the patches of the subject. The target is a random place with
another relation to the reference. A random direction of the same length stands beside it.
"""

from collections.abc import Sequence
from random import Random

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Report, share
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Changes, Edit, Site
from blindspot.diagnostics.core.stimuli import Stimulus
from blindspot.diagnostics.patching.plots import Steered
from blindspot.diagnostics.patching.spatial_id import Ids, place_vectors, spoken_of
from blindspot.scenes.relations import RELATIONS, relation
from blindspot.scenes.world import CELLS, Cell

STRENGTHS = (1.0, 2.0, 4.0)
DIRECTIONS = ("spatial id", "random")


def targets(stimuli: Sequence[Stimulus], seed: int) -> list[Cell]:
    """For each a place that would change the answer, other relations equally likely."""
    rng = Random(f"diagnostics/steering/{seed}")
    found = []
    for stimulus in stimuli:
        taken = stimulus.reference.cell
        by_answer = {name: [cell for cell in CELLS if relation(cell, taken) == name] for name in RELATIONS}
        possible = [name for name in RELATIONS if by_answer[name] and name != stimulus.answer]
        found.append(rng.choice(by_answer[rng.choice(possible)]))
    return found


def steered(prepared: Prepared, site: Site, mask_bt: Tensor, vectors_bd: np.ndarray) -> Changes:
    """Add a vector to the states of a group of tokens, each picture its own."""

    def change(states_btd: Tensor) -> Tensor:
        added_bd = torch.from_numpy(vectors_bd).to(states_btd)
        return states_btd + mask_bt[..., None] * added_bd[:, None]

    return Changes((Edit(site, change),))


def flips(
    vlm: HookedVLM, stimuli: Sequence[Stimulus], ids: Ids, batch: int, seed: int, report: Report
) -> list[Steered]:
    """Share of answers that become what they would be at the target, for every token, site, direction and strength.

    Stimuli that are answered so without steering do not count.

    Args:
        vlm: the model.
        stimuli: directions; none of which made ``ids``.
        ids: deviations of states by place.
        batch: at a time.
        seed: of targets and random directions.
        report: progress.
    """
    goals = targets(stimuli, seed)
    end = len(vlm.roles.layers)  # what leaves the last block is read at the last token alone
    keys = [(token, site) for token, site in ids if site.layer < end and ids[token, site].any()]
    cases = [(key, how, strength) for key in keys for how in DIRECTIONS for strength in STRENGTHS]
    turned: list[list[np.ndarray]] = [[] for _ in cases]
    for done, prepared in enumerate(vlm.batches(stimuli, batch)):
        cells = goals[done * batch : done * batch + len(prepared.stimuli)]
        wanted_b = np.array([_answer(cell, s) for cell, s in zip(cells, prepared.stimuli, strict=True)])
        open_b = vlm.run(prepared).choices_b.cpu().numpy() != wanted_b
        masks = spoken_of(vlm, prepared)
        rng = np.random.default_rng([seed, done])
        for number, ((token, site), how, strength) in enumerate(cases):
            vectors_bd = strength * _moves(ids[token, site], prepared.stimuli, cells)
            if how == "random":
                vectors_bd = _elsewhere(vectors_bd, rng)
            trace = vlm.run(prepared, changes=steered(prepared, site, masks[token], vectors_bd))
            turned[number].append((trace.choices_b.cpu().numpy() == wanted_b)[open_b])
            report(done * batch * len(cases) + (number + 1) * len(cells), len(stimuli) * len(cases))
    rows: list[Steered] = []
    for ((token, site), how, strength), parts in zip(cases, turned, strict=True):
        turned_share = share(np.concatenate(parts))
        rows.append({"token": token, "layer": site.layer, "direction": how, "strength": strength, **turned_share})
    return rows


def _answer(cell: Cell, stimulus: Stimulus) -> int:
    name = relation(cell, stimulus.reference.cell)
    assert name is not None, "targets have a relation"
    return stimulus.choices.index(name)


def _moves(deviations_sld: np.ndarray, stimuli: Sequence[Stimulus], cells: Sequence[Cell]) -> np.ndarray:
    """r(target) - r(source), shape (batch, width)."""
    sources = [stimulus.subject.cell for stimulus in stimuli]
    return place_vectors(deviations_sld, cells) - place_vectors(deviations_sld, sources)


def _elsewhere(vectors_bd: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vectors of the same lengths in random directions."""
    drawn_bd = rng.standard_normal(vectors_bd.shape)
    lengths_b1 = np.linalg.norm(vectors_bd, axis=1, keepdims=True)
    return drawn_bd * lengths_b1 / np.linalg.norm(drawn_bd, axis=1, keepdims=True)
