"""Rotation of queries and keys inside any transformers attention module.

The rotation is an attention function registered with transformers: it turns q and k, then hands over to the
implementation (eager, sdpa, ...) that was configured before. What it needs stays on the attention module, because
SigLIP and AIMv2 do not forward keyword arguments to their attention function.
"""

import sys
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.masking_utils import eager_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from blindspot.positions.encoder import mixed
from blindspot.positions.encoder.patch_grid import PatchGrid
from blindspot.positions.encoder.rotary import Tables, rotate, spread

IMPLEMENTATION = "blindspot_rotary"


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
        angles_nhp = mixed.angles(self.places.coordinates(query_bhnd, masked), self.frequencies)
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
    """Self-attention modules of ``tower``.

    Raises:
        ValueError: if there is none.
    """
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

    Raises:
        ValueError: if the scheme cannot have the head dimension.
    """
    rule, base = places.positions.rule, places.positions.base
    inner = tower.config._attn_implementation or "eager"
    for module in attention_modules(tower):
        frequencies = None
        if rule.angles is not None:
            rule.angles(1, 1, module.head_dim, base)
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
    """Undo `install`, if it was called.

    Returns:
        The learned frequencies that were there.
    """
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
