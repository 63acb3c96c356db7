"""One linear map, the connector of the first LLaVA."""

from torch import Tensor, nn
from transformers import LlavaConfig

from blindspot.connectors.base import language_width, visual_width
from blindspot.connectors.spec import ConnectorSpec, Grid


class Linear(nn.Module):
    """Every patch becomes a token."""

    def __init__(self, spec: ConnectorSpec, config: LlavaConfig) -> None:
        super().__init__()
        bias = config.multimodal_projector_bias
        self.linear = nn.Linear(visual_width(config), language_width(config), bias=bias)

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        return self.linear(features_bnd)
