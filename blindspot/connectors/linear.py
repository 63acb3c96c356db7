"""Connectors that make each patch a token: the maps of the first LLaVA and of LLaVA-1.5."""

from typing import Any

from torch import Tensor, nn
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from blindspot.connectors import ConnectorSpec, Grid


class Linear(nn.Module):
    """One linear map."""

    def __init__(self, spec: ConnectorSpec, config: Any) -> None:
        super().__init__()
        bias = config.multimodal_projector_bias
        self.linear = nn.Linear(config.vision_config.hidden_size, config.text_config.hidden_size, bias=bias)

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        return self.linear(features_bnd)


class Normed(nn.Module):
    """A connector with a LayerNorm behind it."""

    def __init__(self, connector: nn.Module, config: Any) -> None:
        super().__init__()
        self.connector = connector
        self.norm = nn.LayerNorm(config.text_config.hidden_size)

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        return self.norm(self.connector(features_bnd, grid))


class Mlp(LlavaMultiModalProjector):
    """Two linear maps with a GELU between them: transformers' own projector, with its names of weights."""

    def __init__(self, spec: ConnectorSpec, config: Any) -> None:
        super().__init__(config)
        self.spec = spec

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        return super().forward(features_bnd)
