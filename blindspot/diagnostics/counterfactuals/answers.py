"""What a model answers when content, language-model ids and encoder positions are rearranged apart from each other."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Changes
from blindspot.diagnostics.core.rearrangements import SYMMETRIES, Rearrangement, claimed, order, rearranged, shuffle
from blindspot.diagnostics.core.stimuli import Stimulus, directions
from blindspot.errors import UserError
from blindspot.scenes.relations import RELATIONS
from blindspot.scenes.world import GRID

MOVES = ("mirrored", "flipped", "transposed", "shuffled")
"""Each undoes itself, so a label that is moved with its content stays with its object."""
ORIGINAL, CONSTANT, ZERO = "original", "constant", "zero"


class Condition(NamedTuple):
    """How the three factors are arranged: each as it was, by one of `MOVES`, or without places (constant, zero)."""

    content: str = ORIGINAL
    ids: str = ORIGINAL
    encoder: str = ORIGINAL


@dataclass(frozen=True)
class Counterfactuals:
    """A model to be asked under conditions.

    Attributes:
        vlm: the model.
        seed: of the shuffle.
    """

    vlm: HookedVLM
    seed: int

    @cached_property
    def moves(self) -> dict[str, Rearrangement]:
        return {ORIGINAL: SYMMETRIES[ORIGINAL], **{name: SYMMETRIES[name] for name in MOVES[:-1]},
                "shuffled": shuffle(self.seed)}  # fmt: skip

    @cached_property
    def obstacles(self) -> dict[str, str]:
        """Why a factor cannot be changed in this model, by factor (``ids``, ``encoder``)."""
        found = {"ids": self._ids_obstacle(), "encoder": self._encoder_obstacle()}
        return {factor: reason for factor, reason in found.items() if reason is not None}

    def answers(
        self,
        stimuli: list[Stimulus],
        conditions: Collection[Condition],
        budget: Budget,
        report: Callable[[int, int], None],
    ) -> dict[Condition, np.ndarray]:
        """Index of the answer to every stimulus, shape (stimuli,), by condition."""
        wanted = [condition for condition in conditions if self._possible(condition)]
        found: dict[Condition, list[np.ndarray]] = {condition: [] for condition in wanted}
        for start in range(0, len(stimuli), budget.batch):
            batch = stimuli[start : start + budget.batch]
            for content in dict.fromkeys(condition.content for condition in wanted):
                move = self.moves[content]
                prepared = self.vlm.prepare([replace(s, scene=rearranged(s.scene, move)) for s in batch])
                for condition in wanted:
                    if condition.content == content:
                        trace = self.vlm.run(prepared, changes=self._changes(prepared, condition))
                        found[condition].append(trace.choices_b.cpu().numpy())
            report(start + len(batch), len(stimuli))
        return {condition: np.concatenate(parts) for condition, parts in found.items()}

    def claims(self, stimuli: list[Stimulus], *names: str) -> np.ndarray:
        """Index of the answer that the named moves, one after the other, make right; -1 where there is none."""
        moves = [self.moves[name] for name in names]
        answers = [claimed(stimulus.scene, *moves) for stimulus in stimuli]
        return np.array([-1 if answer is None else RELATIONS.index(answer) for answer in answers])

    def _possible(self, condition: Condition) -> bool:
        return all(getattr(condition, factor) == ORIGINAL for factor in self.obstacles)

    def _changes(self, prepared: Prepared, condition: Condition) -> Changes:
        ids = encoder = None
        if condition.ids != ORIGINAL:
            grid = self.vlm.image_grid
            assert grid is not None, "an obstacle otherwise"
            constant = torch.zeros(grid[0] * grid[1], dtype=torch.long)
            order_n = constant if condition.ids == CONSTANT else order(self.moves[condition.ids], grid[0])
            ids = language_places(prepared, order_n)
        if condition.encoder == ZERO:
            encoder = ZERO
        elif condition.encoder != ORIGINAL:
            encoder = order(self.moves[condition.encoder], self.vlm.patches.grid[0])
        return Changes(language_places=ids, encoder_places=encoder)

    def _ids_obstacle(self) -> str | None:
        if not self.vlm.roles.rotary:
            return "the language model does not turn tokens by their position ids"
        grid = self.vlm.image_grid
        if grid is None or grid[0] != grid[1] or grid[0] < GRID:
            return f"the picture's tokens lie on no square grid of at least {GRID} x {GRID}"
        if int(self._probe.image_bt.sum()) != grid[0] * grid[1]:
            return "other tokens stand between those of the picture"
        return None

    def _encoder_obstacle(self) -> str | None:
        try:
            patches = self.vlm.patches
            self.vlm.run(self._probe, changes=Changes(encoder_places=torch.arange(len(patches.patches))))
        except UserError as error:
            return str(error)
        return None if patches.grid[0] >= GRID else f"a picture has fewer than {GRID} x {GRID} patches"

    @cached_property
    def _probe(self) -> Prepared:
        return self.vlm.prepare(directions(1, 0, self.vlm.speech))


def language_places(prepared: Prepared, order_n: Tensor) -> Tensor:
    """Whose place each token has if the picture's n-th token has that of its ``order_n[n]``-th, shape (batch, tokens).

    Args:
        prepared: the input.
        order_n: one number for each of a picture's tokens.
    """
    batch, length = prepared.image_bt.shape
    device = prepared.image_bt.device
    places_bt = torch.arange(length, device=device).repeat(batch, 1)
    index_bn = places_bt[prepared.image_bt].view(batch, -1)
    places_bt[prepared.image_bt] = index_bn[:, order_n.to(device)].flatten()
    return places_bt
