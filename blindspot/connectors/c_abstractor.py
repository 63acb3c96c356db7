"""The C-Abstractor of Honeybee: convolutions around an adaptive average pooling."""

from math import isqrt
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaConfig, RegNetConfig
from transformers.models.regnet.modeling_regnet import RegNetConvLayer, RegNetStage

from blindspot.connectors.base import as_map, as_tokens, visual_width
from blindspot.connectors.mlp import Mlp
from blindspot.connectors.spec import ConnectorSpec, Grid, output_grid


class CAbstractor(Mlp):
    """Position table, RegNet stage, adaptive average pooling to sqrt(M) x sqrt(M), RegNet stage, LLaVA's MLP.

    The stages are transformers' RegNet-Y with what Honeybee sets: depthwise convolutions, SiLU, and a norm over the
    channels of each place instead of over the batch. The learned position table has the tower's native grid and is
    interpolated bilinearly (corners not aligned) to others.

    Source: Honeybee (Cha et al. 2024), section 3.3. There the MLP has a SiLU, here LLaVA's GELU, as in other arms.
    """

    def __init__(self, spec: ConnectorSpec, config: LlavaConfig) -> None:
        super().__init__(spec, config)
        width, depth = visual_width(config), spec.size("depth")
        self.side = _native_side(config.vision_config)
        self.positions = nn.Embedding(self.side**2, width)
        self.before, self.after = _stage(width, depth), _stage(width, depth)

    def forward(self, features_bnd: Tensor, grid: Grid) -> Tensor:
        map_bdhw = self.before(as_map(features_bnd, grid) + self._positions(grid))
        pooled_bdhw = F.adaptive_avg_pool2d(map_bdhw, output_grid(self.spec, grid))
        return super().forward(as_tokens(self.after(pooled_bdhw)))

    def _positions(self, grid: Grid) -> Tensor:
        table_1dhw = as_map(self.positions.weight[None], (self.side, self.side))
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


def _native_side(vision: Any) -> int:
    """Patches along a side of the image that the tower was made for; NaFlex towers state only their number."""
    patches = getattr(vision, "num_patches", None)
    return isqrt(patches) if patches else vision.image_size // vision.patch_size
