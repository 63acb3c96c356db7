"""Which tokens in which layers carry the answer: patching, attention knockout, spatial-ID vectors, steering."""

import numpy as np

from blindspot.diagnostics.base import Budget, Findings, Report, Table
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.stimuli import directions
from blindspot.diagnostics.patching.exchange import recoveries, usable
from blindspot.diagnostics.patching.knockout import drops
from blindspot.diagnostics.patching.spatial_id import deviations, maps
from blindspot.diagnostics.patching.steering import flips
from blindspot.scenes.world import CELLS


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """All four parts on questions where the subject lies relative to the reference."""

    def stage(number: int) -> Report:
        return lambda done, of: report(number * 1000 + 1000 * done // of, 4000)

    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    pairs, said = usable(vlm, stimuli, budget.batch)
    patched = recoveries(vlm, pairs, budget.batch, stage(0)) if pairs else []
    knocked = drops(vlm, stimuli, budget.batch, stage(1))
    scenes = max(2, budget.stimuli // len(CELLS))
    ids = deviations(vlm, scenes, budget.batch, budget.seed, stage(2))
    rows, points = maps(ids, budget.seed)
    fresh = directions(max(1, budget.stimuli // 2), budget.seed + 1, vlm.speech)
    steering = flips(vlm, fresh, ids, budget.batch, budget.seed, stage(3))
    places = [] if vlm.image_grid else ["The picture's tokens lie on no grid, so no group depends on places."]
    if vlm.encoder_grid is None:
        places.append("The encoder's tokens stand for no places, so it is not patched.")
    tables = [
        Table("patching", "How much of the answer comes back with states from the picture before the exchange",
              patched,
              (said, "0: as if nothing were patched; 1: as if everything were. Ratio of means over pairs.",
               "An object's patches are those where it stands in the picture that states are taken from.",
               "flipped: answers that become those of that picture. tokens: patched on average.",
               "Intervals: bootstrap over pairs.", *places)),
        Table("knockout", "Accuracy lost when some tokens are hidden from others, by window of layers", knocked,
              ("first, last: the window's layers. margin: what the right answer's logit loses on the best other.",
               "words: behind the picture and before the last token. Intervals: paired bootstrap over stimuli.",
               *places)),
        Table("spatial_id", "How much spatial-ID vectors look like a lattice, by language-model layer", rows,
              ("Adjusted R2 of a linear map from row and column to the first two components; None before any place.",
               "chance: 95 % of places in random order score less. share: of the variance, in two components.",
               "Intervals: jackknife over scenes.")),
        Table("steering", "Share of answers that become those of the target place", steering,
              ("Only stimuli that are not answered so already. random: other directions of the same length.",
               "strength: times the difference of the two places' vectors. Intervals: Wilson.")),
    ]  # fmt: skip
    pictures = {"spatial_id": points}
    if pairs:
        pictures["pair"] = np.stack([stimulus.image(vlm.side) for stimulus in pairs[0]])
    return Findings(tables, pictures)
