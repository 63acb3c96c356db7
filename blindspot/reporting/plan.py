"""What ``plan.json`` in a run folder says: arms, columns, pairs and steps."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from blindspot.errors import UserError
from blindspot.evaluation.items import Term
from blindspot.files import parse_json, sha256_file
from blindspot.reporting.text import clean

Text = Annotated[str, AfterValidator(clean)]


class Arm(BaseModel):
    """One configuration.

    Attributes:
        id: as in steps and answers.
        label: as tables write it.
        axes: where it stands on each axis of the study.
        block: heading of its rows in tables.
        panel: what it shares a panel and a colour of figures with, where the study crosses two axes; else empty.
        marker: what it shares a mark with there; else empty.
        baseline: whether that mark is open and its curve dashed: what others are compared with.
        replicate_of: the arm that it repeats with other seeds.
    """

    id: Text
    label: Text
    axes: dict[str, Text | bool | None] = Field(default_factory=dict)
    block: Text = ""
    panel: Text = ""
    marker: Text = ""
    baseline: bool = False
    replicate_of: Text | None = None

    @property
    def hue(self) -> str:
        """What it shares a colour with."""
        return self.panel or self.block

    @property
    def short(self) -> str:
        """The label without the carrier that all variants share, for narrow places."""
        return self.label.removeprefix("LLaVA-")


class Pair(BaseModel):
    """A comparison: arm ``a`` minus arm ``b``; ``first`` and ``second`` say what the pairs of a ``kind`` compare."""

    a: Text
    b: Text
    label: Text
    kind: Text
    first: Text = "the first arm"
    second: Text = "the second"


class Column(BaseModel):
    """One column of the tables.

    ``paper`` is the benchmark of the paper that it stands for, ``relative`` whether it only resembles that one;
    ``benchmark`` is that of its questions, by default its id; ``terms`` are summed; ``english`` asks its question, with
    ``{0}`` for the first word of a prompt; ``baselines`` are scores of rules that need no model; ``parts`` are subsets
    that are also scored on their own: name -> group of questions -> its values there.
    """

    id: Text
    label: Text
    paper: Text = ""
    benchmark: Text = ""
    metric: Literal["accuracy", "pair_accuracy", "mean_iou"] = "accuracy"
    terms: list[Term] = Field(default_factory=lambda: [Term()])
    chance: float | None = None
    description: Text = ""
    box_units: float | None = None
    baselines: dict[Text, float] = Field(default_factory=dict)
    parts: dict[Text, dict[str, list[str]]] = Field(default_factory=dict)
    relative: bool = False
    english: Text = ""

    def model_post_init(self, context: Any) -> None:
        """A pair counts as one."""
        if self.metric == "pair_accuracy":
            self.terms = [Term(unit="set")]

    @property
    def asks(self) -> str:
        """The benchmark whose questions it is about."""
        return self.benchmark or self.id

    @property
    def name(self) -> str:
        """Benchmark and label together, for places without a header of groups."""
        return f"{self.paper} {self.label}".strip() if self.paper != self.label else self.label

    def in_english(self, prompt: str) -> str:
        """A prompt of this column as a question in plain English."""
        question = self.english
        for number, word in enumerate(prompt.split()):
            question = question.replace(f"{{{number}}}", word)
        return question


class Hypothesis(BaseModel):
    """A claim, what tests it, and the weighted sum of arms' scores that it predicts the sign of."""

    id: Text
    claim: Text
    test: Text
    contrast: dict[Text, float]
    predicts: Literal["positive", "negative", "zero"]
    column: Text


class Step(BaseModel):
    """One cached unit of the study and the folder it wrote, relative to the run folder."""

    id: Text
    kind: Text
    folder: str
    arm: Text | None = None
    seed: int | None = None
    stage: Text | None = None


class Plan(BaseModel):
    """The whole ``plan.json``; keys that reporting does not use are ignored."""

    study: Text
    title: Text
    scale: Text
    meaningful: bool
    arms: list[Arm]
    pairs: list[Pair]
    columns: list[Column]
    steps: list[Step]
    hypotheses: list[Hypothesis] = Field(default_factory=list)
    notes: list[Text] = Field(default_factory=list)
    data: dict[str, str] = Field(default_factory=dict)

    def evaluations(self) -> Iterator[Step]:
        """The steps that answered questions."""
        return (step for step in self.steps if step.kind == "evaluate")

    def seeds(self) -> list[int]:
        """Seeds of the evaluations, in ascending order."""
        return sorted({step.seed or 0 for step in self.evaluations()})

    def column(self, name: str) -> Column:
        """The column of this id."""
        return next(column for column in self.columns if column.id == name)

    def stages(self) -> list[str]:
        """Stages with an evaluation, in the order of the plan."""
        return list(dict.fromkeys(step.stage or "" for step in self.evaluations()))


def load_plan(run: Path) -> Plan:
    """Read ``plan.json`` of the run folder ``run``.

    Raises:
        UserError: if it is missing or does not follow the schema; the first wrong key is named.
    """
    path = run / "plan.json"
    try:
        plan = Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a run folder, e.g. runs/miniature") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; run the study again to rewrite it") from error
    _add_baselines(run, plan)
    return plan


def as_made(path: Path) -> Path:
    """A file in the folder of a finished step.

    Raises:
        UserError: if it is not what the step made, by the checksums in ``done.json``.
    """
    try:
        files = parse_json((path.parent / "done.json").read_bytes())["files"]
        if files[path.name] == sha256_file(path):
            return path
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is not as its step made it (done.json beside it); run the study again to rebuild it")


def _add_baselines(run: Path, plan: Plan) -> None:
    """Take over what the data step measured of rules that need no model: ``baselines.json``, by column and rule."""
    path = run / plan.data.get("test", "") / "baselines.json"
    if not path.is_file():
        return
    try:
        measured = TypeAdapter(dict[str, dict[Text, float]]).validate_json(as_made(path).read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(f"{path} is damaged; run the study again to rebuild it") from error
    for column in plan.columns:
        column.baselines |= measured.get(column.id, {})
