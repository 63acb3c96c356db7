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

from blindspot.diagnostics.base import Budget, Findings, Report, Row, Table, sampled
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.parts import Grid
from blindspot.diagnostics.core.stimuli import directions, patch_pixels

FARTHEST = 5
_NOTES = (
    "Features are centred over all patches of all pictures.",
    "Intervals: bootstrap over pictures.",
    "Shuffled: every weight tensor of the encoder with its entries in random order.",
)


def run(vlm: HookedVLM, budget: Budget, report: Report) -> Findings:
    stimuli = directions(budget.stimuli, budget.seed, vlm.speech)
    grid = vlm.patches.grid
    rows: list[Row] = []

    def add(encoder: str, layer: int | None, features_bnd: Tensor) -> None:
        near_b, far_b = coherence(features_bnd, grid)
        rows.append({"encoder": encoder, "layer": layer, **sampled(near_b - far_b), "near": float(near_b.mean()),
                     "far": float(far_b.mean())})  # fmt: skip

    def add_layers(encoder: str) -> None:
        for site in vlm.sites("encoder"):  # one by one, so that no more than one site is held
            states = (vlm.state(prepared, site) for prepared in vlm.batches(stimuli, budget.batch))
            add(encoder, site.layer, torch.cat([states_bnd.float().cpu() for states_bnd in states]))

    add("pixels", None, patch_pixels(stimuli, vlm.side, grid))
    add_layers("trained")
    report(1, 2)
    with shuffled(vlm.tower, budget.seed):
        add_layers("shuffled")
    report(2, 2)
    title = f"Cosine of neighbours minus cosine of patches at least {_far(grid)} apart, by encoder layer"
    return Findings([Table("coherence", title, rows, _NOTES)])


def coherence(features_bnd: Tensor, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Mean cosine of neighbouring and of distant patches, in raster order, of every picture; each (pictures,)."""
    centred = features_bnd.float() - features_bnd.float().mean(dim=(0, 1))
    unit_bnd = nn.functional.normalize(centred, dim=-1)
    cosine_bnn = unit_bnd @ unit_bnd.mT
    rows, columns = torch.arange(grid[0] * grid[1]) // grid[1], torch.arange(grid[0] * grid[1]) % grid[1]
    apart_nn = torch.maximum((rows[:, None] - rows).abs(), (columns[:, None] - columns).abs())
    near, far = (cosine_bnn[:, chosen].mean(dim=1).numpy() for chosen in (apart_nn == 1, apart_nn >= _far(grid)))
    return near, far


def _far(grid: Grid) -> int:
    return min(FARTHEST, max(grid) - 1)


@contextmanager
def shuffled(module: nn.Module, seed: int) -> Iterator[None]:
    """Let every weight tensor hold its entries in random order while the block lasts."""
    weights = [parameter.detach() for parameter in module.parameters()]
    kept = [weight.clone() for weight in weights]
    generator = torch.Generator().manual_seed(seed)
    try:
        for weight in weights:
            order = torch.randperm(weight.numel(), generator=generator).to(weight.device)
            weight.copy_(weight.flatten()[order].view_as(weight))
        yield
    finally:
        for weight, before in zip(weights, kept, strict=True):
            weight.copy_(before)
