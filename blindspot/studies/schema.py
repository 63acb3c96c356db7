"""What a study says: the keys of its YAML file as typed, checked values. Of any size: drawn scenes or 7B models.

An arm axis is one field of `Axes`. What a study crosses, compares and calls controlled, names and labels of arms and
steps, all derive from these fields and from what their `Axis` says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Discriminator, Field, PlainSerializer, Tag, create_model, model_validator
from pydantic.fields import FieldInfo

from blindspot.diagnostics.registry import DIAGNOSTICS
from blindspot.scenes.solid.registry import TAUGHT
from blindspot.studies.axes import (
    CAPTIONS,
    CONNECTORS,
    FAMILIES,
    LANGUAGE_POSITIONS,
    NONE_BY_DEFAULT,
    OBJECTIVES,
    UNSAID,
    Connector,
    Count,
    EncoderSite,
    LanguageSite,
    Name,
    Rate,
    Section,
    Training,
    Values,
    known,
    one_of,
    refuse,
)
from blindspot.studies.toy import Data, EncoderStage, InstructStage, Model, Pretraining, TextStage

Id = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
Aspect = Literal["squash", "pad", "crop", "native"]


class DataSet(Section):
    """A LLaVA JSON and the folder that its rows' ``image`` starts from, in the data folder or absolute.

    ``text_tokens`` is the mean of a sample without its image, template included; ``supervised_tokens`` are those of
    answers, which alone reach the head. ``blindspot data check`` counts them.
    """

    file: Annotated[str, Field(min_length=1)]
    images: str = "."
    rows: Count | None = None
    with_image: Annotated[int, Field(ge=0)] | None = None
    text_tokens: Count | None = None
    supervised_tokens: Count | None = None

    @model_validator(mode="after")
    def _parts_are_no_larger_than_the_whole(self) -> Self:
        for part, whole in (("with_image", "rows"), ("supervised_tokens", "text_tokens")):
            few, many = getattr(self, part), getattr(self, whole)
            if few is not None and many is not None and few > many:
                raise refuse(f"{part} {few}: more than there are {whole} ({many})")
        return self

    @property
    def name(self) -> str:
        """Of a published set; empty for one's own."""
        return next((name for name, published in DATA_SETS.items() if published == self), "")


DATA_SETS = {
    "llava-pretrain": DataSet(
        file="LLaVA-Pretrain/blip_laion_cc_sbu_558k.json",
        images="LLaVA-Pretrain/images",
        rows=558_128,
        with_image=558_128,
        text_tokens=31,
        supervised_tokens=30,
    ),
    "llava-mix665k": DataSet(
        file="llava_v1_5_mix665k.json",
        images=".",
        rows=665_298,
        with_image=624_610,  # the others are ShareGPT's, text only
        text_tokens=300,
        supervised_tokens=160,  # 30 % of a row with its image, the middle of an estimate of 20-40 %
    ),
}
"""The sets of LLaVA-1.5, laid out as its README has them under ``playground/data``. Rows: its scripts and JSON; tokens
of text are estimates of the mean row."""

LlavaData = Annotated[
    DataSet,
    BeforeValidator(lambda value: value if isinstance(value, dict | DataSet) else DATA_SETS[known(value, DATA_SETS)]),
    PlainSerializer(lambda data: data.name or data.model_dump(exclude_none=True)),
]


class LlavaStage(Section):
    """A stage on data in LLaVA's form: AdamW without weight decay, betas 0.9 and 0.999, as LLaVA-1.5 trains.

    ``batch`` counts samples over all GPUs and accumulation; the rate rises from 0 to ``lr`` in a ``warmup`` share of
    the steps, then falls to 0; a sample is cut off at ``max_length`` tokens, image included; ``aspect_ratio`` ``pad``
    fills pictures to a square with the mean colour, ``square`` leaves them to the encoder's own preprocessing.
    """

    recipe: Literal["llava"]
    trains: Values[Literal["connector", "language_model", "encoder"]]
    data: LlavaData
    template: Literal["plain", "v1"]
    batch: Count
    lr: Rate
    encoder_lr: Rate | None = None  # that of ``lr``
    warmup: Annotated[float, Field(ge=0, lt=1)]
    schedule: Literal["cosine"]
    epochs: Rate
    max_length: Count
    aspect_ratio: Literal["square", "pad"]
    clip: Rate = 1.0

    @property
    def steps(self) -> int:
        """Optimiser steps; the last batch may be smaller, and 0 stands for rows that are not counted."""
        return ceil((self.data.rows or 0) * self.epochs / self.batch)


