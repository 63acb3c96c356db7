"""The Q-Former of BLIP-2: learned queries that attend to the patches."""

from torch import Tensor, nn
from transformers import Blip2QFormerConfig, LlavaConfig
from transformers.models.blip_2.modeling_blip_2 import Blip2QFormerModel

from blindspot.connectors.base import language_width, visual_heads, visual_width
from blindspot.connectors.spec import ConnectorSpec, Grid


class QFormer(nn.Module):
    """transformers' Q-Former with cross-attention in every second layer, then a linear map.

    Its width is the tower's (BLIP-2 starts from BERT, 768 wide; here all weights are new). Queries start normal with
    deviation 0.02 (the usual ``initializer_range``). The order of the patches does not matter: a place that their
    features do not hold is lost.

    Source: BLIP-2 (Li et al. 2023), section 3.1.
    """

    def __init__(self, spec: ConnectorSpec, config: LlavaConfig) -> None:
        super().__init__()
        width = visual_width(config)
        self.queries = nn.Embedding(spec.size("tokens"), width)
        self.qformer = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=width,
                encoder_hidden_size=width,
                intermediate_size=4 * width,
                num_attention_heads=visual_heads(config),
                num_hidden_layers=spec.size("depth"),
                cross_attention_frequency=2,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        self.linear = nn.Linear(width, language_width(config))

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        queries_bqd = self.queries.weight.expand(len(features_bnd), -1, -1)
        answers = self.qformer(query_embeds=queries_bqd, encoder_hidden_states=features_bnd)
        return self.linear(answers.last_hidden_state)
