"""A tiny Llava config, and a model of transformers that holds a connector for it."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig
from transformers.models.llava.modeling_llava import LlavaPreTrainedModel

from blindspot.connectors import ConnectorSpec, build
from blindspot.connectors.gated_cross_attention import initialise


class Holder(LlavaPreTrainedModel):
    """The part of a variant that holds the connector which its config names, as a model of transformers."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.multi_modal_projector: Any = build(ConnectorSpec.from_dict(config.connector), config)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        initialise(module)


def _config(spec: ConnectorSpec) -> LlavaConfig:
    """A tower 32 wide with 4 x 4 patches, a language model 48 wide with three layers."""
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    language = LlamaConfig(
        vocab_size=40,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlavaConfig(vision_config=vision, text_config=language, connector=spec.to_dict())


@pytest.fixture(scope="session")
def held() -> Callable[[ConnectorSpec], Any]:
    """Spec -> a model that holds that connector, with random weights, in evaluation mode."""
    return lambda spec: Holder(_config(spec)).eval()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)
