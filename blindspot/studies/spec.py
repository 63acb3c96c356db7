"""What a study says: the keys of its YAML file as typed, checked values."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from blindspot.diagnostics.names import NAMES as DIAGNOSTICS
from blindspot.studies.axes import Captions, Connector, EncoderSite, Family, LanguageSite, Objective, known, refuse

T = TypeVar("T")


def _distinct(values: list[T]) -> list[T]:
    if any(value in values[:number] for number, value in enumerate(values)):
        raise refuse("names something twice; keep one of each")
    return values


Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Training = Literal["trained", "frozen"]
Values = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]


class Section(BaseModel):
    """A group of keys: unknown keys and silent conversions are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def stated(self, keys: Iterable[str]) -> dict[str, Any]:
        """Those of some keys that are given, in their order."""
        return {key: value for key in keys if (value := getattr(self, key)) is not None}


class Axes(Section):
    """Where an arm stands on each axis; an axis that is not given takes its default.

    Attributes:
        family: architecture of the encoder.
        objective: what pretrains it; by default the family's own.
        captions: what the captions of its pretraining name; by default as ``encoder.captions`` says.
        positions: how it knows places; by default ``learned``.
        pretrained_with: how it did so while it was pretrained; by default alike.
        language_positions: how the language model places image tokens; by default ``rope1d``.
        connector: what stands between encoder and language model; by default ``mlp``.
        encoder_training: whether the encoder trains in stage 2; by default as ``instruct.encoder`` says.
        drop_first_patch: the released defect of SigLIP, whose first patch is taken for a CLS token.
        evaluate_with: the encoder's positions at evaluation; by default those it was trained with.
    """

    family: Family | None = None
    objective: Objective | None = None
    captions: Captions | None = None
    positions: EncoderSite | None = None
    pretrained_with: EncoderSite | None = None
    language_positions: LanguageSite | None = None
    connector: Connector | None = None
    encoder_training: Training | None = None
    drop_first_patch: bool | None = None
    evaluate_with: EncoderSite | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The axes that are given, in their order."""
        return self.stated(AXES)


AXES = tuple(Axes.model_fields)


class Named(Axes):
    """One arm, by name. ``group`` heads its rows in tables."""

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._+-]*$")]
    label: str
    group: str = ""


class Cross(Section):
    """Every combination of values of some axes. ``group`` heads their rows in tables."""

    family: Values[Family] | None = None
    objective: Values[Objective] | None = None
    captions: Values[Captions] | None = None
    positions: Values[EncoderSite] | None = None
    pretrained_with: Values[EncoderSite] | None = None
    language_positions: Values[LanguageSite] | None = None
    connector: Values[Connector] | None = None
    encoder_training: Values[Training] | None = None
    drop_first_patch: Values[bool] | None = None
    evaluate_with: Values[EncoderSite] | None = None
    group: str = ""

    @property
    def given(self) -> dict[str, list[Any]]:
        """The crossed axes in their order, each with its values."""
        return self.stated(AXES)


class Baselines(Section):
    """For each axis the values that the others are compared with; ``same`` is the default of its axis."""

    family: Values[Family] | None = None
    objective: Values[Objective] | None = None
    captions: Values[Captions] | None = None
    positions: Values[EncoderSite] | None = None
    pretrained_with: Literal["same"] | None = None
    language_positions: Values[LanguageSite] | None = None
    connector: Values[Connector] | None = None
    encoder_training: Values[Training] | None = None
    drop_first_patch: Values[bool] | None = None
    evaluate_with: Literal["same"] | None = None

    @property
    def given(self) -> dict[str, list[Any]]:
        """The axes with baselines, in their order."""
        return {axis: value if isinstance(value, list) else [value] for axis, value in self.stated(AXES).items()}


class Replicate(Section):
    """The arm that is trained once more from other seeds, and what to call it."""

    of: str
    label: str | None = None


def _replicate(value: Any) -> Any:
    return {"of": value} if isinstance(value, str) else value


def _crosses(value: Any) -> Any:
    return [value] if isinstance(value, dict) else value


class Arms(Section):
    """The arms: ``families`` with ``positions`` in the short form, else ``cross`` and ``named`` over ``base``.

    Attributes:
        families: short for a cross of these families with ``positions``.
        positions: see ``families``.
        base: where all arms of ``cross`` and ``named`` stand unless they say otherwise.
        cross: combinations of values.
        named: single arms.
        compare: which values the others are compared with; by default the first of every crossed axis but ``family``.
        replicate: the arm that gives the noise floor.
    """

    families: Values[Family] | None = None
    positions: Values[EncoderSite] | None = None
    base: Axes = Axes()
    cross: Annotated[list[Cross], BeforeValidator(_crosses)] = []
    named: list[Named] = []
    compare: Baselines | None = None
    replicate: Annotated[Replicate, BeforeValidator(_replicate)] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        short, long = self.families is not None or self.positions is not None, bool(self.cross or self.named)
        if short == long:
            raise refuse("give families and positions, or else cross or named")
        if short and (self.families is None or self.positions is None or self.base.given):
            raise refuse("the short form has families and positions, and no base")
        return self

    @property
    def crosses(self) -> list[Cross]:
        """The combinations, those of the short form too."""
        if self.families is None:
            return self.cross
        return [Cross(family=self.families, positions=self.positions)]

    @property
    def baselines(self) -> dict[str, list[Any]]:
        """What to compare with, axis by axis."""
        if self.compare is not None:
            return self.compare.given
        first: dict[str, list[Any]] = {}
        for cross in self.crosses:
            for axis, values in cross.given.items():
                learned = [value for value in values if str(value) == "learned"]
                first.setdefault(axis, (learned or values)[:1])
        return {axis: first[axis] for axis in AXES if axis in first and axis != "family"}


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
        if self.image % self.patch:
            raise refuse(f"image {self.image} is not a multiple of patch {self.patch}")
        if self.width % self.heads or (self.width // self.heads) % 4:
            raise refuse(
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
    """Encoder pretraining; ``captions`` name objects only, or objects and places, unless an arm says otherwise."""

    captions: Literal["objects", "places"]


class Instruct(Recipe):
    """Stage 2; whether the ``encoder`` trains too (the paper's text) or is frozen (its public code)."""

    encoder: Training


DiagnosticName = Annotated[str, BeforeValidator(lambda name: known(name, DIAGNOSTICS))]


class Hypothesis(Section):
    """A claim that the study puts to the test.

    Attributes:
        claim: the explanation, in a sentence.
        test: what is compared to test it, in a sentence.
        contrast: arms with weights that sum to zero; the effect is the weighted sum of their scores.
        predicts: whether the claim says that the effect is ``positive``, ``negative`` or ``zero``.
        column: whose scores.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    claim: str
    test: str
    contrast: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    predicts: Literal["positive", "negative", "zero"]
    column: str

    @model_validator(mode="after")
    def _weights_cancel(self) -> Self:
        if not any(self.contrast.values()) or abs(sum(self.contrast.values())) > 1e-9:
            raise refuse(f'contrast of "{self.id}": weights of two or more arms that sum to zero')
        return self


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
    hypotheses: list[Hypothesis] = []
    diagnose: list[DiagnosticName] = []
    scale: str = "full"
    scales: dict[str, dict[str, Any]] = {}

    @property
    def meaningful(self) -> bool:
        """Whether the numbers answer the question; those of another scale than ``full`` only test the machinery."""
        return self.scale == "full"
