"""What a study of real size says: the keys of its YAML file as typed, checked values."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from blindspot.studies.axes import Connector, EncoderSite, LanguageSite
from blindspot.studies.paper.datasets import Data
from blindspot.studies.spec import Count, Rate, Replicate, Section, Values

KIND = "llava"
Part = Literal["connector", "language_model", "encoder"]
Share = Annotated[float, Field(ge=0, lt=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._+-]*$")]


class Stage(Section):
    """A training stage.

    Attributes:
        trains: the parts that learn; the others are frozen.
        data: ``llava-pretrain``, ``llava-mix665k``, or the keys of a `DataSet` of one's own.
        template: how a conversation becomes text: ``plain`` (image, caption) or ``v1`` (USER, ASSISTANT).
        batch: samples of an optimiser step, over all GPUs and accumulation.
        lr: peak learning rate.
        encoder_lr: that of the encoder, if it trains; by default ``lr``.
        warmup: share of the steps in which the rate rises from 0.
        schedule: what it does then: ``cosine``, to 0.
        epochs: passes over the data.
        max_length: tokens of a sample, image included; what is over is cut off.
        aspect_ratio: ``square`` leaves pictures to the encoder's own preprocessing, ``pad`` first fills them to a
            square with the mean colour.
        clip: the gradient's norm is cut to this.

    The optimiser is AdamW without weight decay, betas 0.9 and 0.999, as in LLaVA-1.5's scripts.
    """

    trains: Values[Part]
    data: Data
    template: Literal["plain", "v1"]
    batch: Count
    lr: Rate
    encoder_lr: Rate | None = None
    warmup: Share
    schedule: Literal["cosine"]
    epochs: Count
    max_length: Count
    aspect_ratio: Literal["square", "pad"]
    clip: Rate = 1.0


class StageChanges(Section):
    """What an arm does otherwise than the study in one stage; keys of `Stage`."""

    trains: Values[Part] | None = None
    data: Data | None = None
    template: Literal["plain", "v1"] | None = None
    batch: Count | None = None
    lr: Rate | None = None
    encoder_lr: Rate | None = None
    warmup: Share | None = None
    epochs: Count | None = None
    max_length: Count | None = None
    aspect_ratio: Literal["square", "pad"] | None = None
    clip: Rate | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The keys that are given."""
        return self.stated(type(self).model_fields)


class Stages(Section):
    """Stage 1 (``connector``) and stage 2 (``instruct``)."""

    connector: Stage
    instruct: Stage


class Changes(Section):
    """Likewise, of one arm."""

    connector: StageChanges = StageChanges()
    instruct: StageChanges = StageChanges()


class Axes(Section):
    """Where an arm stands on each axis; an axis that is not given takes its default.

    Attributes:
        encoder: a checkpoint: Hugging Face id or folder.
        image_size: side of the square image in pixels; by default that of the checkpoint.
        positions: how the encoder knows places; by default ``learned``, what the checkpoint was trained with.
        evaluate_with: its positions at evaluation; by default those it was trained with.
        drop_first_patch: the released defect of SigLIP, whose first patch is taken for a CLS token.
        connector: what stands between encoder and language model; by default ``mlp``.
        connector_from: an arm whose stage 1 this one starts stage 2 from, instead of one of its own.
        language_model: a checkpoint: Hugging Face id or folder.
        language_positions: how the language model places image tokens; by default ``rope1d``.
    """

    encoder: str | None = None
    image_size: Count | None = None
    positions: EncoderSite | None = None
    evaluate_with: EncoderSite | None = None
    drop_first_patch: bool | None = None
    connector: Connector | None = None
    connector_from: Name | None = None
    language_model: str | None = None
    language_positions: LanguageSite | None = None

    @property
    def given(self) -> dict[str, Any]:
        """The axes that are given."""
        return self.stated(Axes.model_fields)


class Named(Axes):
    """One arm, by name.

    Attributes:
        id: in commands and folder names.
        label: how tables write it.
        group: heads its rows in tables.
        stages: what it does otherwise than the study.
        against: arms that it is compared with.
    """

    id: Name
    label: str
    group: str = ""
    stages: Changes = Changes()
    against: Annotated[list[Name], Field(default_factory=list)]


class Arms(Section):
    """``base``: where all arms stand unless they say otherwise. ``replicate``: the arm that gives the noise floor."""

    base: Axes = Axes()
    named: Annotated[list[Named], Field(min_length=1)]
    replicate: Annotated[Replicate, BeforeValidator(lambda of: {"of": of} if isinstance(of, str) else of)] | None = None


class PaperStudy(Section):
    """A whole study.

    Attributes:
        name: of its run folder.
        title: one line.
        kind: tells it from a study of drawn scenes.
        arms: what is compared.
        stages: how every arm is trained.
        seeds: how often.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    title: str
    kind: Literal["llava"]
    arms: Arms
    stages: Stages
    seeds: Count
