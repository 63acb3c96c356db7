"""What a row of attention says about where it looks: pure functions of attention weights.

Suffixes: ``b`` stimuli, ``h`` heads, ``p`` pairs of a query and a target, ``k`` keys, ``n`` the picture's tokens.
"""

from math import log

import numpy as np
import torch
from torch import Tensor

from blindspot.diagnostics.core.patch_grid import Grid
from blindspot.scenes.world import CANVAS

_TINY = 1e-30


def object_patches(box: tuple[int, int, int, int], grid: Grid) -> np.ndarray:
    """Which patches an object lies on: at least half of the patch, or as much as of any; shape (patches,), boolean.

    Args:
        box: ``x0, y0, x1, y1`` in pixels of the drawn world.
        grid: rows and columns of patches.
    """
    rows, columns = (_overlap(box[k], box[k + 2], grid[1 - k]) for k in (1, 0))
    covered = np.outer(rows, columns).ravel()
    return covered >= min(0.5, covered.max())


def _overlap(start: int, stop: int, count: int) -> np.ndarray:
    """Share of each of ``count`` equal intervals of the canvas that lies between start and stop."""
    edges = np.arange(count + 1) * CANVAS / count
    return np.clip(np.minimum(stop, edges[1:]) - np.maximum(start, edges[:-1]), 0, None) * count / CANVAS


def mass(image_bhpn: Tensor, object_bpn: Tensor) -> Tensor:
    """Share of the attention on the picture that lies on the object, shape (b, h, p)."""
    on_object = (image_bhpn * object_bpn[:, None]).sum(dim=-1)
    return on_object / image_bhpn.sum(dim=-1).clamp_min(_TINY)


def enrichment(mass_bhp: Tensor, object_bpn: Tensor) -> Tensor:
    """The object's share of attention over its share of the picture, shape (b, h, p); 1 if attention is even."""
    return mass_bhp / object_bpn.float().mean(dim=-1)[:, None]


def auroc(image_bhpn: Tensor, object_bpn: Tensor) -> Tensor:
    """How often a patch of the object gets more attention than another one, ties half; shape (b, h, p)."""
    values = image_bhpn.contiguous()
    ordered = values.sort(dim=-1).values
    below, upto = (torch.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    inside_bhp = ((below + upto) / 2 * object_bpn[:, None]).sum(dim=-1)
    object_b1p = object_bpn.sum(dim=-1)[:, None].float()
    return (inside_bhp - object_b1p**2 / 2) / (object_b1p * (object_bpn.shape[-1] - object_b1p))


def entropy(image_bhqn: Tensor) -> Tensor:
    """Entropy of attention within the picture over that of even attention, shape (b, h, queries)."""
    share = image_bhqn / image_bhqn.sum(dim=-1, keepdim=True).clamp_min(_TINY)
    return -torch.special.xlogy(share, share).sum(dim=-1) / log(max(2, image_bhqn.shape[-1]))


def sensitivity(weights_bhk: Tensor, image_bk: Tensor, change_bhk: Tensor) -> Tensor:
    """Derivative of the picture's share of attention by a parameter of the scores, shape (b, h).

    share of picture x share of the rest x (mean change of the picture's scores - mean change of the others), means
    weighted by attention (arXiv 2503.17349).

    Args:
        weights_bhk: attention of a query.
        image_bk: whether a key is the picture's.
        change_bhk: derivative of each score by the parameter.
    """
    image_b1k = image_bk[:, None].to(weights_bhk.dtype)
    inside, outside = weights_bhk * image_b1k, weights_bhk * (1 - image_b1k)
    share, rest = inside.sum(dim=-1), outside.sum(dim=-1)
    mean_inside = (inside * change_bhk).sum(dim=-1) / share.clamp_min(_TINY)
    mean_outside = (outside * change_bhk).sum(dim=-1) / rest.clamp_min(_TINY)
    return share * rest * (mean_inside - mean_outside)


def rolled(weights_bhtt: Tensor, before_btn: Tensor) -> Tensor:
    """One layer of attention rollout (Abnar and Zuidema 2020): the mean of heads and the identity, half each.

    Args:
        weights_bhtt: attention of the layer.
        before_btn: how much of each of the picture's tokens is in every token below the layer.

    Returns:
        The same above the layer.
    """
    return (weights_bhtt.mean(dim=1) @ before_btn + before_btn) / 2
