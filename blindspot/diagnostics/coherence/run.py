"""Spatial coherence: do features of neighbouring patches agree more than those of distant ones?

After the spatial coherence ratio of the study's authors (mean cosine of the eight neighbours over that of patches at
least five away), with two repairs: features are centred first, or their common direction decides the ratio; and the
*difference* of the two means is reported, because a centred mean is often near zero and no denominator. Pixels and the
same encoder with its weights shuffled stand beside it: what they reach needs no training.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from blindspot.diagnostics.base import Budget, Findings, Report, Table
from blindspot.diagnostics.coherence.plots import CoherenceRow
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import Site
from blindspot.diagnostics.core.patch_grid import Grid
from blindspot.diagnostics.core.stimuli import Stimulus, directions, patch_pixels
from blindspot.evaluation.statistics import Sample

FARTHEST = 5
_NOTES = (
    "Features are centred over all patches of all pictures.",
    "Intervals: bootstrap over pictures.",
    "Shuffled: every weight tensor of the encoder with its entries in random order.",
)


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    """Coherence at every layer of the encoder, trained and with shuffled weights, and of the pixels."""
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    grid = vlm.patches.grid
    sites = vlm.sites("encoder")
    pixels = torch.from_numpy(patch_pixels(stimuli, vlm.side, grid)).float()
    rows = [_row("pixels", None, pixels, grid)]
    rows += [_row("trained", site.layer, states, grid) for site, states in _states(vlm, stimuli, sites, budget)]
    report(1, 2)
    with shuffled(vlm.tower, budget.seed):
        random = list(_states(vlm, stimuli, sites, budget))
    rows += [_row("shuffled", site.layer, states, grid) for site, states in random]
    report(2, 2)
    title = f"Cosine of neighbours minus cosine of patches at least {_far(grid)} apart, by encoder layer"
    return Findings([Table("coherence", title, rows, _NOTES)])


def coherence(features_bnd: Tensor, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine of neighbouring and of distant patches of every picture, each of shape (pictures,).

    Args:
        features_bnd: features of patches in raster order.
        grid: their rows and columns.
    """
    centred = features_bnd.float() - features_bnd.float().mean(dim=(0, 1))
    unit_bnd = nn.functional.normalize(centred, dim=-1)
    cosine_bnn = unit_bnd @ unit_bnd.mT
    rows, columns = torch.arange(grid[0] * grid[1]) // grid[1], torch.arange(grid[0] * grid[1]) % grid[1]
    apart_nn = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    near, far = (cosine_bnn[:, chosen].mean(dim=1).numpy() for chosen in (apart_nn == 1, apart_nn >= _far(grid)))
    return near, far


@contextmanager
def shuffled(module: nn.Module, seed: int) -> Iterator[None]:
    """Let every weight tensor hold its entries in random order while the block lasts."""
    kept = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for parameter in module.parameters():
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
        yield
    finally:
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(kept[name])


def _states(
    vlm: HookedVLM, stimuli: list[Stimulus], sites: list[Site], budget: Budget
) -> Iterator[tuple[Site, Tensor]]:
    """States of all stimuli, site by site, so that no more than one site is held."""
    for site in sites:
        states = (vlm.state(prepared, site) for prepared in vlm.batches(stimuli, budget.batch))
        yield site, torch.cat([states_bnd.float().cpu() for states_bnd in states])


def _row(encoder: str, layer: int | None, features_bnd: Tensor, grid: Grid) -> CoherenceRow:
    near_b, far_b = coherence(features_bnd, grid)
    difference_b = near_b - far_b
    interval = Sample.of(difference_b).estimate().interval
    value, near, far = (float(values_b.mean()) for values_b in (difference_b, near_b, far_b))
    return {"encoder": encoder, "layer": layer, "value": value, "low": interval.low, "high": interval.high,
            "n": len(difference_b), "near": near, "far": far}  # fmt: skip


def _far(grid: Grid) -> int:
    return min(FARTHEST, max(grid) - 1)
