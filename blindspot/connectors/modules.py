"""The modules behind the names of connectors, and their start values."""

from collections.abc import Callable

from torch import nn
from transformers import LlavaConfig
from transformers import initialization as init
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from blindspot.connectors.attention_pooling import AttentionPooling
from blindspot.connectors.average_pooling import AveragePooling
from blindspot.connectors.c_abstractor import CAbstractor
from blindspot.connectors.gated_cross_attention import GatedBlock, GatedCrossAttention
from blindspot.connectors.linear import Linear
from blindspot.connectors.mlp import Mlp
from blindspot.connectors.qformer import QFormer
from blindspot.connectors.resampler import Resampler
from blindspot.connectors.spec import ConnectorSpec

MODULES: dict[str, Callable[[ConnectorSpec, LlavaConfig], nn.Module]] = {
    "mlp": Mlp,
    "linear": Linear,
    "average_pooling": AveragePooling,
    "attention_pooling": AttentionPooling,
    "c_abstractor": CAbstractor,
    "qformer": QFormer,
    "resampler": Resampler,
    "gated_cross_attention": GatedCrossAttention,
}


def initialise(module: nn.Module) -> None:
    """Set the start values that transformers' ``_init_weights`` does not know; call it from there.

    Without it they are right after construction, but not where ``from_pretrained`` makes up for weights that a
    checkpoint lacks.
    """
    if isinstance(module, GatedBlock):
        init.zeros_(module.attention_gate)
        init.zeros_(module.mlp_gate)
    elif isinstance(module, IdeficsPerceiverResampler):
        init.normal_(module.latents)
