"""Average pooling of neighbouring patches, then LLaVA's MLP."""

from torch import Tensor
from torch.nn import functional as F

from blindspot.connectors.base import as_map, as_tokens
from blindspot.connectors.mlp import Mlp
from blindspot.connectors.spec import Grid, output_grid


class AveragePooling(Mlp):
    """Each token is the mean of its window of patches, the windows of `output_grid`.

    Source: MM1 (McKinzie et al. 2024), average pooling. MM1 has one linear map behind it; here it is LLaVA's MLP, so
    that an arm differs from ``mlp`` in the pooling alone.
    """

    def forward(self, features_bnd: Tensor, grid: Grid) -> Tensor:
        pooled_bdhw = F.adaptive_avg_pool2d(as_map(features_bnd, grid), output_grid(self.spec, grid))
        return super().forward(as_tokens(pooled_bdhw))
