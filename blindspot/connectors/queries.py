"""Learned queries that attend to the patches: the Q-Former of BLIP-2 and the perceiver resampler of Flamingo.

Neither sees the order of the patches: a place that their features do not hold is lost.
"""

from typing import Any

from torch import Tensor, nn
from transformers import Blip2QFormerConfig, IdeficsConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from blindspot.connectors import ConnectorSpec, Grid


class QFormer(nn.Module):
    """transformers' Q-Former with cross-attention in every second layer, then a linear map.

    Its width is the tower's (BLIP-2 starts from BERT, 768 wide; here all weights are new). Queries start normal with
    deviation 0.02 (the usual ``initializer_range``). Source: BLIP-2 (Li et al. 2023), section 3.1.
    """

    def __init__(self, spec: ConnectorSpec, config: Any) -> None:
        super().__init__()
        width = config.vision_config.hidden_size
        self.queries = nn.Embedding(spec.size("tokens"), width)
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=width,
                encoder_hidden_size=width,
                intermediate_size=4 * width,
                num_attention_heads=config.vision_config.num_attention_heads,
                num_hidden_layers=spec.size("depth"),
                cross_attention_frequency=2,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        self.linear = nn.Linear(width, config.text_config.hidden_size)

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        queries_bqd = self.queries.weight.expand(len(features_bnd), -1, -1)
        answers = self.qformer(query_embeds=queries_bqd, encoder_hidden_states=features_bnd)
        return self.linear(answers.last_hidden_state)


class Resampler(nn.Module):
    """transformers' resampler (IDEFICS) at the width of the tower, then a linear map.

    Each block: z = z + Attn(q = LN z, kv = [LN x, LN z]); z = z + MLP(LN z); a norm at the end. Latents start standard
    normal. Source: Flamingo (Alayrac et al. 2022), section 3.1.1 and appendix A.1.1.
    """

    def __init__(self, spec: ConnectorSpec, config: Any) -> None:
        super().__init__()
        width, heads = config.vision_config.hidden_size, config.vision_config.num_attention_heads
        self.resampler = IdeficsPerceiverResampler(
            IdeficsConfig(vision_config={"embed_dim": width}, perceiver_config={}),
            embed_dim=width,
            depth=spec.size("depth"),
            n_heads=heads,
            head_dim=width // heads,
            n_latents=spec.size("tokens"),
        )
        self.linear = nn.Linear(width, config.text_config.hidden_size)

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        return self.linear(self.resampler(features_bnd))
