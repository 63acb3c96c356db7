"""Makes the decoder of any transformers language model accept positions with several axes.

Its rotary module is wrapped: the module itself turns every axis' positions into cosines and sines, so frequencies,
scaling types and rounding stay its own, and the wrapper chooses for each channel the axis that the scheme gives it.
Nothing depends on the attention implementation, so none can drop a scheme.

Where heads turn differently, attention modules get cosines of one and sines of zero; queries and keys are turned where
the projections leave them. Keys enter the cache turned, so prefill and cached decoding agree, and the cosines travel
with the layer's arguments, so gradient checkpointing does too.
"""

from typing import Any

import torch
from torch import Tensor, nn

from blindspot.errors import UserError
from blindspot.positions.language import SCHEMES, LanguagePositions

# What lies between projection and rotation differs between models: nothing, or a norm over each head called q_norm.
KNOWN_PER_HEAD = ("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "smollm3")


class MultiAxisRotary(nn.Module):
    """Takes the place of a decoder's ``rotary_emb``.

    Args:
        inner: the decoder's own rotary module.
    """

    def __init__(self, inner: nn.Module, positions: LanguagePositions) -> None:
        super().__init__()
        self.inner = inner
        self.positions = positions
        self.scheme = SCHEMES[positions.scheme]
        self.handles: list[Any] = []

    def forward(self, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions.

        Args:
            x: hidden states, for their dtype and device.
            position_ids: shape (axes, batch, length), or (batch, length) for text, whose axes are equal.
            *args: handed on, as is everything else.
            **kwargs: likewise.

        Returns:
            Two tensors of shape (batch, length, channels), or (batch, length, key-value heads, channels) if heads
            turn differently.
        """
        config: Any = self.inner.config
        if self.scheme.rings and "flash" in str(config._attn_implementation):
            raise UserError(
                f"language positions {self.positions.scheme!r} need an attention mask of their own, which flash "
                "attention can't take; set the attention implementation to sdpa or eager"
            )
        ids_abl = position_ids if position_ids.ndim == 3 else position_ids[None]
        axes, batch, length = ids_abl.shape
        cos, sin = self.inner(x, ids_abl.reshape(axes * batch, length), *args, **kwargs)
        cos_ablc, sin_ablc = cos.view(axes, batch, length, -1), sin.view(axes, batch, length, -1)
        if self.scheme.per_head:
            axis_g = self.scheme.axes_of(config.num_key_value_heads, self.positions)
            heads = [axis if axes > 1 else 0 for axis in axis_g]
            return cos_ablc[heads].permute(1, 2, 0, 3), sin_ablc[heads].permute(1, 2, 0, 3)
        if axes == 1:
            return cos_ablc[0], sin_ablc[0]
        axis_p = self.scheme.axes_of(cos.shape[-1] // 2, self.positions)
        if axes <= max(axis_p):
            raise ValueError(f"positions with {axes} axes for a scheme with {max(axis_p) + 1}")
        return _choose(cos_ablc, axis_p), _choose(sin_ablc, axis_p)


def install(language_model: nn.Module, positions: LanguagePositions) -> None:
    """Make a transformers language model take the positions that `place` gives.

    What was installed before is undone first; ``rope1d`` leaves the model as transformers made it.
    Weights may be loaded and the attention implementation changed before or after. Afterwards call the model with an
    explicit attention mask: without one transformers reads repeated positions as packed documents.

    Args:
        language_model: a decoder (LlamaModel, ...) or a causal language model around one.
    """
    remove(language_model)
    if positions.scheme == "rope1d":
        return
    candidates = (language_model, getattr(language_model, "model", None))
    decoder: Any = next((one for one in candidates if hasattr(one, "rotary_emb") and hasattr(one, "layers")), None)
    if decoder is None:
        raise UserError(
            f"language positions {positions.scheme!r} need a language model with rotary positions in one module of its "
            f"own, as Llama has; {type(language_model).__name__} has none"
        )
    rotary = MultiAxisRotary(decoder.rotary_emb, positions)
    _refuse_if_unfit(decoder, rotary)
    rotary.handles.append(decoder.register_forward_pre_hook(_demand_mask, with_kwargs=True))
    for module in (layer.self_attn for layer in decoder.layers if hasattr(layer, "self_attn")):
        rotary.handles.append(module.register_forward_pre_hook(_forget_positions, with_kwargs=True))
        if rotary.scheme.per_head and getattr(module, "use_rope", True):  # SmolLM3 has layers without positions
            rotary.handles.append(module.register_forward_pre_hook(_take_over, with_kwargs=True))
            for source in _sources(module):
                source.turns_heads = True
                rotary.handles.append(source.register_forward_hook(_turn))
    decoder.rotary_emb = rotary


def remove(language_model: nn.Module) -> None:
    """Undo `install`; does nothing where nothing is installed."""
    decoder: Any = language_model if hasattr(language_model, "rotary_emb") else getattr(language_model, "model", None)
    rotary = getattr(decoder, "rotary_emb", None)
    if isinstance(rotary, MultiAxisRotary):
        decoder.rotary_emb = rotary.inner
        for handle in rotary.handles:
            handle.remove()


def angles(positions: LanguagePositions, ids_abl: Tensor, inv_freq: Tensor, kv_heads: int | None = None) -> Tensor:
    """By how much every rotary pair turns at every position, in radians.

    Args:
        ids_abl: positions, shape (axes, batch, length).
        inv_freq: frequency of each of D/2 pairs.
        kv_heads: key-value heads of the language model; only schemes that hand out heads ask for it.

    Returns:
        Shape (batch, length, D/2), or (batch, heads, length, D/2) if heads turn differently.
    """
    scheme = SCHEMES[positions.scheme]
    all_ablp = ids_abl[..., None].to(inv_freq.dtype) * inv_freq
    if scheme.per_head:
        if kv_heads is None:
            raise ValueError(f"language positions {positions.scheme!r} need the number of key-value heads")
        return all_ablp[list(scheme.axes_of(kv_heads, positions))].transpose(0, 1)
    axis_p = torch.tensor(scheme.axes_of(len(inv_freq), positions), device=ids_abl.device)
    return all_ablp.gather(0, axis_p.expand(1, *all_ablp.shape[1:]))[0]


def _refuse_if_unfit(decoder: Any, rotary: MultiAxisRotary) -> None:
    scheme, name, config = rotary.scheme, rotary.positions.scheme, decoder.config
    kind = f"language model {config.model_type!r}"
    layer_types = set(getattr(config, "layer_types", None) or ())
    if scheme.rings and layer_types - {"full_attention"}:
        raise UserError(
            f"language positions {name!r} bring an attention mask of their own, which would undo the sliding windows "
            f"of {kind}; use another scheme or a language model with full attention in every layer"
        )
    if scheme.per_head:
        if config.model_type not in KNOWN_PER_HEAD:
            raise UserError(
                f"language positions {name!r} turn heads differently, which is known to work for language models "
                f"{', '.join(KNOWN_PER_HEAD)}, not for {config.model_type!r}; use another scheme, such as 'mrope'"
            )
        scheme.axes_of(config.num_key_value_heads, rotary.positions)
    inner: Any = rotary.inner
    with torch.device("cpu"):  # cosines at position 1 for each kind of layer, from a copy: it may be without storage
        copied = type(inner)(inner.config)
        kinds = [(kind,) for kind in getattr(copied, "layer_types", ())] or [()]
        probes = [copied(torch.zeros(1), torch.ones(1, 1), *kind)[0][0, 0] for kind in kinds]
    for cos_c in probes:
        if not torch.equal(*cos_c.chunk(2)):
            raise UserError(
                f"language positions {name!r} need rotary pairs of channels k and k + D/2; {kind} pairs them otherwise"
            )
        if not scheme.per_head:
            scheme.axes_of(len(cos_c) // 2, rotary.positions)


def _choose(x_ablc: Tensor, axis_p: tuple[int, ...]) -> Tensor:
    axis_c = torch.tensor(axis_p * 2, device=x_ablc.device)
    chosen_blc = x_ablc[0]
    for axis in range(1, x_ablc.shape[0]):
        chosen_blc = torch.where(axis_c == axis, x_ablc[axis], chosen_blc)
    return chosen_blc


def _demand_mask(decoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
    if mask is None and kwargs.get("position_ids") is not None and kwargs.get("past_key_values") is None:
        raise ValueError(
            "positions of images need an explicit attention mask: without one transformers reads repeated positions "
            "as packed documents; pass a mask of ones"
        )


def _forget_positions(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    # They are in the cosines already; flash attention would take repeated ones for the borders of packed documents.
    return args, kwargs | {"position_ids": None}


def _sources(module: Any) -> list[Any]:
    return [getattr(module, f"{kind}_norm", None) or getattr(module, f"{kind}_proj") for kind in "qk"]


def _take_over(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    cos_blgc, sin_blgc = kwargs["position_embeddings"]
    for source in _sources(module):
        if not source.__dict__.get("turns_heads"):
            raise RuntimeError(
                "projections of the language model were replaced after its positions were installed, which would drop "
                "them: call blindspot.positions.language.rotation.install again"
            )
        source.turn = (cos_blgc, sin_blgc)
    still = (torch.ones_like(cos_blgc[:, :, 0]), torch.zeros_like(sin_blgc[:, :, 0]))
    return args, kwargs | {"position_embeddings": still}


def _turn(source: Any, args: Any, output: Tensor) -> Tensor:
    """``output`` is (batch, length, heads * D) or (batch, length, heads, D); g key-value heads serve r heads each."""
    cos_blgc, sin_blgc = (table[:, :, :, None] for table in source.turn)
    del source.turn
    _, length, groups, _, dim = cos_blgc.shape
    x_blgrd = output.reshape(-1, length, groups, output[0, 0].numel() // (groups * dim), dim)
    first, second = x_blgrd.chunk(2, dim=-1)
    turned_blgrd = x_blgrd * cos_blgc + torch.cat([-second, first], dim=-1) * sin_blgc
    return turned_blgrd.reshape(output.shape)