def _type(field: FieldInfo) -> Any:
    return Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation


if TYPE_CHECKING:
    StageChanges = Section
else:
    StageChanges = create_model(
        "StageChanges",
        __base__=Section,
        **{key: (_type(field), UNSAID) for key, field in LlavaStage.model_fields.items() if key != "recipe"},
    )


class RecipeChanges(Section):
    """What an arm does otherwise than the study: keys of `LlavaStage`, by stage."""

    connector: StageChanges = StageChanges()
    instruct: StageChanges = StageChanges()

    def of(self, stage: str) -> dict[str, Any]:
        """The keys that are given for a stage."""
        changes = getattr(self, stage)
        return changes.stated(type(changes).model_fields)


@dataclass(frozen=True)
class Axis:
    """What is said of an axis wherever arms are named and compared."""

    moves: str  # what moves along it
    label: Callable[[Any], str] = attrgetter("label")  # how tables and sentences write a value
    others: str = ""  # what values other than a baseline are called together
    only: str = ""  # the recipe whose arms alone have it; empty: all
    crossed: bool = True  # whether values of it may be crossed
    default: Any = None  # where it stands by default, which names of arms leave out; None: see `arms.resolve`
    follows: str = ""  # the axis where it stands by default
    same: str = ""  # what it is called where it stands there


class Axes(Section):
    """Where an arm stands on each axis; an axis that is not given takes its default (`arms.resolve`).

    A checkpoint is a Hugging Face id or a folder. ``connector_from`` names an arm from whose stage 1 this one starts
    stage 2, instead of one of its own; ``stages`` says what it does otherwise than the study. ``drop_first_patch`` is
    the released defect of SigLIP, whose first patch is taken for a CLS token. Of a miniature ``image_size`` and
    ``patch_size`` are by default the study's, ``layer`` the last; ``connector_objective`` comes before stage 1, by
    default none; ``reduced_to`` and ``aspect``: see `corpus.EncoderView`.
    """

    family: Annotated[str, one_of(FAMILIES), Axis("encoder", FAMILIES.__getitem__, "another family", "toy")] = UNSAID
    encoder: Annotated[str, Axis("pretrained weights", str, "another encoder", "llava")] = UNSAID
    image_size: Annotated[Count, Axis("image side in pixels", "{} px".format, "other resolution")] = UNSAID
    patch_size: Annotated[Count, Axis("patch side in pixels", "patches of {} px".format, "other patches", "toy")] = (
        UNSAID
    )
    reduced_to: Annotated[
        Count, Axis("pixels that pictures are reduced to", "reduced to {} px".format, "other pictures", "toy")
    ] = UNSAID
    aspect: Annotated[
        Aspect, Axis("what becomes of pictures that are not square", str, "other shapes of pictures", "toy")
    ] = UNSAID
    layer: Annotated[int, Axis("layer of the encoder that is read", "layer {}".format, "another layer", "toy")] = UNSAID
    language_model: Annotated[str, Axis("language model", str, "another language model", "llava")] = UNSAID
    objective: Annotated[
        str,
        one_of(OBJECTIVES),
        Axis("pretraining objective", OBJECTIVES.__getitem__, "another objective", "toy", follows="family"),
    ] = UNSAID
    captions: Annotated[
        str,
        one_of(CAPTIONS),
        Axis("what captions name", lambda value: CAPTIONS[value] if value else "no captions", "other captions", "toy"),
    ] = UNSAID
    positions: Annotated[EncoderSite, Axis("encoder positions", others="other encoder positions")] = UNSAID
    pretrained_with: Annotated[
        EncoderSite,
        Axis(
            "positions in pretraining",
            lambda value: f"pretrained with {value.label}",
            "positions that the encoder was not pretrained with",
            "toy",
            follows="positions",
            same="positions that it was pretrained with",
        ),
    ] = UNSAID
    language_positions: Annotated[
        LanguageSite,
        Axis(
            "positions in the language model",
            others="other positions in the language model",
            default=LANGUAGE_POSITIONS["rope1d"],
        ),
    ] = UNSAID
    connector: Annotated[Connector, Axis("connector", others="another connector", default=CONNECTORS["mlp"])] = UNSAID
    connector_objective: Annotated[
        Literal["blip2"],
        Axis("what the connector is pretrained by", "pretrained as {}".format, "other pretraining", "toy"),
    ] = UNSAID
    connector_from: Annotated[Name, Axis("where stage 1 comes from", str, only="llava", crossed=False)] = UNSAID
    encoder_training: Annotated[
        Training, Axis("the encoder in stage 2", lambda value: f"encoder {value}", "the encoder otherwise", "toy")
    ] = UNSAID
    drop_first_patch: Annotated[
        bool,
        Axis(
            "patches", lambda value: "first patch dropped" if value else "all patches", "other patches", default=False
        ),
    ] = UNSAID
    evaluate_with: Annotated[
        EncoderSite,
        Axis(
            "positions at evaluation",
            lambda value: f"evaluated with {value.label}",
            "other positions at evaluation than in training",
            follows="positions",
            same="those of training",
        ),
    ] = UNSAID
    evaluate_size: Annotated[
        Count, Axis("image side at evaluation", "evaluated at {} px".format, "other resolution at evaluation", "toy")
    ] = UNSAID
    stages: Annotated[RecipeChanges, Axis("the recipe", str, only="llava", crossed=False)] = UNSAID

    @property
    def given(self) -> dict[str, Any]:
        """The axes that are given, in their order."""
        return self.stated(AXES)

    @property
    def plain(self) -> dict[str, Any]:
        """Names of the values, for ``plan.json``."""
        return {axis: value if isinstance(value, bool) else str(value) for axis, value in self.given.items()}

    def __hash__(self) -> int:
        return hash(tuple(self.plain.items()))


