"""Rotation of queries and keys inside any transformers attention module.

The rotation is an attention function registered with transformers: it turns q and k by the angles kept on the
attention module, then hands over to the implementation (eager, sdpa, ...) that was configured before. The angles stay
on the module because SigLIP and AIMv2 do not forward keyword arguments to their attention function.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

IMPLEMENTATION = "blindspot_rotary"


class _Rotate(torch.autograd.Function):
    """x cos + partner(x) sin, whose gradient is the same rotation backwards: half of autograd's work saved."""

    @staticmethod
    def forward(ctx: Any, x_bhnd: Tensor, cos_nc: Tensor, sin_nc: Tensor) -> Tensor:
        ctx.save_for_backward(cos_nc, sin_nc)
        batch, heads, tokens, dim = x_bhnd.shape
        # Projections leave heads and channels side by side in memory; on that flat layout these operations are three
        # times as fast on a CPU as on four dimensions.
        x_bnhd = x_bhnd.transpose(1, 2)
        partner_bnc = x_bnhd.roll(dim // 2, dims=-1).reshape(batch, tokens, heads * dim)
        turned_bnc = (x_bnhd.reshape(batch, tokens, heads * dim) * cos_nc).addcmul_(partner_bnc, sin_nc)
        return turned_bnc.view(batch, tokens, heads, dim).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        cos_nc, sin_nc = ctx.saved_tensors
        return rotate(grads[0], cos_nc, -sin_nc), None, None


def rotate(x_bhnd: Tensor, cos_nc: Tensor, sin_nc: Tensor) -> Tensor:
    """Turn channel pairs (k, k + D/2) of every head.

    Args:
        x_bhnd: queries or keys, shape (batch, heads, tokens, D).
        cos_nc: as returned by `cos_sin`, in the dtype of ``x_bhnd``.
        sin_nc: likewise.
    """
    return _Rotate.apply(x_bhnd, cos_nc, sin_nc)  # pyright: ignore[reportReturnType]


def cos_sin(angles_np: Tensor, heads: int, prefix_tokens: int) -> tuple[Tensor, Tensor]:
    """The two tables of `rotate`, from angles of shape (patches, D/2) and in their dtype.

    Prefix tokens (CLS) have no place in the image: their rows are the identity. The sine carries a minus sign in the
    first half of each head, so that rotating is one product with a swapped copy and no negation.

    Returns:
        Two tensors of shape (prefix_tokens + patches, heads * D).
    """
    padded_np = torch.cat([angles_np.new_zeros(prefix_tokens, angles_np.shape[1]), angles_np])
    cos_np, sin_np = padded_np.cos(), padded_np.sin()
    return torch.cat([cos_np, cos_np], dim=1).repeat(1, heads), torch.cat([-sin_np, sin_np], dim=1).repeat(1, heads)


def attention_modules(tower: nn.Module) -> list[Any]:
    """Self-attention modules of ``tower``, found by structure.

    Raises:
        ValueError: if there is none.
    """
    found = [module for module in tower.modules() if all(hasattr(module, n) for n in ("q_proj", "k_proj", "head_dim"))]
    if not found:
        raise ValueError(f"{type(tower).__name__} has no attention module with q_proj, k_proj and head_dim")
    return found


def install(tower: PreTrainedModel, angles: Callable[[int], Tensor], prefix_tokens: int) -> None:
    """Make every attention module of ``tower`` rotate q and k.

    Args:
        tower: an image encoder; its configured attention implementation goes on doing the attention itself.
        angles: head dimension D -> angles of shape (patches, D/2).
        prefix_tokens: leading tokens that are not rotated.
    """
    inner = tower.config._attn_implementation
    for module in attention_modules(tower):
        weight = module.q_proj.weight
        cos_nc, sin_nc = cos_sin(angles(module.head_dim), weight.shape[0] // module.head_dim, prefix_tokens)
        module.register_buffer("rotary_cos", cos_nc.to(weight.device, torch.float32), persistent=False)
        module.register_buffer("rotary_sin", sin_nc.to(weight.device, torch.float32), persistent=False)
        module.rotary_inner = inner
        module.rotary_guard = module.register_forward_pre_hook(_refuse_if_bypassed)
    tower.set_attn_implementation(IMPLEMENTATION)


def remove(tower: PreTrainedModel) -> None:
    """Undo `install`; does nothing on a tower without rotation."""
    rotated = [module for module in attention_modules(tower) if hasattr(module, "rotary_inner")]
    if rotated and tower.config._attn_implementation == IMPLEMENTATION:
        tower.set_attn_implementation(rotated[0].rotary_inner)
    for module in rotated:
        module.rotary_guard.remove()
        for name in ("rotary_cos", "rotary_sin", "rotary_inner", "rotary_guard"):
            delattr(module, name)


def _refuse_if_bypassed(module: Any, args: Any) -> None:
    if module.config._attn_implementation != IMPLEMENTATION:
        raise RuntimeError(
            "the attention implementation was changed after rotary positions were attached, which would drop them: "
            "call blindspot.positions.attach again"
        )


def _rotary_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    cos_nc, sin_nc = module.rotary_cos.to(query.dtype), module.rotary_sin.to(query.dtype)
    # Contiguous heads save the batched product of eager attention two slower copies.
    query_bhnd = rotate(query, cos_nc, sin_nc).contiguous()
    key_bhnd = rotate(key, cos_nc, sin_nc).contiguous()
    return _inner_attention(module)(module, query_bhnd, key_bhnd, value, attention_mask, **kwargs)


def _inner_attention(module: Any) -> Callable[..., tuple[Tensor, Tensor | None]]:
    if module.rotary_inner == "eager":
        # transformers keeps no global eager function: each model file has its own.
        return sys.modules[type(module).__module__].eager_attention_forward
    return ALL_ATTENTION_FUNCTIONS[module.rotary_inner]


AttentionInterface.register(IMPLEMENTATION, _rotary_attention)
# An additive mask is the one form that both eager and sdpa accept.
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
