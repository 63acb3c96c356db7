"""The axes in which arms differ: their names, what values they take, and how tables write these.

The engine imports no torch, so the names of positional schemes stand here once more; a test holds them against the
registries of `blindspot.positions`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from blindspot.connectors import RULES, ConnectorSpec
from blindspot.errors import UserError, did_you_mean

T = TypeVar("T")
UNSAID: Any = None
"""Of a key that is not given, or that means nothing in a study of this recipe: whoever reads it knows that it is."""


FAMILIES = {"clip": "CLIP", "siglip": "SigLIP", "siglip2": "SigLIP2", "aimv2": "AIMv2", "dinov2": "DINOv2"}
"""Encoder families that a study can train from nothing."""

WITH_CLS = frozenset({"clip", "dinov2"})

OBJECTIVES = {**FAMILIES, "none": "no pretraining"}
"""What pretrains an encoder."""

READ_CAPTIONS = frozenset({"clip", "siglip", "siglip2", "aimv2"})
"""Objectives that captions matter to."""

CAPTIONS = {"objects": "captions of objects", "places": "captions with places"}


@dataclass(frozen=True)
class Choice:
    """A value that has a name and, behind it, parameters. Two choices of one name are the same.

    Attributes:
        name: short and unique; part of ids of arms and steps.
        label: as tables and sentences write it.
        values: what `EncoderPositions`, `LanguagePositions` or `ConnectorSpec` is made from.
    """

    name: str
    label: str = field(compare=False)
    values: Mapping[str, Any] = field(compare=False)

    def __str__(self) -> str:
        return self.name


def _choices(table: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, Choice]:
    return {name: Choice(name, label, values) for name, (label, values) in table.items()}


ENCODER_POSITIONS = _choices(
    {
        "learned": ("learned positions", {"scheme": "learned"}),
        "none": ("no encoder positions", {"scheme": "learned", "table": "replace"}),
        "sincos": ("sin-cos table", {"scheme": "sincos", "table": "replace"}),
        "rope1d": ("1D-RoPE", {"scheme": "rope1d", "table": "replace"}),
        "axial": ("2D-RoPE", {"scheme": "axial", "table": "replace"}),
        "axial+keep": ("2D-RoPE and learned table", {"scheme": "axial", "table": "keep"}),
        "mixed": ("mixed 2D-RoPE", {"scheme": "mixed", "table": "replace"}),
        "released_concat": ("2D-RoPE as released", {"scheme": "released_concat", "table": "replace"}),
        "released_sum": ("2D-RoPE as released, sum", {"scheme": "released_sum", "table": "replace"}),
        "released_sqfreq": ("2D-RoPE as released, squared", {"scheme": "released_sqfreq", "table": "replace"}),
    }
)
"""Positional schemes of the encoder."""

ENCODER_KEYS = ("scheme", "base", "table", "convention")

LANGUAGE_POSITIONS = _choices(
    {
        "rope1d": ("LM 1D-RoPE", {"scheme": "rope1d"}),
        "row_break": ("LM row breaks", {"scheme": "row_break"}),
        "mrope": ("LM M-RoPE", {"scheme": "mrope"}),
        "mrope_swapped": ("LM M-RoPE, columns first", {"scheme": "mrope", "columns_first": True}),
        "mrope_reset": ("LM M-RoPE, reset", {"scheme": "mrope", "spatial_reset": True}),
        "mrope_interleaved": ("LM M-RoPE interleaved", {"scheme": "mrope", "interleaved": True}),
        "mrope_interleaved_reset": (
            "LM M-RoPE interleaved, reset",
            {"scheme": "mrope", "interleaved": True, "spatial_reset": True},
        ),
        "mhrope": ("LM multi-head RoPE", {"scheme": "mhrope"}),
        "rope_tie": ("LM RoPE-Tie", {"scheme": "rope_tie"}),
        "rope_tv": ("LM RoPE-TV", {"scheme": "rope_tv"}),
        "v2pe": ("LM V2PE", {"scheme": "v2pe"}),
        "bapa": ("LM BaPA", {"scheme": "bapa"}),
        "concentric": ("LM concentric", {"scheme": "concentric"}),
        "circle": ("LM Circle-RoPE", {"scheme": "circle"}),
    }
)
"""Positional schemes of image tokens in the language model."""

LANGUAGE_KEYS = ("scheme", "sections", "interleaved", "columns_first", "spatial_reset", "delta", "alpha", "radius")
WITHOUT_GRID = frozenset({"rope1d", "v2pe", "bapa"})
"""Language-site schemes that serve image tokens without rows and columns."""

CONNECTORS = {name: Choice(name, name.replace("_", " "), {"name": name}) for name in RULES}


def refuse(text: str) -> PydanticCustomError:
    """A mistake in a study, told in our own words."""
    return PydanticCustomError("refused", "{text}", {"text": text})


def known(name: Any, names: Collection[str]) -> Any:
    """``name``, if it is one of ``names``."""
    if not isinstance(name, str):
        raise refuse(f"{name}: should be one of: {', '.join(names)}")
    if name not in names:
        raise refuse(f'"{name}": unknown; {did_you_mean(name, names)}')
    return name


def _distinct(values: list[T]) -> list[T]:
    if any(value in values[:number] for number, value in enumerate(values)):
        raise refuse("names something twice; keep one of each")
    return values


Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._+-]*$")]
Values = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]


class Section(BaseModel):
    """A group of keys: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def stated(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of some keys that are given, in their order."""
        return {key: value for key in keys if (value := getattr(self, key)) is not None}


def _scheme(named: Mapping[str, Choice], keys: tuple[str, ...]) -> Callable[[Any], Choice]:
    def parse(value: Any) -> Choice:
        if isinstance(value, Choice):
            return value
        if not isinstance(value, Mapping):
            return named[known(value, named)]
        for key in value:
            if key not in keys:
                raise refuse(f'"{key}": unknown key; {did_you_mean(key, keys)}')
        base = named[known(value.get("scheme"), named)]
        return _with(base, {**base.values, **value, "scheme": base.values["scheme"]}, named)

    return parse


def _connector(value: Any) -> Choice:
    if isinstance(value, Choice):
        return value
    if not isinstance(value, Mapping):
        return CONNECTORS[known(value, CONNECTORS)]
    try:
        ConnectorSpec.from_dict(value)
    except UserError as error:
        raise refuse(str(error)) from None
    return _with(CONNECTORS[value.get("name", "mlp")], {"name": "mlp", **value}, CONNECTORS)


def _with(base: Choice, values: dict[str, Any], named: Mapping[str, Choice]) -> Choice:
    """The choice with these values: one of those that have a name, else one named after what it changes of ``base``."""
    for choice in named.values():
        if values == choice.values:
            return choice
    changed = {key: value for key, value in values.items() if base.values.get(key) != value}
    name = "-".join(
        [base.name, *(re.sub(r"[^a-z0-9.]+", ".", f"{key}{value}").strip(".") for key, value in changed.items())]
    )
    label = f"{base.label} ({', '.join(f'{key} {value}' for key, value in changed.items())})"
    return Choice(name, label, values)


def _plain(named: Mapping[str, Choice]) -> PlainSerializer:
    return PlainSerializer(lambda choice: choice and (choice.name if choice.name in named else dict(choice.values)))


_parse_encoder = _scheme(ENCODER_POSITIONS, ENCODER_KEYS)
EncoderSite = Annotated[Choice, BeforeValidator(_parse_encoder), _plain(ENCODER_POSITIONS)]
LanguageSite = Annotated[
    Choice, BeforeValidator(_scheme(LANGUAGE_POSITIONS, LANGUAGE_KEYS)), _plain(LANGUAGE_POSITIONS)
]
Connector = Annotated[Choice, BeforeValidator(_connector), _plain(CONNECTORS)]
Family = Annotated[str, BeforeValidator(lambda name: known(name, FAMILIES))]
Objective = Annotated[str, BeforeValidator(lambda name: known(name, OBJECTIVES))]
Captions = Annotated[str, BeforeValidator(lambda name: known(name, CAPTIONS))]