AXES: dict[str, Axis] = {
    name: next(one for one in field.metadata if isinstance(one, Axis)) for name, field in Axes.model_fields.items()
}
"""What is said of each axis, by its key."""


def _crossed(values: Callable[[str, Any], Any]) -> dict[str, Any]:
    """A field for each axis that may be crossed; ``values`` is its type, from the axis and the type of a value."""
    return {
        name: (values(name, _type(field)), UNSAID) for name, field in Axes.model_fields.items() if AXES[name].crossed
    }


class _Crossed(Section):
    group: str = ""

    @property
    def given(self) -> dict[str, list[Any]]:
        """The axes that are given, each with its values."""
        stated = self.stated(name for name in AXES if name in type(self).model_fields)
        return {axis: value if isinstance(value, list) else [value] for axis, value in stated.items()}


if TYPE_CHECKING:
    Cross = Baselines = _Crossed
else:
    Cross = create_model(
        "Cross",
        __base__=_Crossed,
        __doc__="Every combination of values of some axes. ``group`` heads their rows in tables.",
        **_crossed(lambda axis, value: Values[value]),
    )
    Baselines = create_model(
        "Baselines",
        __base__=_Crossed,
        __doc__="Per axis the values that the others are compared with; ``same`` is where the axis stands by default.",
        **_crossed(lambda axis, value: Literal["same"] if AXES[axis].same else Values[value]),
    )


def _paper_row(name: Any) -> str:
    from blindspot.evaluation.paper import load  # which most studies need not load

    return known(name, load().roles)


PaperRow = Annotated[str, BeforeValidator(_paper_row)]
"""The row of the paper's tables that an arm or a model repeats; unsaid: the one of its label, if there is one."""


class NamedArm(Axes):
    """One arm, by name. ``group`` heads its rows in tables; it is compared with the arms ``against`` it."""

    id: Name
    label: str
    group: str = ""
    paper: PaperRow = UNSAID
    against: Annotated[list[Name], NONE_BY_DEFAULT]


class Replicate(Section):
    """The arm that is trained once more from other seeds, and what to call it."""

    of: str
    label: str | None = None


