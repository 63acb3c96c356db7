"""Attention pooling of neighbouring patches, then LLaVA's MLP."""

import torch
from torch import Tensor, nn
from transformers import LlavaConfig

from blindspot.connectors.base import visual_heads, visual_width
from blindspot.connectors.mlp import Mlp
from blindspot.connectors.spec import ConnectorSpec, Grid, output_grid


class AttentionPooling(Mlp):
    """Each token is a learned weighted mean of its window of patches, the windows of `output_grid`.

    With one learned query per head shared by all windows, head h of window W gives sum_{i in W} a_hi V_h x_i,
    a_h = softmax over W of w_h . x_i; w_h is the query times the key matrix, so one vector holds both, and an output
    matrix would be absorbed by the MLP. In MM1 (McKinzie et al. 2024) the queries of attention pooling see the whole
    image and their tokens have no place in it, which is ``resampler`` here; windows keep rows and columns, so that an
    arm differs from ``average_pooling`` in the weights alone.
    """

    def __init__(self, spec: ConnectorSpec, config: LlavaConfig) -> None:
        super().__init__(spec, config)
        width = visual_width(config)
        self.score = nn.Linear(width, visual_heads(config), bias=False)
        self.value = nn.Linear(width, width)

    def forward(self, features_bnd: Tensor, grid: Grid) -> Tensor:
        output = output_grid(self.spec, grid)
        assert output is not None
        patches_cw, real_cw = _windows(grid, output, features_bnd.device)
        scores_bcwh = self.score(features_bnd).float()[:, patches_cw]
        weights_bcwh = scores_bcwh.masked_fill(~real_cw[..., None], -torch.inf).softmax(dim=2).to(features_bnd.dtype)
        values_bcwhe = self.value(features_bnd).unflatten(2, (scores_bcwh.shape[-1], -1))[:, patches_cw]
        pooled_bche = torch.einsum("bcwh,bcwhe->bche", weights_bcwh, values_bcwhe)
        return super().forward(pooled_bche.flatten(2))


def _windows(grid: Grid, output: Grid, device: torch.device) -> tuple[Tensor, Tensor]:
    """Patches of each window in raster order, shape (windows, largest window), and which of them are real."""
    (rows_iu, real_iu), (columns_jv, real_jv) = (
        _spans(size, parts, device) for size, parts in zip(grid, output, strict=True)
    )
    patches_ijuv = rows_iu[:, None, :, None] * grid[1] + columns_jv[None, :, None, :]
    real_ijuv = real_iu[:, None, :, None] & real_jv[None, :, None, :]
    return patches_ijuv.flatten(2).flatten(0, 1), real_ijuv.flatten(2).flatten(0, 1)


def _spans(size: int, parts: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of each of the parts of a side, padded to the longest, and which of them are real."""
    bounds = [(part * size // parts, -(-(part + 1) * size // parts)) for part in range(parts)]
    longest = max(end - start for start, end in bounds)
    start_i, end_i = torch.tensor(bounds, device=device).unbind(1)
    index_iu = start_i[:, None] + torch.arange(longest, device=device)
    return index_iu.clamp(max=size - 1), index_iu < end_i[:, None]
