"""Connectors: what turns patch features into tokens of the language model; their sizes and arithmetic need no torch."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from importlib import import_module
from math import isqrt
from typing import TYPE_CHECKING, Any, NamedTuple

from blindspot.errors import UserError, one_of
from blindspot.plugins import extend

if TYPE_CHECKING:
    from torch import nn
    from transformers import LlavaConfig

Grid = tuple[int, int]


class Rule(NamedTuple):
    """What a connector takes and gives."""

    implementation: "str | Callable[[ConnectorSpec, LlavaConfig], nn.Module]"
    """Its module in this folder and the class in it, which takes a spec and a config; of a plug-in what takes them and
    returns a module of torch."""
    defaults: Mapping[str, int | None]  # its own fields with their defaults; None may stay None
    output: Callable[["ConnectorSpec", Grid], Grid] | None
    """(spec, grid of patches) -> grid of its tokens; None where its tokens have no place in the image."""


def _same(spec: "ConnectorSpec", grid: Grid) -> Grid:
    return grid


def _pooled(spec: "ConnectorSpec", grid: Grid) -> Grid:
    factor = spec.size("factor")
    return -(-grid[0] // factor), -(-grid[1] // factor)


def _square(spec: "ConnectorSpec", grid: Grid) -> Grid:
    side = isqrt(spec.size("tokens"))
    return side, side


RULES: dict[str, Rule] = {
    "mlp": Rule("linear.Mlp", {}, _same),
    "linear": Rule("linear.Linear", {}, _same),
    "average_pooling": Rule("pooling.AveragePooling", {"factor": 2}, _pooled),
    "attention_pooling": Rule("pooling.AttentionPooling", {"factor": 2}, _pooled),
    "c_abstractor": Rule("pooling.CAbstractor", {"tokens": 144, "depth": 3}, _square),
    "qformer": Rule("queries.QFormer", {"tokens": 32, "depth": 12}, None),
    "resampler": Rule("queries.Resampler", {"tokens": 64, "depth": 6}, None),
    "gated_cross_attention": Rule("gated_cross_attention.GatedCrossAttention", {"tokens": None, "every": 4}, None),
}
extend("connectors", RULES, Rule)


@dataclass(frozen=True)
class ConnectorSpec:
    """A connector and its sizes. Fields that are left out take the connector's own defaults, as published."""

    name: str = "mlp"  # a key of `RULES`
    tokens: int | None = None
    """Tokens per image (``c_abstractor``: a square number; ``qformer`` and ``resampler``: learned queries;
    ``gated_cross_attention``: latents of a resampler in front of it, or None for every patch)."""
    factor: int | None = None  # patches along each side that become one token (the pooling connectors)
    depth: int | None = None  # blocks (``c_abstractor``: in each of its two stages)
    every: int | None = None
    """A block in front of every so many layers of the language model (``gated_cross_attention``)."""
    norm: bool | None = None
    """Whether a LayerNorm stands behind it, which holds its tokens to one length (not of ``gated_cross_attention``,
    which makes none). Source: Unseen Bias (arXiv 2512.08374)."""

    def __post_init__(self) -> None:
        one_of(self.name, RULES, "connector", "name")
        rule = RULES[self.name]
        for key in ("tokens", "factor", "depth", "every"):
            value = getattr(self, key)
            if key not in rule.defaults:
                if value is not None:
                    raise UserError(
                        f"connector {self.name} has no {key!r}; it takes {', '.join(rule.defaults) or 'no sizes'}"
                    )
                continue
            value = rule.defaults[key] if value is None else value
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise UserError(f"connector {self.name}: {key} must be a positive integer, got {value!r}")
            object.__setattr__(self, key, value)
        if self.norm is not None and (self.norm is not True or self.name == "gated_cross_attention"):
            raise UserError(f"connector {self.name}: norm is true or left out, and not of gated_cross_attention")
        if rule.output is _square and isqrt(self.size("tokens")) ** 2 != self.tokens:
            raise UserError(f"connector {self.name}: tokens must be a square number such as 144, got {self.tokens}")

    def size(self, key: str) -> int:
        """One of the connector's own sizes, which its defaults have filled in."""
        value = getattr(self, key)
        assert value is not None, f"connector {self.name} has no {key}"
        return value

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable form that `from_dict` reads back: the name and the connector's own sizes."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ConnectorSpec":
        """Read `to_dict`'s form; absent keys take their defaults."""
        if not isinstance(values, Mapping):
            raise UserError(f"connector: expected a name and sizes, such as {{name: mlp}}, got {values!r}")
        for key in values:
            one_of(key, [field.name for field in fields(cls)], "connector", "key")
        return cls(**values)


def output_grid(spec: ConnectorSpec, grid: Grid) -> Grid | None:
    """Rows and columns of the tokens that an image becomes, in raster order.

    Pooling by a factor f gives ceil(rows / f) by ceil(columns / f) tokens, for any grid: no patch is dropped. Token
    (i, j) of R by C pools the patch rows floor(i h / R) up to ceil((i + 1) h / R), and columns alike (the windows of
    adaptive pooling: equal where f divides the side, else some share a row or a column). ``c_abstractor`` always
    gives a square; where a side of the image has fewer patches than that, they are repeated.

    Args:
        grid: rows and columns of patches.

    Returns:
        None where the tokens have no place in the image (learned queries), or none but a placeholder enters the
        sequence (``gated_cross_attention``).
    """
    if min(grid) < 1:
        raise UserError(f"connector {spec.name}: a grid of {grid[0]} x {grid[1]} patches has nothing to connect")
    output = RULES[spec.name].output
    return output(spec, grid) if output else None


def output_tokens(spec: ConnectorSpec, grid: Grid) -> int:
    """Tokens of the language model that an image of this grid takes."""
    output = output_grid(spec, grid)
    if output:
        return output[0] * output[1]
    return 1 if spec.name == "gated_cross_attention" else spec.size("tokens")


def build(spec: ConnectorSpec, config: "LlavaConfig") -> "nn.Module":
    """A connector with random weights, to be a variant's ``multi_modal_projector``.

    Its ``forward(features_bnd, grid)`` takes the patch features of images of one grid, shape (images, rows * columns,
    width of the tower) in raster order, and returns tokens of shape (images, `output_tokens`, width of the language
    model). ``gated_cross_attention`` returns media instead; see `gated_cross_attention.GatedCrossAttention`.

    Linear, convolution and embedding weights get the start values of the model that holds it (transformers'
    ``_init_weights``: normal with ``initializer_range``); the rest is `gated_cross_attention.initialise`.
    """
    implementation = RULES[spec.name].implementation
    if not isinstance(implementation, str):
        connector = implementation(spec, config)
    else:
        module, kind = implementation.split(".")
        connector = getattr(import_module(f"blindspot.connectors.{module}"), kind)(spec, config)
    if spec.norm is None:
        return connector
    return import_module("blindspot.connectors.linear").Normed(connector, config)
