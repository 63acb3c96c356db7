"""What a diagnostic changes in a run, and the hooks that do it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from blindspot.errors import UserError

Part = Literal["encoder", "language"]


class Site(NamedTuple):
    """A place in the pipeline where states are read and changed: what enters block ``layer`` of a part.

    ``encoder`` layer 0 is what enters the image encoder's first block, the last layer what leaves its last; likewise
    ``language``, whose layer 0 at image tokens is what the connector gives.
    """

    part: Part
    layer: int


@dataclass(frozen=True)
class Edit:
    """A change to the states at a site: a function from and to a tensor of shape (batch, tokens, width)."""

    site: Site
    change: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Changes:
    """Everything that is to be different in a run.

    Attributes:
        edits: of states.
        language_places: whose place each token has in the language model, shape (batch, tokens): token t is rotated as
            token ``language_places[b, t]`` would be. Content and causal order stay.
        encoder_places: whose position each patch has in the encoder, shape (patches,), or ``zero`` for no positions.
        scores: added to attention scores of a language-model layer, by layer; shape (batch, 1, tokens, tokens).
    """

    edits: tuple[Edit, ...] = ()
    language_places: Tensor | None = None
    encoder_places: Tensor | Literal["zero"] | None = None
    scores: Mapping[int, Tensor] = field(default_factory=dict)


NOTHING = Changes()


@contextmanager
def on_state(module: nn.Module, before: bool, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let ``change`` see and replace the hidden states that enter (or leave) a block."""

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def leave(_: nn.Module, __: Any, gave: Any) -> Any:
        return (change(gave[0]), *gave[1:]) if isinstance(gave, tuple) else change(gave)

    hook = module.register_forward_pre_hook(enter, with_kwargs=True) if before else module.register_forward_hook(leave)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def placed(rotary: Sequence[nn.Module], places_bt: Tensor) -> Iterator[None]:
    """Let every token be rotated as another one: ``rotary`` modules give the other's (cos, sin)."""

    def turn(_: nn.Module, __: Any, gave: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return tuple(_gathered(part, places_bt) for part in gave)

    with ExitStack() as stack:
        for module in rotary:
            stack.callback(module.register_forward_hook(turn).remove)
        yield


@contextmanager
def added_scores(layer: nn.Module, scores_b1tt: Tensor) -> Iterator[None]:
    """Add to the attention mask that a language-model block is given.

    Raises:
        UserError: while it runs, if the block is given no mask of scores, as one of linear attention.
    """

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        mask = kwargs.get("attention_mask")
        if mask is None or mask.ndim != 4:
            raise UserError("this model has layers without attention scores, from which nothing can be hidden")
        if mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=scores_b1tt.dtype).masked_fill(~mask, float("-inf"))
        lowest = torch.finfo(mask.dtype).min
        return args, {**kwargs, "attention_mask": (mask + scores_b1tt.to(mask.dtype)).clamp_min(lowest)}

    hook = layer.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


def _gathered(angles: Tensor, places_bt: Tensor) -> Tensor:
    """``angles``, whose last dimensions are rows (or 1), tokens and channels, with every token's taken from another."""
    angles = angles.expand(*angles.shape[:-3], len(places_bt), *angles.shape[-2:])
    return angles.gather(-2, places_bt[..., None].expand(angles.shape))
