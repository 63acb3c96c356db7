"""The gated cross-attention of Flamingo: the language model reads the image beside its sequence, not inside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlavaConfig, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from blindspot.connectors.base import language_width
from blindspot.connectors.image_tokens import Visible, collect, look
from blindspot.connectors.linear import Linear
from blindspot.connectors.resampler import Resampler
from blindspot.connectors.spec import ConnectorSpec, Grid
from blindspot.errors import UserError


class GatedBlock(GradientCheckpointingLayer):
    """y = x + tanh(a) Attn(LN x, media); z = y + tanh(b) MLP(LN y); z = x for tokens without an image before them.

    Both gates start at 0, so a new block gives back x to the bit. Heads are those of the language model.
    """

    def __init__(self, config: LlavaConfig, index: int) -> None:
        super().__init__()
        text: Any = config.text_config
        width = language_width(config)
        self.index = index
        self.head_dim = getattr(text, "head_dim", None) or width // text.num_attention_heads
        inner = text.num_attention_heads * self.head_dim
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, inner, bias=False)
        self.key = nn.Linear(width, inner, bias=False)
        self.value = nn.Linear(width, inner, bias=False)
        self.output = nn.Linear(inner, width, bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.mlp_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x_bld: Tensor, seen: Visible) -> Tensor:
        query_bhld = self._heads(self.query(self.attention_norm(x_bld)))
        key_bhkd, value_bhkd = (
            states_mhnd[seen.images_br].transpose(1, 2).flatten(2, 3) for states_mhnd in self._keys_values(seen)
        )
        attended_bhld = F.scaled_dot_product_attention(query_bhld, key_bhkd, value_bhkd, attn_mask=seen.mask_b1lk)
        y_bld = x_bld + self.attention_gate.tanh() * self.output(attended_bhld.transpose(1, 2).flatten(2))
        y_bld = y_bld + self.mlp_gate.tanh() * self.mlp(y_bld)
        return torch.where(seen.sighted_bl1, y_bld, x_bld)

    def _keys_values(self, seen: Visible) -> tuple[Tensor, Tensor]:
        media, kept = seen.media.tokens_mnd, seen.media.kept
        inference = not torch.is_grad_enabled()
        if inference and self.index in kept:
            return kept[self.index]
        keys_values = self._heads(self.key(media)), self._heads(self.value(media))
        if inference:
            kept[self.index] = keys_values
        return keys_values

    def _heads(self, states_bnc: Tensor) -> Tensor:
        return states_bnc.unflatten(2, (-1, self.head_dim)).transpose(1, 2)


class GatedCrossAttention(nn.Module):
    """A `GatedBlock` in front of layers 0, k, 2k, ... of the language model, k = ``spec.every``.

    An image takes one placeholder token in the sequence, which keeps the language model's own embedding. The patches
    go through a linear map to the width of the language model, or through `Resampler` where ``spec.tokens`` is given;
    these *media* are what the blocks attend to. Use, in this order::

        connector.attach(language_model)                   # once, and after a deep copy of either
        media = connector(features_bnd, grid)              # (images, tokens, language width)
        connector.set_images(media, last_image(image_bl))  # before every forward pass
        language_model(...)

    Source: Flamingo (Alayrac et al. 2022), sections 3.1.2 and 3.1.3; layers counted as IDEFICS does, so that the
    shallowest model has a block.
    """

    def __init__(self, spec: ConnectorSpec, config: LlavaConfig) -> None:
        super().__init__()
        text: Any = config.text_config
        self.every = spec.size("every")
        resampler = ConnectorSpec("resampler", tokens=spec.tokens) if spec.tokens else None
        self.media = Resampler(resampler, config) if resampler else Linear(ConnectorSpec("linear"), config)
        self.blocks = nn.ModuleList(
            GatedBlock(config, index) for index in range(len(range(0, text.num_hidden_layers, self.every)))
        )
        self._hooks: list[Any] = []
        self._seen: Visible | None = None

    def forward(self, features_bnd: Tensor, grid: Grid) -> Tensor:
        """Media of images of one grid, shape (images, patches or ``spec.tokens``, width of the language model)."""
        return self.media(features_bnd, grid)

    def attach(self, language_model: PreTrainedModel) -> None:
        """Put the blocks in front of their layers. Call again at will: earlier hooks are taken away first.

        A deep copy of a model that holds both has working hooks of its own.

        Args:
            language_model: a decoder of transformers with ``layers`` (Llama, Qwen, Gemma, ... without the head).

        Raises:
            UserError: if it has no such layers, or not as many as the config says.
        """
        layers = getattr(language_model, "layers", None)
        name = type(language_model).__name__
        if not isinstance(layers, nn.ModuleList):
            raise UserError(f"gated_cross_attention needs a language model whose blocks are `layers`; {name} has none")
        places = layers[:: self.every]
        if len(places) != len(self.blocks):
            raise UserError(f"gated_cross_attention was built for {len(self.blocks)} places, {name} has {len(places)}")
        for hook in self._hooks:
            hook.remove()
        self._hooks = [
            layer.register_forward_pre_hook(partial(self._before, index), with_kwargs=True)
            for index, layer in enumerate(places)
        ]

    def set_images(self, media: Tensor | Sequence[Tensor] | None, last_image_bl: Tensor | None) -> None:
        """Say what the next forward pass of the language model sees; it holds until the next call.

        In cached decoding call it before every step with the same object and the last column of ``last_image_bl``
        (repeated or reordered with the rows in beam search; the media are not): for steps of one token, keys and
        values of the media are then computed once.

        Args:
            media: every image of the batch in one list: shape (images, tokens, width), or a sequence of (tokens,
                width) where images differ in tokens. None: the language model runs as if it had no blocks.
            last_image_bl: for each token that the language model is about to read, the index in ``media`` of the
                image that it sees, -1 for none; see `image_tokens.last_image`.
        """
        before, self._seen = self._seen, None
        if media is None or last_image_bl is None or not bool((last_image_bl >= 0).any()):
            return
        if before is not None and before.media.given is media and last_image_bl.shape[1] == 1:
            self._seen = look(before.media, last_image_bl)
        else:
            self._seen = look(collect(media), last_image_bl)

    def _before(self, index: int, layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The hook: the hidden states are the layer's first argument, by place or by name."""
        if self._seen is None:
            return None
        x_bld = args[0] if args else kwargs["hidden_states"]
        if x_bld.shape[:2] != self._seen.sighted_bl1.shape[:2]:
            told, got = tuple(self._seen.sighted_bl1.shape[:2]), tuple(x_bld.shape[:2])
            raise ValueError(f"set_images spoke of (rows, tokens) {told}, the language model reads {got}")
        y_bld = self.blocks[index](x_bld, self._seen)
        return ((y_bld, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": y_bld})

    def __getstate__(self) -> Mapping[str, Any]:
        # Media belong to a forward pass; as part of autograd's graph they could not be copied.
        return {**self.__dict__, "_seen": None}


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
