"""The perceiver resampler of Flamingo: learned latents that attend to the patches and to themselves."""

from torch import Tensor, nn
from transformers import IdeficsConfig, LlavaConfig
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from blindspot.connectors.base import language_width, visual_heads, visual_width
from blindspot.connectors.spec import ConnectorSpec, Grid


class Resampler(nn.Module):
    """transformers' resampler (IDEFICS) at the width of the tower, then a linear map.

    Each block: z = z + Attn(q = LN z, kv = [LN x, LN z]); z = z + MLP(LN z); a norm at the end. Latents start standard
    normal. No position is added, so the order of the patches does not matter.

    Source: Flamingo (Alayrac et al. 2022), section 3.1.1 and appendix A.1.1.
    """

    def __init__(self, spec: ConnectorSpec, config: LlavaConfig) -> None:
        super().__init__()
        width, heads = visual_width(config), visual_heads(config)
        self.resampler = IdeficsPerceiverResampler(
            IdeficsConfig(vision_config={"embed_dim": width}, perceiver_config={}),
            embed_dim=width,
            depth=spec.size("depth"),
            n_heads=heads,
            head_dim=width // heads,
            n_latents=spec.size("tokens"),
        )
        self.linear = nn.Linear(width, language_width(config))

    def forward(self, features_bnd: Tensor, grid: Grid | None = None) -> Tensor:
        return self.linear(self.resampler(features_bnd))
