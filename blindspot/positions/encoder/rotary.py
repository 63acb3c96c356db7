"""Rotation of queries and keys inside any transformers attention module, by the places of the patches that it sees.

The rotation is an attention function registered with transformers: it turns q and k, then hands over to the
implementation (eager, sdpa, ...) that was configured before. What it needs stays on the attention module, because
SigLIP and AIMv2 do not forward keyword arguments to their attention function.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from blindspot.positions.encoder import EncoderPositions, Grid
from blindspot.positions.encoder.schemes import Pairing, mixed_angles

IMPLEMENTATION = "blindspot_rotary"


class Tables(NamedTuple):
    """What `rotate` multiplies with."""

    cos: Tensor  # shape (tokens, heads * D), or (batch, tokens, heads * D) where every image has its own grid
    sin: Tensor
    """Likewise; negative for the first channel of every pair, so that turning is one product with a swapped copy and no
    negation."""
    pairing: Pairing = "halves"  # which channels of a head turn together
    is_rotation: bool = True  # whether both channels of every pair turn by one angle


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


class _Recent:
    """The last results of a computation, by key; a copy begins without any."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Any]) -> Any:
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            # Tables made inside inference_mode could not be used for training later.
            with torch.inference_mode(False), torch.no_grad():
                self._kept[key] = make()
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        return self._kept[key]

    def __deepcopy__(self, memo: object) -> "_Recent":
        return _Recent(self._size)

    def __reduce__(self) -> Any:
        return _Recent, (self._size,)


class PatchGrid:
    """The grids of the images that a tower is given, shared by its attention modules.

    Tables are computed when they are first needed, on the device and in the dtype of the queries, and kept: a tower
    can be moved, cast and copied freely.
    """

    def __init__(self, positions: EncoderPositions, grid: Grid, prefix_tokens: int) -> None:
        self.positions = positions
        self.prefix_tokens = prefix_tokens
        self.grids: tuple[Grid, ...] = (grid,)
        self._per_grid = _Recent(64)  # native aspect ratios come in dozens
        self._per_batch = _Recent(4)

    def set(self, grids: Sequence[Grid]) -> None:
        """See `set_grids`."""
        named = tuple((int(height), int(width)) for height, width in grids)
        if not named or any(height < 1 or width < 1 for height, width in named):
            raise ValueError(f"grids need at least one patch each, got {named}")
        self.grids = named[:1] if len(set(named)) == 1 else named

    def fixed(self, query_bhnd: Tensor, masked: bool) -> Tables:
        """Tables of a scheme that is not learned, for queries of this shape.

        Args:
            masked: whether an attention mask may hide tokens beyond an image's patches.
        """
        self._check(query_bhnd, masked)
        key = (self.grids, *query_bhnd.shape[1:], query_bhnd.dtype, query_bhnd.device)

        def make() -> Tables:
            _, heads, tokens, dim = query_bhnd.shape
            per_grid = [self._per_grid.get((grid, dim), partial(self._of_grid, grid, dim)) for grid in self.grids]
            cos_nd = self._rows([tables.cos for tables in per_grid], tokens, 1.0)
            sin_nd = self._rows([tables.sin for tables in per_grid], tokens, 0.0)
            precise = torch.float64 if query_bhnd.dtype == torch.float64 else torch.float32
            cos_nc, sin_nc = (
                x_nd.to(precise).to(query_bhnd.device).to(query_bhnd.dtype).repeat(*[1] * (x_nd.ndim - 1), heads)
                for x_nd in (cos_nd, sin_nd)
            )
            return Tables(cos_nc, sin_nc, per_grid[0].pairing, per_grid[0].is_rotation)

        return self._per_batch.get(key, make)

    def coordinates(self, query_bhnd: Tensor, masked: bool) -> Tensor:
        """Row and column of every token, shape (tokens, 2) or (batch, tokens, 2), float32; others are at (0, 0)."""
        self._check(query_bhnd, masked)
        tokens = query_bhnd.shape[2]
        key = (self.grids, tokens, query_bhnd.device)

        def make() -> Tensor:
            with torch.device("cpu"):
                places = [torch.cartesian_prod(torch.arange(h), torch.arange(w)).view(-1, 2) for h, w in self.grids]
                return self._rows(places, tokens, 0.0, self.prefix_tokens).to(query_bhnd.device, torch.float32)

        return self._per_batch.get(key, make)

    def _check(self, query_bhnd: Tensor, masked: bool) -> None:
        batch, _, tokens, _ = query_bhnd.shape
        if len(self.grids) not in (1, batch):
            raise ValueError(f"positions are set for {len(self.grids)} images, but the encoder is given {batch}")
        needed = self.prefix_tokens + max(height * width for height, width in self.grids)
        if tokens < needed or (tokens > needed and not masked):
            shown = ", ".join(f"{height} x {width}" for height, width in dict.fromkeys(self.grids))
            raise ValueError(
                f"the encoder is given {tokens} tokens, but positions are set for patches of {shown} and "
                f"{self.prefix_tokens} prefix tokens: call blindspot.positions.encoder.attach.set_grids first"
            )

    def _of_grid(self, grid: Grid, head_dim: int) -> Tables:
        rule = self.positions.rule
        assert rule.angles is not None
        with torch.device("cpu"):  # a default device may lack float64, or be meta
            angles_np = rule.angles(*grid, head_dim, self.positions.base)
            return tables_of(angles_np, prefix_tokens=self.prefix_tokens, pairing=rule.pairing)

    def _rows(self, per_grid: Sequence[Tensor], tokens: int, filler: float, prefix: int = 0) -> Tensor:
        padded = [F.pad(x_nd, (0, 0, prefix, tokens - prefix - len(x_nd)), value=filler) for x_nd in per_grid]
        return padded[0] if len(padded) == 1 else torch.stack(padded)


