"""Groups of tokens that are changed together: an object's patches, the words that name it, the last token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from blindspot.diagnostics.core.hooked_vlm import Prepared
from blindspot.diagnostics.core.patch_grid import Grid
from blindspot.scenes.world import CANVAS, Thing


def covered(things: Sequence[Thing], grid: Grid) -> Tensor:
    """Whether a patch overlaps the box of the thing in its picture, shape (pictures, patches), in raster order."""
    rows, columns = grid
    top_h, left_w = torch.arange(rows) * CANVAS / rows, torch.arange(columns) * CANVAS / columns
    x0_b, y0_b, x1_b, y1_b = torch.tensor([thing.box for thing in things]).T
    down_bh = (top_h < y1_b[:, None]) & (top_h + CANVAS / rows > y0_b[:, None])
    across_bw = (left_w < x1_b[:, None]) & (left_w + CANVAS / columns > x0_b[:, None])
    return (down_bh[:, :, None] & across_bw[:, None]).flatten(1)


def patch_groups(prepared: Prepared, grid: Grid) -> dict[str, Tensor]:
    """Patches of the two objects that are asked about, and the others; each of shape (batch, patches)."""
    subject_bn = covered([stimulus.subject for stimulus in prepared.stimuli], grid)
    reference_bn = covered([stimulus.reference for stimulus in prepared.stimuli], grid)
    both_bn = subject_bn | reference_bn
    found = {
        "subject's patches": subject_bn,
        "reference's patches": reference_bn,
        "both objects' patches": both_bn,
        "other patches": ~both_bn,
    }
    return {name: mask_bn.to(prepared.image_bt.device) for name, mask_bn in found.items()}


def language_groups(prepared: Prepared, grid: Grid | None) -> dict[str, Tensor]:
    """Tokens of the language model in groups, each of shape (batch, tokens).

    ``all image`` includes what stands between the picture's tokens (marks of rows and tiles, which have seen them);
    ``words`` are all tokens between the picture and the last token; the word of an object is the last token of its
    name.

    Args:
        prepared: relations that are asked about.
        grid: of the picture's tokens; None leaves out what needs places.
    """
    image_bt = prepared.image_bt
    index_t = torch.arange(image_bt.shape[1], device=image_bt.device)
    last_bt = (index_t == len(index_t) - 1).expand_as(image_bt)
    found = {}
    for name, mask_bn in ({} if grid is None else patch_groups(prepared, grid)).items():
        found[name] = torch.zeros_like(image_bt)
        found[name][image_bt] = mask_bn.flatten()
    named = {
        f"{role} word": index_t == at_b.to(index_t.device)[:, None] for role, at_b in sorted(prepared.mentions.items())
    }
    return {
        **found,
        "all image": (image_bt.cumsum(dim=1) > 0) & ~prepared.behind_bt,
        **named,
        "words": prepared.behind_bt & ~last_bt,
        "last token": last_bt,
        "everything": torch.ones_like(image_bt),
    }
