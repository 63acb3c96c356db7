"""The stages that probes read, and their states: pooled while the model runs, so that memory is bounded.

A picture's tokens are averaged in at most `CELLS_A_SIDE` x `CELLS_A_SIDE` regions, and channels beyond `WIDEST` are
projected at random, so a stage takes at most 16 kB a picture however large the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Change, Changes, Site
from blindspot.diagnostics.core.parts import Grid
from blindspot.diagnostics.core.stimuli import Stimulus, covered, patch_pixels
from blindspot.scenes.world import GRID, Thing

CELLS_A_SIDE = GRID
WIDEST = 256
Tokens = Literal["image", "word", "last"]


@dataclass(frozen=True)
class Regions:
    """How a picture's tokens are averaged.

    Attributes:
        region_t: region of every token.
        grid: of the tokens, in raster order; None if they stand for no places.
        count: of regions.
    """

    region_t: Tensor
    grid: Grid | None
    count: int

    @classmethod
    def of(cls, tokens: int, grid: Grid | None) -> "Regions":
        """Regions of a picture's tokens: squares of the grid, or runs of tokens if there is none."""
        if grid is None:
            count = min(tokens, CELLS_A_SIDE**2)
            return cls(torch.arange(tokens) * count // tokens, None, count)
        down, across = min(grid[0], CELLS_A_SIDE), min(grid[1], CELLS_A_SIDE)
        row, column = torch.arange(grid[0]) * down // grid[0], torch.arange(grid[1]) * across // grid[1]
        return cls((row[:, None] * across + column).flatten(), grid, down * across)

    def mean(self, tokens_btd: Tensor) -> Tensor:
        """Average of every region, shape (batch, regions, width)."""
        share_rt = torch.nn.functional.one_hot(self.region_t, self.count).T.float()
        share_rt = (share_rt / share_rt.sum(dim=1, keepdim=True)).to(tokens_btd.device)
        return share_rt @ tokens_btd.float()

    def touched(self, things: Sequence[Thing], grid: Grid) -> np.ndarray:
        """Whether any patch of a region overlaps the thing in its picture, shape (things, regions)."""
        covered_st = covered(things, grid).numpy()
        return np.stack([covered_st[:, self.region_t.numpy() == r].any(axis=1) for r in range(self.count)], axis=1)

    def at(self, cell_uv: np.ndarray, grid: Grid) -> np.ndarray:
        """The region that holds the middle of each cell, shape (cells,)."""
        patch = ((cell_uv + 0.5) * np.array(grid) / GRID).astype(int)
        return self.region_t.numpy()[patch[:, 0] * grid[1] + patch[:, 1]]


class ProbedStage(NamedTuple):
    """One stage.

    Attributes:
        label: as figures write it.
        order: along the pipeline: pixels, encoder, image tokens of the language model, then its word and last tokens.
        tokens: which are read.
        site: where; None for pixels.
        regions: how image tokens are averaged.
    """

    label: str
    order: int
    tokens: Tokens
    site: Site | None
    regions: Regions


def stages_of(vlm: HookedVLM) -> list[ProbedStage]:
    """All stages of a model; of the encoder none where its tokens are not the patches of one whole picture."""
    grid = vlm.encoder_grid or (CELLS_A_SIDE, CELLS_A_SIDE)
    patches = Regions.of(grid[0] * grid[1], grid)
    image = Regions.of(int(vlm.prepare([vlm.plain]).image_bt.sum()), vlm.image_grid)
    language = vlm.sites("language")
    listed: list[tuple[str, Tokens, Site | None, Regions]] = [("pixels", "image", None, patches)]
    encoder = vlm.sites("encoder") if vlm.encoder_grid else []
    listed.extend((f"encoder {s.layer}", "image", s, patches) for s in encoder)
    listed.extend((f"language {s.layer} (image)" if s.layer else "connector", "image", s, image) for s in language)
    listed.extend((f"language {s.layer} (word)", "word", s, image) for s in language)
    listed.extend((f"language {s.layer} (last)", "last", s, image) for s in language)
    return [ProbedStage(name, order, tokens, site, of) for order, (name, tokens, site, of) in enumerate(listed)]


@dataclass
class Shrink:
    """A projection to `WIDEST` channels: each is first divided by its spread in the first batch, so none outshines."""

    seed: int
    spread_d: Tensor | None = None

    def __call__(self, states_brd: Tensor) -> np.ndarray:
        width = states_brd.shape[-1]
        if width <= WIDEST:
            return states_brd.cpu().numpy()
        if self.spread_d is None:
            spread_d = states_brd.reshape(-1, width).std(dim=0, unbiased=False)
            self.spread_d = spread_d.clamp_min(1e-6 * float(spread_d.max()) + 1e-30)
        return (states_brd / self.spread_d @ _random(width, self.seed).to(states_brd.device)).cpu().numpy()


@cache
def _random(width: int, seed: int) -> Tensor:
    return torch.randn(width, WIDEST, generator=torch.Generator().manual_seed(seed)) / WIDEST**0.5


def read(
    vlm: HookedVLM,
    stages: Sequence[ProbedStage],
    stimuli: list[Stimulus],
    budget: Budget,
    told: Callable[[], None],
    shrinks: Sequence[Shrink] = (),
) -> tuple[list[np.ndarray], np.ndarray]:
    """States at every stage, shape (stimuli, regions or 1, width), and the choices that the model prefers.

    ``shrinks``: those of an earlier reading, so that states are like those of then.
    """
    shrinks = shrinks or [Shrink(budget.seed) for _ in stages]
    parts: list[list[np.ndarray]] = [[] for _ in stages]
    choices = []

    def keeper(stage: ProbedStage, prepared: Prepared, shrink: Shrink, found: list[np.ndarray]) -> Change:
        def keep(states_btd: Tensor) -> None:
            if stage.tokens == "image":
                if stage.site is not None and stage.site.part == "language":
                    states_btd = states_btd[prepared.image_bt].view(len(states_btd), -1, states_btd.shape[-1])
                found.append(shrink(stage.regions.mean(states_btd)))
            else:
                last_b = torch.full((len(states_btd),), states_btd.shape[1] - 1)
                token_b = prepared.mentions["subject"] if stage.tokens == "word" else last_b
                found.append(shrink(states_btd[torch.arange(len(token_b)), token_b][:, None].float()))

        return keep

    for prepared in vlm.batches(stimuli, budget.batch):
        edits = []
        for stage, shrink, found in zip(stages, shrinks, parts, strict=True):
            keep = keeper(stage, prepared, shrink, found)
            if stage.site is not None:
                edits.append((stage.site, keep))
            elif stage.regions.grid is not None:
                keep(patch_pixels(prepared.stimuli, vlm.side, stage.regions.grid) / 255)
        choices.append(vlm.run(prepared, changes=Changes(edits)).choices_b.cpu().numpy())
        told()
    return [np.concatenate(found) for found in parts], np.concatenate(choices)
