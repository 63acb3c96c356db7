"""The connector of LLaVA-1.5: two linear maps with a GELU between them."""

from torch import Tensor
from transformers import LlavaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from blindspot.connectors.spec import ConnectorSpec, Grid


class Mlp(LlavaMultiModalProjector):
    """transformers' own projector, with its names of weights; every patch becomes a token."""

    def __init__(self, spec: ConnectorSpec, config: LlavaConfig) -> None:
        super().__init__(config)
        self.spec = spec

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        return super().forward(features_bnd)
