"""What a study says: the keys of its YAML file as typed, checked values."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from blindspot.studies.nearest import suggest

FAMILIES = {"clip": "CLIP", "siglip": "SigLIP", "siglip2": "SigLIP2", "aimv2": "AIMv2"}
"""Encoder families and how tables write them."""

POSITIONS = {"learned": "", "axial": "-2D-RoPE"}
"""Positional schemes of the encoder and the suffix that tables give an arm."""


def _known(names: Mapping[str, str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in names:
            raise PydanticCustomError("unknown_name", "{text}", {"text": f'"{name}": unknown; {suggest(name, names)}'})
        return name

    return AfterValidator(check)


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise PydanticCustomError("repeated", "{text}", {"text": "names something twice; keep one of each"})
    return names


Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Family = Annotated[str, _known(FAMILIES)]
Positions = Annotated[str, _known(POSITIONS)]


class Section(BaseModel):
    """A group of keys: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Arms(Section):
    """The arms: every family with every positional scheme.

    ``replicate`` names one arm, ``<family>-<positions>``, that is trained once more from other seeds: the noise floor.
    """

    families: Annotated[list[Family], Field(min_length=1), AfterValidator(_distinct)]
    positions: Annotated[list[Positions], Field(min_length=1), AfterValidator(_distinct)]
    replicate: str | None = None

    @model_validator(mode="after")
    def _replicate_is_an_arm(self) -> Self:
        names = [f"{family}-{positions}" for family in self.families for positions in self.positions]
        if self.replicate is not None and self.replicate not in names:
            text = f'replicate "{self.replicate}": not an arm of this study; {suggest(self.replicate, names)}'
            raise PydanticCustomError("unknown_arm", "{text}", {"text": text})
        return self


class Data(Section):
    """``train``: training images. ``test``: questions per column. ``seed``: of the world, shared by everything."""

    train: Count
    test: Count
    seed: Annotated[int, Field(ge=0)] = 0


class Model(Section):
    """Sizes shared by all arms: ``image`` and ``patch`` in pixels, ``mlp`` the hidden feed-forward width."""

    image: Count
    patch: Count
    width: Count
    heads: Count
    mlp: Count
    encoder_layers: Count
    language_layers: Count
    rotary_base: Annotated[float, Field(gt=1, allow_inf_nan=False)]

    @model_validator(mode="after")
    def _sizes_divide(self) -> Self:
        def wrong(text: str) -> PydanticCustomError:
            return PydanticCustomError("sizes", "{text}", {"text": text})

        if self.image % self.patch:
            raise wrong(f"image {self.image} is not a multiple of patch {self.patch}")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise wrong(
                f"width {self.width} over heads {self.heads} must give a multiple of 4 (rotary pairs for two axes)"
            )
        return self


class Recipe(Section):
    """Optimiser ``steps``, ``batch`` (samples a step) and peak learning rate ``lr``."""

    steps: Count
    batch: Count
    lr: Rate


class Text(Recipe):
    """Text pretraining of the language model; ``about`` is what its text says about place."""

    about: Literal["plain", "raster", "mixed"]


class Encoder(Recipe):
    """Encoder pretraining with the family's own objective; ``captions`` name objects only, or objects and places."""

    captions: Literal["objects", "places"]


class Instruct(Recipe):
    """Stage 2; whether the ``encoder`` trains too (the paper's text) or is frozen (its public code)."""

    encoder: Literal["trained", "frozen"]


class Study(Section):
    """A whole study, resolved at one scale."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    source: Literal["scenes", "nlvr"]
    arms: Arms
    seeds: Count
    data: Data
    model: Model
    text: Text
    encoder: Encoder
    connector: Recipe
    instruct: Instruct
    scale: str = "full"
    scales: dict[str, dict[str, Any]] = {}

    @property
    def meaningful(self) -> bool:
        """Whether the numbers answer the question; those of another scale than ``full`` only test the machinery."""
        return self.scale == "full"
