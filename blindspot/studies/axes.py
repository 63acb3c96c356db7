"""The axes in which arms differ: what values they take, from the registries, and how tables write these."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator
from pydantic_core import PydanticCustomError

from blindspot.connectors import RULES, ConnectorSpec
from blindspot.encoders import ENCODERS
from blindspot.errors import UserError, did_you_mean
from blindspot.positions import EncoderPositions, LanguagePositions, encoder, language
from blindspot.training import objectives

T = TypeVar("T")
UNSAID: Any = None
"""Of a key that is not given, or that means nothing in a study of this recipe: whoever reads it knows that it is."""

FAMILIES = {
    name: one.label for name, one in ENCODERS.items() if name in objectives.OBJECTIVES or one.variable_resolution
}
"""Encoder families that a study can train from nothing: those with an objective of their own, and those that take
pictures of any shape, for which an arm names one."""

OBJECTIVES = {**{name: one.label for name, one in objectives.OBJECTIVES.items()}, "none": "no pretraining"}
"""What pretrains an encoder."""

CAPTIONS = {"objects": "captions of objects", "places": "captions with places"}


@dataclass(frozen=True)
class Choice:
    """A value that has a short name, part of ids of arms and steps, a label as tables write it and, behind it, what
    `EncoderPositions`, `LanguagePositions` or `ConnectorSpec` is made from. Two choices of one name are the same."""

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
LANGUAGE_POSITIONS = _choices(language.SCHEMES)
CONNECTORS = {name: Choice(name, name.replace("_", " "), {"name": name}) for name in RULES}


def refuse(text: str, kind: Any = "refused") -> PydanticCustomError:
    """A mistake in a study, told in our own words."""
    return PydanticCustomError(kind, "{text}", {"text": text})


def known(name: Any, names: Collection[str]) -> Any:
    """``name``, if it is one of ``names``."""
    if not isinstance(name, str):
        raise refuse(f"{name}: should be one of: {', '.join(names)}")
    if name not in names:
        raise refuse(f'"{name}": unknown; {did_you_mean(name, names)}')
    return name


def one_of(names: Collection[str]) -> BeforeValidator:
    """That a value is one of some names."""
    return BeforeValidator(lambda name: known(name, names))


def _distinct(values: list[T]) -> list[T]:
    if any(value in values[:number] for number, value in enumerate(values)):
        raise refuse("names something twice; keep one of each")
    return values


NONE_BY_DEFAULT = Field(default_factory=list)
Training = Literal["trained", "frozen"]
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._+-]*$")]
Values = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]


class Section(BaseModel):
    """A group of keys: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    read_before: ClassVar[tuple[str, ...]] = ()
    """Keys that a file may have and that are read before it is checked."""

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        keys = (*cls.model_fields, *cls.read_before)
        for key in values if isinstance(values, Mapping) else ():
            if key not in cls.model_fields:
                raise refuse(f"{key}: unknown key; {did_you_mean(key, keys)}", "key")
        return values

    def stated(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of some keys that are given, in their order."""
        return {key: value for key in keys if (value := getattr(self, key)) is not None}


def _read(part: Any, key: str, of: Mapping[str, Choice], default: str | None = None) -> BeforeValidator:
    """Reads a name of ``of``, or the parameters of one whose name is under that ``key``.

    These are one of the named choices where they are alike, else a choice named after what they change of their own.
    """
    keys = [one.name for one in fields(part)]

    def parse(value: Any) -> Choice:
        if isinstance(value, Choice):
            return value
        if not isinstance(value, Mapping):
            return of[known(value, of)]
        for other in value:
            if other not in keys:
                raise refuse(f'"{other}": unknown key; {did_you_mean(other, keys)}')
        base = of[known(value.get(key, default), of)]
        values = {**base.values, **value, key: base.values[key]}
        try:
            part.from_dict(values)
        except UserError as error:
            raise refuse(str(error)) from None
        for choice in of.values():
            if values == choice.values:
                return choice
        changed = {name: one for name, one in values.items() if base.values.get(name) != one}
        parts = [re.sub(r"[^a-z0-9.]+", ".", f"{name}{one}").strip(".") for name, one in changed.items()]
        label = f"{base.label} ({', '.join(f'{name} {one}' for name, one in changed.items())})"
        return Choice("-".join([base.name, *parts]), label, values)

    return BeforeValidator(parse)


def _plain(of: Mapping[str, Choice]) -> PlainSerializer:
    return PlainSerializer(lambda choice: choice and (choice.name if choice.name in of else dict(choice.values)))


EncoderSite = Annotated[Choice, _read(EncoderPositions, "scheme", ENCODER_POSITIONS), _plain(ENCODER_POSITIONS)]
LanguageSite = Annotated[Choice, _read(LanguagePositions, "scheme", LANGUAGE_POSITIONS), _plain(LANGUAGE_POSITIONS)]
Connector = Annotated[Choice, _read(ConnectorSpec, "name", CONNECTORS, default="mlp"), _plain(CONNECTORS)]
