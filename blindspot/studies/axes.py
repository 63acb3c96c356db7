"""The axes in which arms differ: what values they take, from the registries, and how tables write these."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic_core import PydanticCustomError

from blindspot.connectors import RULES, ConnectorSpec
from blindspot.encoders import ENCODERS
from blindspot.errors import UserError, did_you_mean
from blindspot.positions import EncoderPositions, LanguagePositions, encoder, language
from blindspot.training import objectives

T = TypeVar("T")
UNSAID: Any = None
"""Of a key that is not given, or that means nothing in a study of this recipe: whoever reads it knows that it is."""

FAMILIES = {name: ENCODERS[name].label for name in objectives.OBJECTIVES if name in ENCODERS}
"""Encoder families that a study can train from nothing: those with an objective of their own."""

OBJECTIVES = {**{name: one.label for name, one in objectives.OBJECTIVES.items()}, "none": "no pretraining"}
"""What pretrains an encoder."""

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


def _choices(schemes: Mapping[str, Any]) -> dict[str, Choice]:
    return {
        name: Choice(name, label, {"scheme": scheme, **values})
        for scheme, one in schemes.items()
        for name, (label, values) in one.named.items()
    }


ENCODER_POSITIONS = _choices(encoder.SCHEMES)
"""Positional schemes of the encoder."""

LANGUAGE_POSITIONS = _choices(language.SCHEMES)
"""Positional schemes of image tokens in the language model."""

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


Part = type[EncoderPositions] | type[LanguagePositions] | type[ConnectorSpec]


def _scheme(named: Mapping[str, Choice], part: Part) -> Callable[[Any], Choice]:
    keys = [one.name for one in fields(part)]

    def parse(value: Any) -> Choice:
        if isinstance(value, Choice):
            return value
        if not isinstance(value, Mapping):
            return named[known(value, named)]
        for key in value:
            if key not in keys:
                raise refuse(f'"{key}": unknown key; {did_you_mean(key, keys)}')
        base = named[known(value.get("scheme"), named)]
        return _with(base, _valid(part, {**base.values, **value, "scheme": base.values["scheme"]}), named)

    return parse


def _connector(value: Any) -> Choice:
    if isinstance(value, Choice):
        return value
    if not isinstance(value, Mapping):
        return CONNECTORS[known(value, CONNECTORS)]
    values = _valid(ConnectorSpec, {"name": "mlp", **value})
    return _with(CONNECTORS[values["name"]], values, CONNECTORS)


def _valid(part: Part, values: dict[str, Any]) -> dict[str, Any]:
    try:
        part.from_dict(values)
    except UserError as error:
        raise refuse(str(error)) from None
    return values


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


_parse_encoder = _scheme(ENCODER_POSITIONS, EncoderPositions)
EncoderSite = Annotated[Choice, BeforeValidator(_parse_encoder), _plain(ENCODER_POSITIONS)]
LanguageSite = Annotated[
    Choice, BeforeValidator(_scheme(LANGUAGE_POSITIONS, LanguagePositions)), _plain(LANGUAGE_POSITIONS)
]
Connector = Annotated[Choice, BeforeValidator(_connector), _plain(CONNECTORS)]
Family = Annotated[str, BeforeValidator(lambda name: known(name, FAMILIES))]
Objective = Annotated[str, BeforeValidator(lambda name: known(name, OBJECTIVES))]
Captions = Annotated[str, BeforeValidator(lambda name: known(name, CAPTIONS))]
