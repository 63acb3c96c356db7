"""The gated cross-attention of Flamingo: the language model reads the image beside its sequence, not inside it."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler

from blindspot.connectors import ConnectorSpec, Grid
from blindspot.connectors.linear import Linear
from blindspot.connectors.queries import Resampler
from blindspot.errors import UserError


class Visible(NamedTuple):
    """The images of a batch, as tokens at the width of the language model, and what one forward pass sees of them."""

    given: object  # the object that the images came in
    tokens_mnd: Tensor  # tokens of every image, padded to the longest
    real_mn: Tensor | None  # False at padding; None: nothing is padded
    kept: dict[int, tuple[Tensor, Tensor]]
    """Keys and values of each block, filled during inference for later steps of decoding."""
    images_br: Tensor  # the images of each row
    mask_b1lk: Tensor | None  # which of its row's image tokens (k = r * n) each token looks at; None: all of them
    sighted_bl1: Tensor  # tokens with an image before them; a block leaves the others as they are


def last_image(image_bl: Tensor) -> Tensor:
    """For each token the index of the last image up to it in its row, counted over the batch in reading order.

    Args:
        image_bl: True at image placeholders.

    Returns:
        Same shape, long; -1 where the row has had no image yet. A placeholder sees its own image.
    """
    seen_bl = image_bl.long().cumsum(1)
    earlier_b1 = seen_bl[:, -1:].cumsum(0) - seen_bl[:, -1:]
    return torch.where(seen_bl > 0, earlier_b1 + seen_bl - 1, -1)


def look(media: Tensor | Sequence[Tensor], last_image_bl: Tensor, before: Visible | None = None) -> Visible:
    """What each token sees, given the index of its image or -1.

    The images of a row follow each other, so a row is given those from its first to its last. A token without an
    image is masked as if it saw its row's first, because attention over nothing is not a number.

    Args:
        media: images of shape (m, n, d), or a sequence of (n, d) that may differ in n.
        last_image_bl: see `last_image`.
        before: what the step before saw; of the same object a step of one token goes on with its keys and values.
    """
    real_mn, kept = None, {}
    if before is not None and before.given is media and last_image_bl.shape[1] == 1:
        tokens_mnd, real_mn, kept = before.tokens_mnd, before.real_mn, before.kept
    elif isinstance(media, Tensor):
        tokens_mnd = media
    else:
        tokens_mnd = pad_sequence(list(media), batch_first=True)
        lengths_m1 = torch.tensor([[len(image)] for image in media], device=tokens_mnd.device)
        if len({len(image) for image in media}) > 1:
            real_mn = torch.arange(tokens_mnd.shape[1], device=tokens_mnd.device) < lengths_m1
    sighted_bl, highest = last_image_bl >= 0, last_image_bl.max()
    first_b1 = last_image_bl.where(sighted_bl, highest).amin(1, keepdim=True)
    which_bl = (last_image_bl - first_b1).clamp(min=0)
    index_r = torch.arange(int(which_bl.max()) + 1, device=which_bl.device)
    images_br = (first_b1 + index_r).clamp(max=highest)
    mask_b1lk = None
    if len(index_r) > 1 or real_mn is not None:
        mask_blrn = (which_bl[..., None] == index_r)[..., None].expand(-1, -1, -1, tokens_mnd.shape[1])
        if real_mn is not None:
            mask_blrn = mask_blrn & real_mn[images_br][:, None]
        mask_b1lk = mask_blrn.flatten(2)[:, None]
    return Visible(media, tokens_mnd, real_mn, kept, images_br, mask_b1lk, sighted_bl[..., None])


class GatedBlock(GradientCheckpointingLayer):
    """y = x + tanh(a) Attn(LN x, media); z = y + tanh(b) MLP(LN y); z = x for tokens without an image before them.

    Both gates start at 0, so a new block gives back x to the bit. Heads are those of the language model.
    """

    def __init__(self, config: Any, index: int) -> None:
        super().__init__()
        text = config.text_config
        width = text.hidden_size
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
        keys_values = seen.kept.get(self.index) if not torch.is_grad_enabled() else None
        if keys_values is None:
            keys_values = self._heads(self.key(seen.tokens_mnd)), self._heads(self.value(seen.tokens_mnd))
            if not torch.is_grad_enabled():
                seen.kept[self.index] = keys_values
        key_bhkd, value_bhkd = (
            states_mhnd[seen.images_br].transpose(1, 2).flatten(2, 3) for states_mhnd in keys_values
        )
        attended_bhld = F.scaled_dot_product_attention(query_bhld, key_bhkd, value_bhkd, attn_mask=seen.mask_b1lk)
        y_bld = x_bld + self.attention_gate.tanh() * self.output(attended_bhld.transpose(1, 2).flatten(2))
        y_bld = y_bld + self.mlp_gate.tanh() * self.mlp(y_bld)
        return torch.where(seen.sighted_bl1, y_bld, x_bld)

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

    def __init__(self, spec: ConnectorSpec, config: Any) -> None:
        super().__init__()
        self.every = spec.size("every")
        if spec.tokens:
            self.media = Resampler(ConnectorSpec("resampler", tokens=spec.tokens), config)
        else:
            self.media = Linear(ConnectorSpec("linear"), config)
        places = range(0, config.text_config.num_hidden_layers, self.every)
        self.blocks = nn.ModuleList(GatedBlock(config, index) for index in range(len(places)))
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
                image that it sees, -1 for none; see `last_image`.
        """
        before, self._seen = self._seen, None
        if media is not None and last_image_bl is not None and bool((last_image_bl >= 0).any()):
            self._seen = look(media, last_image_bl, before)

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