class Rotation(nn.Module):
    """How one attention module turns its queries and keys; its submodule ``rotation``.

    Attributes:
        places: shared by the modules of a tower.
        inner: the attention implementation that does the attention itself.
        frequencies: learned ones, or None.
    """

    frequencies: nn.Parameter | None

    def __init__(self, places: PatchGrid, inner: str, frequencies: nn.Parameter | None) -> None:
        super().__init__()
        self.places = places
        self.inner = inner
        self.guard: Any = None
        self.register_parameter("frequencies", frequencies)

    def tables(self, query_bhnd: Tensor, masked: bool) -> Tables:
        """The tables for these queries; see `PatchGrid.fixed`."""
        if self.frequencies is None:
            return self.places.fixed(query_bhnd, masked)
        angles_nhp = mixed_angles(self.places.coordinates(query_bhnd, masked), self.frequencies)
        cos_nhp, sin_nhp = angles_nhp.cos(), angles_nhp.sin()
        cos_nc, sin_nc = (
            spread(torch.stack(pair, dim=-1), "halves").flatten(-2).to(query_bhnd.dtype)
            for pair in ((cos_nhp, cos_nhp), (-sin_nhp, sin_nhp))
        )
        return Tables(cos_nc, sin_nc)


def is_attention(module: nn.Module) -> bool:
    """Whether ``module`` is a transformers self-attention, told by its structure."""
    return all(hasattr(module, name) for name in ("q_proj", "k_proj", "head_dim"))


def attention_modules(tower: nn.Module) -> list[Any]:
    """Self-attention modules of ``tower``."""
    found = [module for module in tower.modules() if is_attention(module)]
    if not found:
        raise ValueError(f"{type(tower).__name__} has no attention module with q_proj, k_proj and head_dim")
    return found


def patch_grid_of(tower: nn.Module) -> PatchGrid | None:
    """The places that the attention of ``tower`` turns by, or None if it does not turn."""
    first: Any = next((module for module in tower.modules() if is_attention(module)), None)
    return first.rotation.places if first is not None and hasattr(first, "rotation") else None


def install(tower: PreTrainedModel, places: PatchGrid, learned: dict[nn.Module, nn.Parameter]) -> None:
    """Make every attention module of ``tower`` turn q and k.

    Args:
        tower: an image encoder; its configured attention implementation goes on doing the attention itself.
        places: where its patches are, and how they turn.
        learned: frequencies to go on with, where the scheme learns them.
    """
    rule, base = places.positions.rule, places.positions.base
    inner = tower.config._attn_implementation or "eager"
    for module in attention_modules(tower):
        frequencies = None
        if rule.angles is not None:
            rule.angles(1, 1, module.head_dim, base)  # refuses a head dimension that it cannot have
        elif rule.frequencies is not None:
            weight = module.q_proj.weight
            start_ahp = rule.frequencies(module.q_proj.out_features // module.head_dim, module.head_dim, base)
            frequencies = learned.get(module)
            if frequencies is None or frequencies.shape != start_ahp.shape:
                frequencies = nn.Parameter(start_ahp.to(weight.device))
        module.rotation = Rotation(places, inner, frequencies)
        module.rotation.guard = module.register_forward_pre_hook(_refuse_if_bypassed)
    tower.set_attn_implementation(IMPLEMENTATION)


def remove(tower: PreTrainedModel) -> dict[nn.Module, nn.Parameter]:
    """Undo `install`, if it was called; returns the learned frequencies that were there."""
    turning: list[Any] = [module for module in tower.modules() if is_attention(module) and hasattr(module, "rotation")]
    if turning and tower.config._attn_implementation == IMPLEMENTATION:
        tower.set_attn_implementation(turning[0].rotation.inner)
    learned = {}
    for module in turning:
        if module.rotation.frequencies is not None:
            learned[module] = module.rotation.frequencies
        module.rotation.guard.remove()
        del module.rotation
    return learned


def _refuse_if_bypassed(module: Any, args: Any) -> None:
    if module.config._attn_implementation != IMPLEMENTATION:
        raise RuntimeError(
            "the attention implementation was changed after rotary positions were attached, which would drop them: "
            "call blindspot.positions.encoder.attach.attach again"
        )


def _rotary_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    tables = module.rotation.tables(query, attention_mask is not None)
    query_bhnd, key_bhnd = rotate(query, tables), rotate(key, tables)
    if module.rotation.inner == "eager":
        # Contiguous heads save its batched product two slower copies.
        query_bhnd, key_bhnd = query_bhnd.contiguous(), key_bhnd.contiguous()
        # transformers keeps no global eager function: each model file has its own.
        attend = sys.modules[type(module).__module__].eager_attention_forward
    else:
        attend = ALL_ATTENTION_FUNCTIONS[module.rotation.inner]
    return attend(module, query_bhnd, key_bhnd, value, attention_mask, **kwargs)


AttentionInterface.register(IMPLEMENTATION, _rotary_attention)
# An additive mask is the one form that both eager and sdpa accept.
AttentionMaskInterface.register(IMPLEMENTATION, eager_mask)
