"""What a study says of models trained from nothing: their data, sizes and stages."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from blindspot.scenes.solid.registry import CUES
from blindspot.scenes.world import CANVAS
from blindspot.studies.axes import NONE_BY_DEFAULT, Count, Rate, Section, Training, one_of, refuse


class ToyStage(Section):
    """A stage of a miniature: Muon, ``steps`` of ``batch`` samples at the peak learning rate ``lr``."""

    recipe: Literal["toy"] = "toy"
    steps: Count
    batch: Count
    lr: Rate


class Pretraining(ToyStage):
    """A stage before stage 2, long enough if its loss is level at the end; else that is noted, or stops the study."""

    if_falling: Literal["note", "stop"] = "note"


class TextStage(Pretraining):
    """Text pretraining of the language model; ``about`` is what its text says about place.

    ``shared``: all seeds have the language model of the first.
    """

    about: Literal["plain", "raster", "mixed"]
    shared: bool = False


class EncoderStage(Pretraining):
    """Encoder pretraining; ``captions`` name objects only, or objects and places, unless an arm says otherwise."""

    captions: Literal["objects", "places"]


class InstructStage(ToyStage):
    """Stage 2; whether the ``encoder`` trains too (the paper's text) or is frozen (its public code).

    ``probes`` are the columns that are asked on the way, on a grid of steps.
    """

    encoder: Training
    probes: Annotated[list[str], NONE_BY_DEFAULT]


class Data(Section):
    """``train``: training images. ``test``: questions per column. ``probe``: likewise, of a split of its own that is
    asked on the way through stage 2. ``seed``: of the world, shared by everything. ``pictures``: heights and widths, at
    ``scale`` pixels to one, of pictures in which scenes lie anywhere; without, a scene fills its picture. ``cue``: what
    tells depth in training pictures of solids."""

    train: Count
    test: Count
    probe: Count = 400
    seed: Annotated[int, Field(ge=0)] = 0
    cue: Annotated[str, one_of(CUES)] = "shadow"
    scale: Count = 1
    pictures: Annotated[list[Annotated[list[Count], Field(min_length=2, max_length=2)]], NONE_BY_DEFAULT]

    @model_validator(mode="after")
    def _scenes_fit(self) -> Self:
        for height, width in self.pictures:
            if min(height, width) < CANVAS:
                raise refuse(f"pictures: {height} x {width} is smaller than a scene ({CANVAS} x {CANVAS})")
        return self


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
        if self.image % self.patch:
            raise refuse(f"image {self.image} is not a multiple of patch {self.patch}")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise refuse(
                f"width {self.width} over heads {self.heads} must give a multiple of 4 (rotary pairs for two axes)"
            )
        return self
