"""Which modules of a vision-language model do what: found by what flows through them, then checked, not by name."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blindspot.errors import UserError


@dataclass(frozen=True)
class Roles:
    """The modules that diagnostics read and change.

    Attributes:
        tower_blocks: the image encoder's blocks that run, in order.
        layers: the language model's blocks, in order.
        rotary: modules that make (cos, sin) for the language model's attention.
    """

    tower_blocks: tuple[nn.Module, ...]
    layers: tuple[nn.Module, ...]
    rotary: tuple[nn.Module, ...]


@dataclass
class _Call:
    module: nn.Module
    took: Tensor | None
    gave: Any


@torch.no_grad()
def find_roles(model: Any, inputs: dict[str, Tensor]) -> Roles:
    """Run the model once and see which modules play which part.

    Args:
        model: an image-text model of transformers, or a variant.
        inputs: of one prompt with a picture.

    Raises:
        UserError: if no list of blocks fits the language model's width and the prompt's length, or none before it
            could be an image encoder's.
    """
    calls: list[_Call] = []
    with _recorded(model, calls):
        model(**inputs, use_cache=False)
    by_module = {id(call.module): call for call in reversed(calls)}
    order = {id(call.module): number for number, call in enumerate(calls)}
    lists = [list(module) for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    length, width = inputs["input_ids"].shape[1], model.get_output_embeddings().weight.shape[1]
    layers = max((_ran(blocks, by_module, lambda took: took.shape[1:] == (length, width)) for blocks in lists), key=len)
    if not layers:
        raise UserError(f"{type(model).__name__}: found no language-model blocks that take one vector a token")
    start = order[id(layers[0])]
    before = [[block for block in blocks if order.get(id(block), start) < start] for blocks in lists]
    stacks = [ran for blocks in before if (ran := _ran(blocks, by_module, lambda took: took.ndim in (2, 3)))]
    outer = [stack for stack in stacks if not any(_holds(other, stack[0]) for other in stacks if other is not stack)]
    if not outer:
        raise UserError(f"{type(model).__name__}: found no image-encoder blocks that run before the language model")
    tower = min(outer, key=lambda stack: order[id(stack[0])])  # a connector may have blocks too, and runs later
    turning = dict.fromkeys(call.module for call in calls if _is_rotary(call.gave, length))  # some run many times
    rotary = [module for module in turning if _owns(model, layers, module)]
    return Roles(tuple(tower), tuple(layers), tuple(rotary))


def _ran(blocks: list[nn.Module], by_module: dict[int, _Call], fits: Callable[[Tensor], bool]) -> list[nn.Module]:
    """Those of the blocks that ran, if each took a tensor that fits and gave one of its shape; else none."""
    ran = [call for block in blocks if (call := by_module.get(id(block))) is not None]
    for call in ran:
        if call.took is None or not fits(call.took) or call.took.shape != getattr(_first(call.gave), "shape", None):
            return []
    return [call.module for call in ran]


def _holds(stack: list[nn.Module], module: nn.Module) -> bool:
    return any(module is inner for block in stack for inner in block.modules() if inner is not block)


def _is_rotary(gave: Any, length: int) -> bool:
    if not (isinstance(gave, tuple) and len(gave) == 2 and all(isinstance(part, Tensor) for part in gave)):
        return False
    cos, sin = gave
    return cos.shape == sin.shape and cos.ndim >= 3 and cos.shape[-2] == length and cos.is_floating_point()


def _owns(model: Any, layers: list[nn.Module], module: nn.Module) -> bool:
    """Whether a module stands beside the language model's layers rather than inside the image encoder."""
    for owner in model.modules():
        children = list(owner.children())
        if any(isinstance(child, nn.ModuleList) and layers[0] in list(child) for child in children):
            return module in children
    return False


@contextmanager
def _recorded(model: nn.Module, calls: list[_Call]) -> Iterator[None]:
    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], gave: Any) -> None:
        took = _first(args)
        calls.append(_Call(module, kwargs.get("hidden_states", took) if took is None else took, gave))

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _first(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, tuple | list) and value:
        return _first(value[0])
    return None
