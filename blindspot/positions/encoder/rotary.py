"""Turning channel pairs of queries and keys by tables of cosines and sines."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from blindspot.positions.encoder.scheme import Pairing


class Tables(NamedTuple):
    """What `rotate` multiplies with.

    Attributes:
        cos: shape (tokens, heads * D), or (batch, tokens, heads * D) where every image has its own grid.
        sin: likewise; negative for the first channel of every pair, so that turning is one product with a swapped copy
            and no negation.
        pairing: which channels of a head turn together.
        is_rotation: whether both channels of every pair turn by one angle.
    """

    cos: Tensor
    sin: Tensor
    pairing: Pairing = "halves"
    is_rotation: bool = True


class _Rotate(torch.autograd.Function):
    """x cos + partner(x) sin for tables that are not learned: keeps no activation for its gradient."""

    @staticmethod
    def forward(
        ctx: Any, x_bhnd: Tensor, cos_nc: Tensor, sin_nc: Tensor, pairing: Pairing, is_rotation: bool
    ) -> Tensor:
        ctx.save_for_backward(cos_nc, sin_nc)
        ctx.pairing, ctx.is_rotation = pairing, is_rotation
        return _turn(x_bhnd, cos_nc, sin_nc, pairing)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        cos_nc, sin_nc = ctx.saved_tensors
        # The transposed map is the map with the sines of each pair exchanged; in a rotation they differ in sign alone.
        if ctx.is_rotation:
            transposed_nc = -sin_nc
        else:
            transposed_nc = _partner(sin_nc.unflatten(-1, (-1, grads[0].shape[-1])), ctx.pairing).flatten(-2)
        back = Tables(cos_nc, transposed_nc, ctx.pairing, ctx.is_rotation)
        return rotate(grads[0], back), None, None, None, None


def rotate(x_bhnd: Tensor, tables: Tables) -> Tensor:
    """Turn the channel pairs of every head.

    Args:
        x_bhnd: queries or keys, shape (batch, heads, tokens, D).
        tables: in the dtype of ``x_bhnd``.
    """
    if tables.cos.requires_grad:
        return _turn(x_bhnd, tables.cos, tables.sin, tables.pairing)
    return _Rotate.apply(x_bhnd, *tables)  # pyright: ignore[reportReturnType]


def _turn(x_bhnd: Tensor, cos_nc: Tensor, sin_nc: Tensor, pairing: Pairing) -> Tensor:
    batch, heads, tokens, dim = x_bhnd.shape
    # Projections leave heads and channels side by side in memory; on that flat layout these operations are three
    # times as fast on a CPU as on four dimensions.
    x_bnhd = x_bhnd.transpose(1, 2)
    partner_bnc = _partner(x_bnhd, pairing).reshape(batch, tokens, heads * dim)
    turned_bnc = (x_bnhd.reshape(batch, tokens, heads * dim) * cos_nc).addcmul_(partner_bnc, sin_nc)
    return turned_bnc.view(batch, tokens, heads, dim).transpose(1, 2)


def _partner(x_d: Tensor, pairing: Pairing) -> Tensor:
    """Every channel's other half of its pair, along the last dimension."""
    if pairing == "halves":
        return x_d.roll(x_d.shape[-1] // 2, dims=-1)
    return x_d.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def tables_of(angles_np: Tensor, heads: int = 1, prefix_tokens: int = 0, pairing: Pairing = "halves") -> Tables:
    """The tables of `rotate`, in the dtype of the angles.

    Prefix tokens (CLS) have no place in the image: their rows are the identity.

    Args:
        angles_np: shape (patches, D/2), or (patches, D/2, 2) for each channel of a pair.
        heads: number of heads, all turning alike.
        prefix_tokens: tokens before the patches.
        pairing: which channels of a head turn together.
    """
    is_rotation = angles_np.ndim == 2
    angles_np2 = angles_np[..., None].expand(-1, -1, 2) if is_rotation else angles_np
    angles_np2 = torch.cat([angles_np2.new_zeros(prefix_tokens, *angles_np2.shape[1:]), angles_np2])
    cos_nd = spread(angles_np2.cos(), pairing)
    sin_nd = spread(angles_np2.sin() * angles_np2.new_tensor([-1, 1]), pairing)
    return Tables(cos_nd.repeat(1, heads), sin_nd.repeat(1, heads), pairing, is_rotation)


def spread(pairs_np2: Tensor, pairing: Pairing) -> Tensor:
    """Values of both channels of every pair, shape (..., D/2, 2) -> in the order of the channels, shape (..., D)."""
    return (pairs_np2.transpose(-1, -2) if pairing == "halves" else pairs_np2).flatten(-2)
