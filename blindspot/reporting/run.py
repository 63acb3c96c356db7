"""What a run folder holds: its plan, its models' answers, the logs of their training; checked as they are read."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from blindspot.errors import UserError
from blindspot.evaluation.items import Questions, Term
from blindspot.evaluation.statistics import Sample
from blindspot.files import LOG, parse_json, read_jsonl, sha256_file
from blindspot.text import clean

Text = Annotated[str, AfterValidator(clean)]
UNLEARNED = 5.0
"""A language model whose loss on text is this many times another seed's is called unlearned."""
STAGES = {"connector": "stage 1", "instruct": "stage 2"}
_KEYS = {"id", "benchmark", "prompt", "answer", "images", "raw", "score", "parsed"}  # of a row of answers


class RunArm(BaseModel):
    """One configuration.

    Attributes:
        id: as in steps and answers.
        label: as tables write it.
        axes: where it stands on each axis of the study; on none: a model that is only evaluated.
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

    Attributes:
        paper: the benchmark of the paper that it stands for; ``relative``: it only resembles that one.
        benchmark: that of its questions, by default its id.
        terms: summed.
        baselines: scores of rules that need no model.
        parts: subsets that are also scored on their own: name -> group of questions -> its values there.
        english: asks its question, with ``{0}`` for the first word of a prompt.
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


class RunClaim(BaseModel):
    """A claim, what tests it, and the weighted sum of arms' scores that it predicts the sign of."""

    id: Text
    claim: Text
    test: Text
    contrast: dict[Text, float]
    predicts: Literal["positive", "negative", "zero"]
    column: Text


class RunStep(BaseModel):
    """One cached unit of the study and the folder it wrote, relative to the run folder."""

    id: Text
    kind: Text
    folder: str
    arm: Text | None = None
    seed: int | None = None
    stage: Text | None = None


class RunPlan(BaseModel):
    """The whole ``plan.json``; keys that reporting does not use are ignored."""

    study: Text
    title: Text
    scale: Text
    meaningful: bool
    arms: list[RunArm]
    pairs: list[Pair]
    columns: list[Column]
    steps: list[RunStep]
    hypotheses: list[RunClaim] = Field(default_factory=list)
    notes: list[Text] = Field(default_factory=list)
    data: dict[str, str] = Field(default_factory=dict)

    def evaluations(self) -> list[RunStep]:
        """The steps that answered questions."""
        return [step for step in self.steps if step.kind == "evaluate"]

    def seeds(self) -> list[int]:
        """Seeds of the evaluations, in ascending order."""
        return sorted({step.seed or 0 for step in self.evaluations()})

    def stages(self) -> list[str]:
        """Stages with an evaluation, in the order of the plan."""
        return list(dict.fromkeys(step.stage or "" for step in self.evaluations()))


def stage_name(stage: str) -> str:
    """What a stage is called in headings: ``stage 1 (connector)``."""
    return f"{STAGES[stage]} ({stage})" if stage in STAGES else stage


def load_plan(run: Path) -> RunPlan:
    """Read ``plan.json`` of the run folder ``run``, and what the data step measured of rules that need no model."""
    path = run / "plan.json"
    try:
        plan = RunPlan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a run folder, e.g. runs/miniature") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; run the study again to rewrite it") from error
    path = run / plan.data.get("test", "") / "baselines.json"
    if path.is_file():
        try:
            measured = TypeAdapter(dict[str, dict[Text, float]]).validate_json(as_made(path).read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} is damaged; run the study again to rebuild it") from error
        for column in plan.columns:
            column.baselines |= measured.get(column.id, {})
    return plan


def as_made(path: Path) -> Path:
    """A file in the folder of a finished step; refused if it is not what the step made, by ``done.json``."""
    try:
        files = parse_json((path.parent / "done.json").read_bytes())["files"]
        if files[path.name] == sha256_file(path):
            return path
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is not as its step made it (done.json beside it); run the study again to rebuild it")


class RunKey(NamedTuple):
    """One evaluated model."""

    arm: str
    stage: str
    seed: int


@dataclass(frozen=True)
class RunAnswers:
    """Answers of all evaluated models to the same questions.

    Attributes:
        questions: rows of the first ``answers.jsonl``, in its order; their ``raw`` and ``score`` are not to be used.
        raw: per model, the answers as text, in the order of ``questions``.
        scores: per model, float array of shape ``(questions,)`` in 0..1.
        partial: likewise, partial scores; the scores where a question has none.
        parsed: per model, bool array of shape ``(questions,)``.
        missing: evaluations of the plan that are not done.
    """

    questions: list[dict[str, Any]]
    raw: dict[RunKey, list[str]]
    scores: dict[RunKey, np.ndarray]
    partial: dict[RunKey, np.ndarray]
    parsed: dict[RunKey, np.ndarray]
    missing: list[str]

    def runs(self, arm: str, stage: str) -> list[RunKey]:
        """The models of one arm after one stage, by seed."""
        return sorted(key for key in self.scores if key.arm == arm and key.stage == stage)

    def of_column(self, column: Column) -> list[int]:
        """Places of a column's questions."""
        return [
            place
            for place, question in enumerate(self.questions)
            if question["benchmark"] == column.asks
            and any(
                all(str(question["groups"].get(key)) == label for key, label in term.where.items())
                for term in column.terms
            )
        ]

    def iid(self, column: Column) -> list[int]:
        """Places of those that no composition was held out for."""
        places = self.of_column(column)
        return [place for place in places if self.questions[place]["groups"].get("split", "iid") == "iid"]

    def samples(self, column: Column, places: list[int]) -> dict[RunKey, Sample]:
        """What every model scored on the column's questions at these places; a cluster is a set where none is named."""
        groups = [self.questions[place]["groups"] for place in places]
        questions = Questions.of([{"set": own["cluster"], **own} if "cluster" in own else own for own in groups])
        return {
            key: questions.sample(column.terms, scores_q[places], self.partial[key][places])
            for key, scores_q in self.scores.items()
        }