class Arms(Section):
    """The arms: ``families`` with ``positions`` in the short form, else ``cross`` and ``named`` over ``base``.

    ``compare`` says which values the others are compared with; by default the first of every crossed axis but the
    encoder. The ``replicate`` gives the noise floor.
    """

    families: Values[Annotated[str, one_of(FAMILIES)]] | None = None
    positions: Values[EncoderSite] | None = None
    base: Axes = Axes()
    cross: Annotated[list[Cross], BeforeValidator(lambda one: [one] if isinstance(one, dict) else one), NONE_BY_DEFAULT]
    named: Annotated[list[NamedArm], NONE_BY_DEFAULT]
    compare: Baselines | None = None
    replicate: Annotated[Replicate, BeforeValidator(lambda of: {"of": of} if isinstance(of, str) else of)] | None = None

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
        return [Cross(**{"family": self.families, "positions": self.positions})]

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
        return {axis: first[axis] for axis in AXES if axis in first and axis not in ("family", "encoder")}


class Claim(Section):
    """A claim that the study puts to the test, in a sentence each, by a weighted sum over some arms.

    ``outcome``: of their scores, or of the logarithms of their steps to ``level``, a score of probes. ``column`` is
    one, or a mean of several (``means`` of the study). ``margin``: how small an effect is none, in points of a score or
    as a factor of time.
    """

    id: Id
    claim: str
    test: str
    contrast: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    predicts: Literal["positive", "negative", "zero"]
    column: str
    outcome: Literal["score", "time"] = "score"
    level: Annotated[float, Field(gt=0, le=1)] | None = None
    margin: Rate | None = None

    @model_validator(mode="after")
    def _of_its_outcome(self) -> Self:
        if self.level is not None and self.outcome == "score":
            raise refuse(f'level of "{self.id}": the score that a time is taken to; remove it, or outcome: time')
        if self.margin is not None and not (self.margin > 1 if self.outcome == "time" else self.margin < 100):
            kind = "a factor above 1" if self.outcome == "time" else "points, below 100"
            raise refuse(f'margin of "{self.id}": {self.margin:g}; {kind}')
        return self

    @model_validator(mode="after")
    def _weights_cancel(self) -> Self:
        if not any(self.contrast.values()) or abs(sum(self.contrast.values())) > 1e-9:
            raise refuse(f'contrast of "{self.id}": weights of two or more arms that sum to zero')
        return self


class EvaluatedModel(Section):
    """A model that is evaluated beside the arms and not trained: a Hugging Face id, a folder, or a server's address.

    A server serves several under names; ``served`` is this one's, and ``key_env`` the environment variable of its key.
    ``block`` heads its row in tables.
    """

    id: Name
    label: str
    paper: PaperRow = UNSAID
    model: Annotated[str, Field(min_length=1)]
    served: str | None = None
    key_env: str | None = None
    block: str = "Frontier models"

    @property
    def remote(self) -> bool:
        """Whether a server answers for it."""
        return self.model.startswith(("http://", "https://"))

    @model_validator(mode="after")
    def _a_server_says_which(self) -> Self:
        if self.remote and self.served is None:
            raise refuse(f"{self.model} may serve several models; name one with served")
        if not self.remote and (self.served or self.key_env):
            raise refuse(f"served and key_env are a server's, and {self.model} is no address (http://...)")
        return self


RECIPES = Discriminator(
    lambda stage: str(stage.get("recipe", "toy") if isinstance(stage, Mapping) else getattr(stage, "recipe", "toy")),
    custom_error_type="recipe",
    custom_error_message="recipe: unknown; one of: toy, llava",
)
REHEARSAL = "rehearsal"
"""The scale at which a study of real size runs on drawn data and checkpoints of a few thousand weights."""
LONG = "long"
"""The scale of a study whose numbers mean more than those of ``full``."""
TOY_ONLY = ("source", "data", "model", "text", "encoder")
"""Keys of a study whose models are trained from nothing."""


def _benchmark(name: Any) -> str:
    from blindspot.benchmarks.registry import BENCHMARKS, SETS, brought  # which most studies need not load

    if isinstance(name, str) and brought(name):
        return str(Path(name).resolve())  # which workers and later calls find from wherever they are
    return known(name, (*SETS, *BENCHMARKS))


