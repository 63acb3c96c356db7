"""The stages that probes read, and their states: pooled while the model runs, so that memory is bounded.

A picture's tokens are averaged in at most `CELLS_A_SIDE` x `CELLS_A_SIDE` regions, and channels beyond `WIDEST` are
projected at random, so a stage takes at most 16 kB a picture however large the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.base import Budget
from blindspot.diagnostics.core.hooked_vlm import HookedVLM, Prepared
from blindspot.diagnostics.core.hooks import Changes, Edit, Site
from blindspot.diagnostics.core.patch_grid import Grid
from blindspot.diagnostics.core.stimuli import Stimulus, directions, patch_pixels
from blindspot.diagnostics.core.token_groups import covered
from blindspot.scenes.world import GRID, Thing

CELLS_A_SIDE = GRID
WIDEST = 256
Tokens = Literal["image", "word", "last"]


class Stage(NamedTuple):
    """One stage.

    Attributes:
        label: as figures write it.
        order: along the pipeline: pixels, encoder, image tokens of the language model, then its word and last tokens.
        tokens: which are read.
        site: where; None for pixels.
    """

    label: str
    order: int
    tokens: Tokens
    site: Site | None


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

    def touched(self, things: Sequence[Thing]) -> np.ndarray:
        """Whether any patch of a region overlaps the thing in its picture, shape (things, regions).

        Only for tokens that lie on a grid, as `at`.
        """
        assert self.grid is not None
        covered_st = covered(things, self.grid).numpy()
        return np.stack([covered_st[:, self.region_t.numpy() == r].any(axis=1) for r in range(self.count)], axis=1)

    def at(self, cell_uv: np.ndarray) -> np.ndarray:
        """The region that holds the middle of each cell, shape (cells,)."""
        assert self.grid is not None
        rows, columns = self.grid
        patch = ((cell_uv + 0.5) * np.array([rows, columns]) / GRID).astype(int)
        return self.region_t.numpy()[patch[:, 0] * columns + patch[:, 1]]


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


@dataclass
class Reader:
    """Reads all stages of a model.

    Args:
        vlm: the model.
        budget: batch size, and the seed of projections.

    Attributes:
        encoder: whether the encoder's tokens are patches of the picture, and can be read; not if it is cut in tiles.
        grid: of the encoder's patches, and of the pixels; one of cells if the encoder cannot be read.
        patches: their regions.
        image: regions of the picture's tokens in the language model.
    """

    vlm: HookedVLM
    budget: Budget
    encoder: bool = field(init=False)
    grid: Grid = field(init=False)
    patches: Regions = field(init=False)
    image: Regions = field(init=False)

    def __post_init__(self) -> None:
        self.encoder = self.vlm.encoder_grid is not None
        self.grid = self.vlm.encoder_grid or (CELLS_A_SIDE, CELLS_A_SIDE)
        self.patches = Regions.of(self.grid[0] * self.grid[1], self.grid)
        tokens = int(self.vlm.prepare(directions(1, 0, self.vlm.speech)).image_bt.sum())
        self.image = Regions.of(tokens, self.vlm.image_grid)

    def stages(self, mentioned: bool) -> list[Stage]:
        """All stages; those at the subject's word only if the question mentions one."""
        encoder = self.vlm.sites("encoder") if self.encoder else []
        language = self.vlm.sites("language")
        listed: list[tuple[str, Tokens, Site | None]] = [("pixels", "image", None)]
        listed.extend((f"encoder {site.layer}", "image", site) for site in encoder)
        listed.extend((f"language {s.layer} (image)" if s.layer else "connector", "image", s) for s in language)
        listed.extend((f"language {s.layer} (word)", "word", s) for s in language)
        listed.extend((f"language {s.layer} (last)", "last", s) for s in language)
        stages = [Stage(label, order, kind, site) for order, (label, kind, site) in enumerate(listed)]
        return [stage for stage in stages if mentioned or stage.tokens != "word"]

    def regions(self, stage: Stage) -> Regions:
        """How a stage's image tokens are averaged."""
        return self.image if stage.site is not None and stage.site.part == "language" else self.patches

    def read(self, stimuli: list[Stimulus], told: Callable[[], None]) -> tuple[dict[Stage, np.ndarray], np.ndarray]:
        """States at every stage, shape (stimuli, regions or 1, width), and the choices that the model prefers.

        Args:
            stimuli: with one question.
            told: is called after every batch.
        """
        stages = self.stages("subject" in stimuli[0].mentions)
        shrinks = {stage: Shrink(self.budget.seed) for stage in stages}
        parts: dict[Stage, list[np.ndarray]] = {stage: [] for stage in stages}
        choices = []
        for prepared in self.vlm.batches(stimuli, self.budget.batch):
            edits = []
            for stage in stages:
                if stage.site is None:
                    pixels = torch.from_numpy(patch_pixels(prepared.stimuli, self.vlm.side, self.grid)).float()
                    parts[stage].append(shrinks[stage](self.patches.mean(pixels / 255)))
                else:
                    edits.append(Edit(stage.site, self._keeper(stage, prepared, shrinks[stage], parts[stage])))
            choices.append(self.vlm.run(prepared, changes=Changes(tuple(edits))).choices_b.cpu().numpy())
            told()
        return {stage: np.concatenate(found) for stage, found in parts.items()}, np.concatenate(choices)

    def _keeper(
        self, stage: Stage, prepared: Prepared, shrink: Shrink, found: list[np.ndarray]
    ) -> Callable[[Tensor], Tensor]:
        """A change that changes nothing and keeps what it sees."""

        def keep(states_btd: Tensor) -> Tensor:
            if stage.tokens == "image":
                seen_btd = states_btd
                if stage.site is not None and stage.site.part == "language":
                    seen_btd = states_btd[prepared.image_bt].view(len(states_btd), -1, states_btd.shape[-1])
                pooled_brd = self.regions(stage).mean(seen_btd)
            else:
                last_b = torch.full((len(states_btd),), states_btd.shape[1] - 1)
                token_b = prepared.mentions["subject"] if stage.tokens == "word" else last_b
                pooled_brd = states_btd[torch.arange(len(token_b)), token_b][:, None].float()
            found.append(shrink(pooled_brd))
            return states_btd

        return keep


@cache
def _random(width: int, seed: int) -> Tensor:
    return torch.randn(width, WIDEST, generator=torch.Generator().manual_seed(seed)) / WIDEST**0.5
