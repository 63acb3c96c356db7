"""Pooling of neighbouring patches, then LLaVA's MLP: mean, attention, and the C-Abstractor's convolutions around it."""

from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import RegNetConfig
from transformers.models.regnet.modeling_regnet import RegNetConvLayer, RegNetStage

from blindspot.connectors import ConnectorSpec, Grid, output_grid
from blindspot.connectors.linear import Mlp


class AveragePooling(Mlp):
    """Each token is the mean of its window of patches, the windows of `output_grid`.

    Source: MM1 (McKinzie et al. 2024), average pooling. MM1 has one linear map behind it; here it is LLaVA's MLP, so
    that an arm differs from ``mlp`` in the pooling alone.
    """

    def forward(self, features_bnd: Tensor, grid: Grid) -> Tensor:
        map_bdhw = features_bnd.transpose(1, 2).unflatten(2, grid)
        pooled_bdhw = F.adaptive_avg_pool2d(map_bdhw, output_grid(self.spec, grid))
        return super().forward(pooled_bdhw.flatten(2).transpose(1, 2))


class AttentionPooling(Mlp):
    """Each token is a learned weighted mean of its window of patches, the windows of `output_grid`.

    With one learned query per head shared by all windows, head h of window W gives sum_{i in W} a_hi V_h x_i,
    a_h = softmax over W of w_h . x_i; w_h is the query times the key matrix, so one vector holds both, and an output
    matrix would be absorbed by the MLP. In MM1 (McKinzie et al. 2024) the queries of attention pooling see the whole
    image and their tokens have no place in it, which is ``resampler`` here; windows keep rows and columns, so that an
    arm differs from ``average_pooling`` in the weights alone.
    """

    def __init__(self, spec: ConnectorSpec, config: Any) -> None:
        super().__init__(spec, config)
        vision = config.vision_config
        self.score = nn.Linear(vision.hidden_size, vision.num_attention_heads, bias=False)
        self.value = nn.Linear(vision.hidden_size, vision.hidden_size)

    def forward(self, features_bnd: Tensor, grid: Grid) -> Tensor:
        output = output_grid(self.spec, grid)
        assert output is not None
        # Patches of each window in raster order, and which of them are real: shape (windows, largest window).
        (rows_iu, real_iu), (columns_jv, real_jv) = (
            _spans(size, parts, features_bnd.device) for size, parts in zip(grid, output, strict=True)
        )
        patches_ijuv = rows_iu[:, None, :, None] * grid[1] + columns_jv[None, :, None, :]
        real_ijuv = real_iu[:, None, :, None] & real_jv[None, :, None, :]
        patches_cw, real_cw = (x_ijuv.flatten(2).flatten(0, 1) for x_ijuv in (patches_ijuv, real_ijuv))
        scores_bcwh = self.score(features_bnd).float()[:, patches_cw]
        weights_bcwh = scores_bcwh.masked_fill(~real_cw[..., None], -torch.inf).softmax(dim=2).to(features_bnd.dtype)
        values_bcwhe = self.value(features_bnd).unflatten(2, (scores_bcwh.shape[-1], -1))[:, patches_cw]
        pooled_bche = torch.einsum("bcwh,bcwhe->bche", weights_bcwh, values_bcwhe)
        return super().forward(pooled_bche.flatten(2))


def _spans(size: int, parts: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of each of the parts of a side, padded to the longest, and which of them are real."""
    bounds = [(part * size // parts, -(-(part + 1) * size // parts)) for part in range(parts)]
    longest = max(end - start for start, end in bounds)
    start_i, end_i = torch.tensor(bounds, device=device).unbind(1)
    index_iu = start_i[:, None] + torch.arange(longest, device=device)
    return index_iu.clamp(max=size - 1), index_iu < end_i[:, None]


class CAbstractor(Mlp):
    """Position table, RegNet stage, adaptive average pooling to sqrt(M) x sqrt(M), RegNet stage, LLaVA's MLP.

    The stages are transformers' RegNet-Y with what Honeybee sets: depthwise convolutions, SiLU, and a norm over the
    channels of each place instead of over the batch. The learned position table has the tower's native grid and is
    interpolated bilinearly (corners not aligned) to others.

    Source: Honeybee (Cha et al. 2024), section 3.3. There the MLP has a SiLU, here LLaVA's GELU, as in other arms.
    """

    def __init__(self, spec: ConnectorSpec, config: Any) -> None:
        super().__init__(spec, config)
        vision = config.vision_config
        patches = getattr(vision, "num_patches", None)  # NaFlex towers state only their number
        self.side = isqrt(patches) if patches else vision.image_size // vision.patch_size
        self.positions = nn.Embedding(self.side**2, vision.hidden_size)
        self.before, self.after = (_stage(vision.hidden_size, spec.size("depth")) for _ in range(2))

    def forward(self, features_bnd: Tensor, grid: Grid) -> Tensor:
        map_bdhw = features_bnd.transpose(1, 2).unflatten(2, grid)
        pooled_bdhw = F.adaptive_avg_pool2d(
            self.before(map_bdhw + self.position_map(grid)), output_grid(self.spec, grid)
        )
        return super().forward(self.after(pooled_bdhw).flatten(2).transpose(1, 2))

    def position_map(self, grid: Grid) -> Tensor:
        """The table at this grid, shape (1, width, rows, columns)."""
        table_1dhw = self.positions.weight.T.unflatten(1, (self.side, self.side))[None]
        if grid == (self.side, self.side):
            return table_1dhw
        return F.interpolate(table_1dhw, size=grid, mode="bilinear", align_corners=False)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of each place of a map (b, d, h, w)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _stage(width: int, depth: int) -> RegNetStage:
    config = RegNetConfig(layer_type="y", hidden_act="silu", groups_width=1)
    stage = RegNetStage(config, width, width, stride=1, depth=depth)
    for module in stage.modules():
        if isinstance(module, RegNetConvLayer):
            module.register_module("normalization", LayerNorm2d(width, eps=1e-6))
    return stage
