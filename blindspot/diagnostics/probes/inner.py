"""Where a model takes an object to be: a place read from the state of the word that names it."""

from collections.abc import Sequence

import numpy as np

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.stimuli import Stimulus, directions, statement
from blindspot.diagnostics.probes.fits import ridge
from blindspot.diagnostics.probes.run import FOLDS
from blindspot.diagnostics.probes.stages import Shrink, read, stages_of
from blindspot.diagnostics.probes.targets import middle
from blindspot.errors import UserError
from blindspot.scenes.world import CELL, Scene, Thing

SCENES = 384
"""That a read-out is fitted on, and a third as many that tell how far it is off."""


class InnerPlaces:
    """A linear read-out of an object's place, at the layer of the language model where it is best.

    Attributes:
        layer: in front of which it is read; the number of layers: behind the last.
        error: its mean distance from the truth, in cells, on scenes that it was not fitted on.
    """

    def __init__(self, vlm: HookedVLM, budget: Budget) -> None:
        self._vlm, self._budget = vlm, budget
        stimuli = directions(SCENES + SCENES // 3, budget.seed, vlm.speech)
        stages = [stage for stage in stages_of(vlm) if stage.tokens == "word"]
        shrinks = [Shrink(budget.seed) for _ in stages]
        states, _ = read(vlm, stages, stimuli, budget, lambda: None, shrinks)
        truth_s2 = np.array([middle(stimulus.subject) for stimulus in stimuli]) / CELL
        folds = np.random.default_rng(budget.seed).permutation(SCENES) % FOLDS
        found = []
        for stage, shrink, states_s1d in zip(stages, shrinks, states, strict=True):
            (told,) = ridge(states_s1d[:SCENES, 0], [truth_s2[:SCENES]], folds)
            off_s2 = told(states_s1d[SCENES:, 0]) - truth_s2[SCENES:]
            found.append((float(np.linalg.norm(off_s2, axis=1).mean()), stage, shrink, told))
        self.error, self._stage, self._shrink, self._told = min(found, key=lambda one: one[0])
        assert self._stage.site is not None
        self.layer = self._stage.site.layer

    def __call__(self, scene: Scene) -> dict[Thing, tuple[float, float]]:
        """Where each object whose colour is its own is taken to be: x and y of its middle, in pixels of the scene."""
        colours = [thing.colour for thing in scene.things]
        named = [thing for thing in scene.things if colours.count(thing.colour) == 1]
        if not named or len(scene.things) < 2:
            raise UserError("a place is read where one object is named beside another; add one of another colour")
        stimuli: list[Stimulus] = []
        for thing in named:
            others = [other for other in scene.things if other != thing]
            stimuli.append(statement(Scene((thing, *others), scene.background), "left", self._vlm.speech))
        (states_s1d,), _ = read(self._vlm, [self._stage], stimuli, self._budget, lambda: None, [self._shrink])
        places_s2: Sequence[Sequence[float]] = (CELL * self._told(states_s1d[:, 0])).tolist()
        return {thing: (x, y) for thing, (y, x) in zip(named, places_s2, strict=True)}