def load_answers(run: Path, plan: RunPlan) -> RunAnswers:
    """Read the answers of every finished evaluation of ``plan``, all to the same questions."""
    answers = RunAnswers([], {}, {}, {}, {}, [])
    order: dict[tuple[str, str], int] = {}
    for step in plan.evaluations():
        folder = run / step.folder
        if not (folder / "done.json").exists():
            answers.missing.append(step.id)
            continue
        path = as_made(folder / "answers.jsonl")
        rows: list[dict[str, Any]] = []
        for number, row in enumerate(read_jsonl(path), start=1):
            if absent := _KEYS - (row.keys() if isinstance(row, dict) else set()):
                raise UserError(f"{path}:{number}: no {min(absent)!r} in this row; delete the step's folder and run "
                                "the study again")  # fmt: skip
            lettered, groups = isinstance(row.get("choices"), dict), row.get("groups") or {}
            choices = [*row["choices"].values()] if lettered else row.get("choices") or []
            rows.append(row | {"groups": groups, "choices": choices, "image": next(iter(row["images"]), None)})
        if not answers.questions:
            answers.questions.extend(rows)
            order.update({(row["benchmark"], row["id"]): place for place, row in enumerate(rows)})
        places = [order.get((row["benchmark"], row["id"]), -1) for row in rows]
        if sorted(places) != list(range(len(order))):
            raise UserError(
                f"{path}: its questions are not those of the other evaluations; delete its folder and run again"
            )
        rows = [rows[place] for place in np.argsort(places, kind="stable")]
        scores_q = np.array([row["score"] for row in rows], dtype=float)
        if not ((scores_q >= 0) & (scores_q <= 1)).all():
            raise UserError(f"{path}: a score is outside 0..1; delete the step's folder and run the study again")
        key = RunKey(step.arm or "", step.stage or "", step.seed or 0)
        answers.raw[key] = [str(row["raw"]) for row in rows]
        answers.scores[key] = scores_q
        answers.partial[key] = np.array([row.get("partial", row["score"]) for row in rows], dtype=float)
        answers.parsed[key] = np.array([bool(row["parsed"]) for row in rows])
    if not answers.scores:
        raise UserError(f"{run}: no evaluation is finished; run the study first")
    return answers


def load_curves(run: Path, plan: RunPlan) -> list[dict[str, Any]]:
    """Accuracy against training step: one entry per finished step whose ``log.jsonl`` has rows with ``accuracy``.

    Each entry: arm, stage, seed, ``steps`` (list of step numbers) and ``accuracy`` (per column a list as long as
    ``steps``, None where a column was not measured).
    """
    curves = []
    for step in plan.steps:
        rows = [row for row in _log(run, step) if row.get("accuracy")] if step.arm is not None else []
        if rows:
            names = [column.id for column in plan.columns if any(column.id in row["accuracy"] for row in rows)]
            accuracy = {name: [row["accuracy"].get(name) for row in rows] for name in names}
            steps = [row["step"] for row in rows]
            curves.append({"arm": step.arm, "stage": step.stage or step.kind, "seed": step.seed}
                          | {"steps": steps, "accuracy": accuracy})  # fmt: skip
    return curves


def unlearned_text(run: Path, plan: RunPlan) -> Iterator[str]:
    """A sentence for every seed whose language model learned its text far worse than another seed's did.

    All arms of a seed share it, so their scores then say little about the arms.
    """
    ends: dict[int, float] = {}
    for step in plan.steps:
        losses = [row["loss"] for row in _log(run, step) if row.get("loss") is not None] if step.kind == "text" else []
        if losses:
            ends[step.seed or 0] = losses[-1]
    best = min(ends.values(), default=0.0)
    for seed, loss in sorted(ends.items()):
        if loss > UNLEARNED * best:
            yield (
                f"The language model of seed {seed} ended its text at loss {loss:.3g}, another at {best:.3g}: it has "
                "not learned what text can teach, and all arms of this seed rest on it. Raise text.steps."
            )


def _log(run: Path, step: RunStep) -> list[dict[str, Any]]:
    """The log of a finished step; empty where there is none."""
    path = run / step.folder / LOG
    return list(read_jsonl(as_made(path))) if (path.parent / "done.json").exists() and path.exists() else []