class Study(Section):
    """A whole study, resolved at one scale. What a study of released checkpoints has no use for is None there.

    ``about`` says on its page what it asks and why, to a reader who knows neither.
    ``benchmarks`` are what models of real size are asked, by default the paper's eleven; a path is a user's own
    questions, and a miniature is asked the columns of its source. ``models`` are asked the same and not trained.
    ``means`` name means of columns, for claims.
    ``scales`` hold values that replace those of the study, by scale.
    """

    read_before = ("extends",)

    name: Id
    title: str
    about: str = ""
    source: Literal["scenes", "solid", "motion", "views", "nlvr"] = UNSAID
    arms: Arms
    seeds: Count
    data: Data = UNSAID
    model: Model = UNSAID
    text: TextStage = UNSAID
    encoder: EncoderStage = UNSAID
    connector: Annotated[Annotated[Pretraining, Tag("toy")] | Annotated[LlavaStage, Tag("llava")], RECIPES]
    instruct: Annotated[Annotated[InstructStage, Tag("toy")] | Annotated[LlavaStage, Tag("llava")], RECIPES]
    benchmarks: Annotated[list[Annotated[str, BeforeValidator(_benchmark)]], NONE_BY_DEFAULT]
    models: Annotated[list[EvaluatedModel], NONE_BY_DEFAULT]
    hypotheses: Annotated[list[Claim], NONE_BY_DEFAULT]
    means: Annotated[dict[Id, Annotated[list[str], Field(min_length=2)]], Field(default_factory=dict)]
    diagnose: Annotated[list[Annotated[str, one_of(DIAGNOSTICS)]], NONE_BY_DEFAULT]
    scale: str = "full"
    scales: Annotated[dict[str, dict[str, Any]], Field(default_factory=dict)]

    @model_validator(mode="after")
    def _one_recipe(self) -> Self:
        if self.connector.recipe != self.instruct.recipe:
            raise refuse("connector and instruct have different recipes; give both the same")
        for key in TOY_ONLY:
            if (getattr(self, key) is None) == (self.recipe == "toy"):
                raise refuse(
                    f"{key}: missing; every study states it"
                    if self.recipe == "toy"
                    else f"{key}: is of models trained from nothing; remove it, or the recipe llava"
                )
        if self.recipe == "toy" and (self.data.pictures or self.data.scale > 1):
            if self.source != "scenes":
                raise refuse("data: pictures and scale are of drawn scenes; remove them")
            if self.diagnose:
                raise refuse(
                    "diagnose: shows scenes that fill their picture; remove it, or data.pictures and data.scale"
                )
        if self.recipe == "toy" and self.source in TAUGHT:
            for key, unfit in (("diagnose", self.diagnose), ("text.about", self.text.about != "plain")):
                if unfit:
                    raise refuse(f"{key}: is of flat scenes; remove it")
        if self.recipe == "toy" and self.source != "solid" and self.data.cue != "shadow":
            raise refuse("data.cue: is of pictures with depth (source: solid); remove it")
        if self.benchmarks and self.recipe == "toy":
            raise refuse("benchmarks: a miniature is asked the columns of its source; remove it")
        if self.models and self.recipe == "toy":
            raise refuse("models: are asked benchmarks, and a miniature is asked the columns of its source; remove it")
        return self

    @property
    def asked(self) -> str:
        """Names of benchmarks and sets that its models are asked, with commas between."""
        return ",".join(self.benchmarks) or "paper"

    @property
    def recipe(self) -> str:
        """``toy``: everything is trained from nothing; ``llava``: from released checkpoints on LLaVA's data."""
        return self.instruct.recipe

    @property
    def encoder_training(self) -> Training:
        """Whether a miniature's encoders train in stage 2, unless an arm says otherwise."""
        assert isinstance(self.instruct, InstructStage)
        return self.instruct.encoder

    @property
    def rehearsed(self) -> bool:
        """Whether a study of real size is run at a ten-thousandth of its size, on what it makes itself."""
        return self.recipe == "llava" and self.scale == REHEARSAL

    @property
    def released(self) -> bool:
        """Whether it starts from released checkpoints and real data."""
        return self.recipe == "llava" and not self.rehearsed

    @property
    def meaningful(self) -> bool:
        """Whether the numbers answer the question; those of other scales than these only test the machinery."""
        return self.scale in ("full", LONG)
