"""AIMv2's objective: predict the image patch by patch, then the caption word by word (Fini et al. 2024, section 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import Aimv2TextConfig
from transformers.models.aimv2.modeling_aimv2 import Aimv2Encoder, Aimv2RMSNorm

from blindspot.encoders import normed_tokens
from blindspot.training.objectives.base import Objective, caption_loss, causal_mask, full_precision

DECODER_LAYERS = 1
PIXEL_WEIGHT = 0.4


def normalised_patches(pixels_bchw: Tensor, patch_size: int) -> Tensor:
    """Pixels of every patch in raster order, standardised per patch (He et al. 2022, MAE's normalised target).

    Returns:
        Shape (batch, patches, channels * patch_size^2); (x - mean) / sqrt(var + 1e-6) with the unbiased variance.
    """
    patches_bin = F.unfold(pixels_bchw.float(), patch_size, stride=patch_size).transpose(1, 2)
    variance_bi1, mean_bi1 = torch.var_mean(patches_bin, dim=-1, keepdim=True)
    return (patches_bin - mean_bi1) / (variance_bi1 + 1e-6).sqrt()


def prefix_mask(prefixes_b: Tensor, tokens: int) -> Tensor:
    """Additive attention mask, shape (batch, 1, tokens, tokens): 0 where key <= query or key < prefix, else -inf."""
    index_n = torch.arange(tokens, device=prefixes_b.device)
    visible_bnn = (index_n <= index_n[:, None]) | (index_n < prefixes_b[:, None, None])
    return torch.zeros(visible_bnn.shape, device=prefixes_b.device).masked_fill_(~visible_bnn, float("-inf"))[:, None]


def pixel_loss(predicted_bin: Tensor, target_bin: Tensor, prefixes_b: Tensor) -> Tensor:
    """Mean squared error over the patches outside the prefix: index >= prefix.

    Predicted are patches 1..I-1, as patch 0 always lies in the prefix; the target has the normalised pixels of all.
    """
    index_i = torch.arange(1, target_bin.shape[1], device=target_bin.device)
    outside_bi = (index_i >= prefixes_b[:, None]).float()
    error_bi = (predicted_bin - target_bin[:, 1:]).square().mean(dim=-1)
    return (error_bi * outside_bi).sum() / outside_bi.sum()


class Aimv2Objective(Objective):
    """Prefix attention in the tower, a causal decoder over patches and caption, a linear head for each.

    The decoder is made of AIMv2's own blocks (RMSNorm, SwiGLU). A tower with CLS counts it as part of the prefix.
    """

    def build(self) -> None:
        width, patches = self.shape.width, self.shape.grid**2
        config = Aimv2TextConfig(
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=DECODER_LAYERS,
            num_attention_heads=self.shape.heads,
        )
        config._attn_implementation = "eager"
        self.connector = nn.Linear(width, width)
        self.embedding = nn.Embedding(self.captions.vocab_size, width)
        self.positions_sd = nn.Parameter(torch.randn(patches + self.captions.length - 1, width) * 0.02)
        self.decoder = Aimv2Encoder(config)  # pyright: ignore[reportArgumentType]
        self.norm = Aimv2RMSNorm(width, config.rms_norm_eps)
        self.pixel_head = nn.Linear(width, 3 * self.shape.patch_size**2)
        self.text_head = nn.Linear(width, self.captions.vocab_size)
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(self, pixels_bchw: Tensor, captions_bl: Tensor, step: int) -> dict[str, Tensor]:
        prefixes_b = torch.randint(1, self.shape.grid**2, (len(captions_bl),), device=captions_bl.device)
        predicted_bin, logits_blv = self.predict(pixels_bchw, captions_bl, prefixes_b)
        caption = caption_loss(logits_blv, captions_bl, self.captions.pad_id)
        with full_precision(pixels_bchw):
            target_bin = normalised_patches(pixels_bchw, self.shape.patch_size)
            pixels = pixel_loss(predicted_bin.float(), target_bin, prefixes_b)
        return {"loss": caption + PIXEL_WEIGHT * pixels, "caption": caption.detach(), "pixels": pixels.detach()}

    def predict(self, pixels_bchw: Tensor, captions_bl: Tensor, prefixes_b: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions of patches 1..I-1, shape (batch, I - 1, pixels), and of every word, (batch, length, vocabulary).

        Patch k outside the prefix is predicted from the patches before it; word l from all patches and the words
        before it.
        """
        patches, extra = self.shape.grid**2, self.encoder.prefix_tokens
        mask_b1nn = prefix_mask(prefixes_b + extra, patches + extra)
        features_bid = normed_tokens(self.tower, self.encoder, pixels_bchw, mask_b1nn)[:, extra:]
        words_bld = self.embedding(captions_bl[:, :-1])
        inputs_bsd = torch.cat([self.connector(features_bid), words_bld], dim=1)
        inputs_bsd = inputs_bsd + self.positions_sd[: inputs_bsd.shape[1]]
        mask_ss = causal_mask(inputs_bsd.shape[1], features_bid)
        states_bsd = self.norm(self.decoder(inputs_bsd, attention_mask=mask_ss).last_hidden_state)
        return self.pixel_head(states_bsd[:, : patches - 1]), self.text_head(states_bsd[:, patches - 1 :])
