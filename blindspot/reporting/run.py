"""What a run folder holds: its plan, its models' answers, the logs of their training; checked as they are read."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from blindspot.benchmarks.boxes import CONVENTION, CONVENTIONS, VIEW, View, locate
from blindspot.errors import UserError, objection, one_of
from blindspot.evaluation.items import Questions, Term
from blindspot.evaluation.statistics import Sample
from blindspot.evaluation.times import LEVEL
from blindspot.files import LEVELLED, LOG, PROBES, parse_json, read_jsonl, sha256_file
from blindspot.text import clean

Text = Annotated[str, AfterValidator(clean)]
MOST_ARMS = 40
"""That figures and the gallery show."""
UNLEARNED = 5.0
"""A language model whose loss on text is this many times another seed's is called unlearned."""
STAGES = {"connector": "stage 1", "instruct": "stage 2"}
_KEYS = {"id", "benchmark", "prompt", "answer", "images", "raw", "score", "parsed"}  # of a row of answers


class RunArm(BaseModel):
    """One configuration."""

    id: Text  # as in steps and answers
    label: Text  # as tables write it
    axes: dict[str, Text | bool | None] = Field(default_factory=dict)
    """Where it stands on each axis of the study; on none: a model that is only evaluated."""
    block: Text = ""  # heading of its rows in tables
    panel: Text = ""
    """What it shares a panel and a colour of figures with, where the study crosses two axes; else empty."""
    marker: Text = ""  # what it shares a mark with there; else empty
    baseline: bool = False  # whether that mark is open and its curve dashed: what others are compared with
    replicate_of: Text | None = None  # the arm that it repeats with other seeds
    paper: Text | None = None  # the row of the paper's tables that it repeats

    @property
    def hue(self) -> str:
        """What it shares a colour with."""
        return self.panel or self.block

    @property
    def short(self) -> str:
        """The label without the carrier that all variants share, for narrow places."""
        return self.label.removeprefix("LLaVA-")


def leading(arms: Sequence[RunArm], baselines: Iterable[str], mean_of: Mapping[str, float]) -> list[RunArm]:
    """Of more arms than figures and the gallery can show `MOST_ARMS`, in the order of all.

    A quarter at most are those that most others are compared with, ``baselines`` of pairs; the others have the highest
    means.
    """
    if len(arms) <= MOST_ARMS:
        return list(arms)
    compared = Counter(own for own in baselines if own in mean_of)
    chosen = [own for own, _ in compared.most_common(MOST_ARMS // 4)]
    best = sorted(mean_of, key=lambda own: -mean_of[own])
    kept = {*chosen, *[own for own in best if own not in chosen][: MOST_ARMS - len(chosen)]}
    return [arm for arm in arms if arm.id in kept]


def mean_scores(scores: Sequence[Mapping[str, Any]], stage: str) -> dict[str, float]:
    """By arm the mean over columns of its scores over all seeds."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in scores:
        if (row["stage"], row["split"], row["seed"]) == (stage, "iid", None):
            found[row["arm"]].append(row["score"])
    return {arm: fmean(values) for arm, values in found.items()}


class Pair(BaseModel):
    """A comparison: arm ``a`` minus arm ``b``; ``first`` and ``second`` say what the pairs of a ``kind`` compare."""

    a: Text
    b: Text
    label: Text
    kind: Text
    first: Text = "the first arm"
    second: Text = "the second"


class Column(BaseModel):
    """One column of the tables."""

    id: Text
    label: Text
    paper: Text = ""  # the benchmark of the paper that it stands for
    benchmark: Text = ""  # that of its questions, by default its id
    metric: Literal["accuracy", "pair_accuracy", "mean_iou"] = "accuracy"
    terms: list[Term] = Field(default_factory=lambda: [Term()])  # summed
    chance: float | None = None
    description: Text = ""
    box_units: float | None = None
    baselines: dict[Text, float] = Field(default_factory=dict)  # scores of rules that need no model
    parts: dict[Text, dict[str, list[str]]] = Field(default_factory=dict)
    """Subsets that are also scored on their own: name -> group of questions -> its values there."""
    relative: bool = False  # whether it only resembles the paper's
    learned_at: float | None = None  # the score from which a run has learned it; None: see `claims.unlearned`
    english: Text = ""  # asks its question, with ``{0}`` for the first word of a prompt

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
    """A claim, what tests it, and the weighted sum of arms' scores or log times that it predicts the sign of."""

    id: Text
    claim: Text
    test: Text
    contrast: dict[Text, float]
    predicts: Literal["positive", "negative", "zero"]
    column: Text  # a column, or a mean of several (``means`` of the plan)
    outcome: Literal["score", "time"] = "score"
    level: float = LEVEL  # the score that a time is taken to
    margin: float | None = None  # of equivalence: points of a score, a factor of a time


class RunStep(BaseModel):
    """One cached unit of the study and the folder it wrote, relative to the run folder."""

    id: Text
    kind: Text
    folder: str
    arm: Text | None = None
    seed: int | None = None
    stage: Text | None = None
    inputs: dict[str, str] = Field(default_factory=dict)


class ProbeRow(BaseModel):
    """A row of ``probes.jsonl``: the mean score of each column's probe questions after a training step."""

    step: Annotated[int, Field(ge=0)]
    right: dict[Text, Annotated[float, Field(ge=0, le=1)]]


class Level(BaseModel):
    """What ``levelled.json`` says: by what share of its whole fall a loss last fell, and whether that is level."""

    fell: float
    level: bool


class RunPlan(BaseModel):
    """The whole ``plan.json``; keys that reporting does not use are ignored."""

    study: Text
    title: Text
    about: Text = ""
    scale: Text
    meaningful: bool
    arms: list[RunArm]
    pairs: list[Pair]
    columns: list[Column]
    steps: list[RunStep]
    hypotheses: list[RunClaim] = Field(default_factory=list)
    recipes: dict[str, dict[str, Any]] = Field(default_factory=dict)
    means: dict[Text, list[Text]] = Field(default_factory=dict)
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

    def meant(self, column: str) -> list[Column]:
        """The columns behind a name: those of a mean, or one."""
        wanted = self.means.get(column, [column])
        return [one for one in self.columns if one.id in wanted]


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
        raise UserError(f"{path}: {objection(error, 'the file')}; run the study again to rewrite it") from error
    path = run / plan.data.get("test", "") / "baselines.json"
    if path.is_file():
        try:
            measured = TypeAdapter(dict[str, dict[Text, float]]).validate_json(as_made(path).read_bytes())
        except (OSError, ValidationError) as error:
            raise UserError(f"{path} is damaged; run the study again to rebuild it") from error
        for column in plan.columns:
            column.baselines |= measured.get(column.id, {})
    return plan


def as_made(path: Path, folder: Path | None = None) -> Path:
    """A file in the ``folder`` of a finished step, or by default right in it; refused if it is not what the step made,
    by ``done.json``."""
    folder = folder or path.parent
    try:
        files = parse_json((folder / "done.json").read_bytes())["files"]
        if files[path.relative_to(folder).as_posix()] == sha256_file(path):
            return path
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{path} is not as its step made it (done.json of {folder}); run the study again to rebuild it")


class RunKey(NamedTuple):
    """One evaluated model."""

    arm: str
    stage: str
    seed: int


@dataclass(frozen=True)
class RunAnswers:
    """Answers of all evaluated models, as numbers: what they said stays on the disk, where it is read for those that
    are shown. One may not have reached every benchmark; those that it has are whole.
    """

    questions: list[dict[str, Any]]
    """Rows of the first ``answers.jsonl`` that has them; their ``raw`` and ``score`` are not to be used."""
    scores: dict[RunKey, np.ndarray]
    """Per model, float array of shape ``(questions,)`` in 0..1; NaN where it was not asked."""
    partial: dict[RunKey, np.ndarray]  # likewise, partial scores; the scores where a question has none
    parsed: dict[RunKey, np.ndarray]  # per model, bool array of shape ``(questions,)``
    files: dict[RunKey, list[Path]]  # per model, its ``answers.jsonl``
    missing: list[str]  # evaluations of the plan that are not done

    def said(self, key: RunKey, places: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The rows of a model's answers to the questions at some places."""
        names = {(self.questions[place]["benchmark"], self.questions[place]["id"]): place for place in places}
        rows = (row for path in self.files[key] for row in read_jsonl(path))
        return {names[name]: row for row in rows if (name := (row["benchmark"], row["id"])) in names}

    def asked(self, places: list[int]) -> dict[tuple[str, str], list[RunKey]]:
        """The models that were asked the questions at some places, by arm and stage; each list by seed."""
        found: dict[tuple[str, str], list[RunKey]] = {}
        for key in sorted(self.scores):
            if not np.isnan(self.scores[key][places]).any():
                found.setdefault((key.arm, key.stage), []).append(key)
        return found

    def runs(self, arm: str, stage: str, places: Sequence[int] = ()) -> list[RunKey]:
        """The models of one arm after one stage that were asked the questions at some places, by seed."""
        return self.asked([*places]).get((arm, stage), [])

    def guessed(self, column: Column) -> float | None:
        """What guessing scores where every question of a column has options; None where one is answered freely."""
        chance = 0.0
        for term in column.terms:
            options = [len(self.questions[place]["choices"]) for place in self.of_column(column, [term])]
            if not all(options) or not options or term.unit != "question":
                return None
            chance += term.weight * sum(1 / count for count in options) / len(options)
        return chance

    def of_column(self, column: Column, terms: Sequence[Term] | None = None) -> list[int]:
        """Places of a column's questions, or of some of its terms'."""
        return [
            place
            for place, question in enumerate(self.questions)
            if question["benchmark"] == column.asks
            and any(
                all(str(question["groups"].get(key)) == label for key, label in term.where.items())
                for term in (column.terms if terms is None else terms)
            )
        ]

    def iid(self, column: Column) -> list[int]:
        """Places of those that no composition was held out for."""
        places = self.of_column(column)
        return [place for place in places if self.questions[place]["groups"].get("split", "iid") == "iid"]

    def samples(self, column: Column, places: list[int]) -> dict[RunKey, Sample]:
        """What every model that was asked the column's questions at these places scored; a cluster is a set where none
        is named."""
        groups = [self.questions[place]["groups"] for place in places]
        questions = Questions.of([{"set": own["cluster"], **own} if "cluster" in own else own for own in groups])
        return {
            key: questions.sample(column.terms, self.scores[key][places], self.partial[key][places])
            for keys in self.asked(places).values()
            for key in keys
        }


def load_answers(run: Path, plan: RunPlan) -> RunAnswers:
    """Read the answers of every finished evaluation of ``plan``. Several steps may have a model's, each of its own
    benchmarks; all models have the same questions of a benchmark."""
    answers = RunAnswers([], {}, {}, {}, {}, [])
    order: dict[str, dict[str, int]] = {}
    found: dict[RunKey, list[tuple[np.ndarray, np.ndarray]]] = {}
    for step in plan.evaluations():
        folder = run / step.folder
        if not (folder / "done.json").exists():
            answers.missing.append(step.id)
            continue
        path, key = as_made(folder / "answers.jsonl"), RunKey(step.arm or "", step.stage or "", step.seed or 0)
        answers.files.setdefault(key, []).append(path)
        place_q, number_3q = _answered(path, order, answers.questions)
        if any(len(np.intersect1d(place_q, other_q)) for other_q, _ in found.setdefault(key, [])):
            raise UserError(f"{path}: another step has answers of this model to its questions; run the study again")
        found[key].append((place_q, number_3q))
    if not found:
        raise UserError(f"{run}: no evaluation is finished; run the study first")
    count = len(answers.questions)
    for key in list(found):
        number_3q = np.full((3, count), np.nan)
        for place_q, part_3q in found.pop(key):
            number_3q[:, place_q] = part_3q
        answers.scores[key], answers.parsed[key] = number_3q[0].copy(), number_3q[2] == 1
        same = np.array_equal(number_3q[0], number_3q[1], equal_nan=True)
        answers.partial[key] = answers.scores[key] if same else number_3q[1].copy()
    return answers


def _answered(
    path: Path, order: dict[str, dict[str, int]], questions: list[dict[str, Any]]
) -> tuple[np.ndarray, np.ndarray]:
    """The answers in a file: the place of each question, and ``(3, questions)``: score, partial score and whether it
    was parsed. The questions of a benchmark that no file had before are added.

    ``order`` has the place of each question by benchmark and id.
    """
    places, numbers = array("l"), array("d")
    new: dict[str, dict[str, int]] = {}
    again: dict[str, set[int]] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        if absent := _KEYS - (row.keys() if isinstance(row, dict) else set()):
            raise UserError(f"{path}:{number}: no {min(absent)!r} in this row; delete the step's folder and run "
                            "the study again")  # fmt: skip
        benchmark, name = row["benchmark"], row["id"]
        if benchmark in order:
            place, seen = order[benchmark].get(name, -1), again.setdefault(benchmark, set())
            fits = place >= 0 and place not in seen
            seen.add(place)
        else:
            place, fits = len(questions), name not in new.setdefault(benchmark, {})
            new[benchmark][name] = place
            lettered, groups = isinstance(row.get("choices"), dict), row.get("groups") or {}
            choices = [*row["choices"].values()] if lettered else row.get("choices") or []
            questions.append(row | {"groups": groups, "choices": choices, "image": next(iter(row["images"]), None)})
        if not fits:
            break
        places.append(place)
        numbers.extend((row["score"], row.get("partial", row["score"]), bool(row["parsed"])))
        if VIEW in (row.get("groups") or {}):
            one_of(row["groups"].get(CONVENTION), CONVENTIONS, f"{path}:{number}", "convention of boxes")
    else:
        fits = all(len(seen) == len(order[benchmark]) for benchmark, seen in again.items())
    if not fits:
        raise UserError(
            f"{path}: its questions are not those of the other evaluations; delete its folder and run again"
        )
    number_3q = np.array(numbers).reshape(-1, 3).T
    if not ((number_3q[0] >= 0) & (number_3q[0] <= 1)).all():
        raise UserError(f"{path}: a score is outside 0..1; delete the step's folder and run the study again")
    order.update(new)
    return np.array(places, dtype=np.int32), number_3q


def said_box(row: dict[str, Any]) -> list[float] | None:
    """The box of an answer in its model's convention, in pixels of the picture; None for a point, or where is none."""
    said = locate(str(row["raw"]), CONVENTIONS[row["groups"][CONVENTION]], View.parse(str(row["groups"][VIEW]))).first
    return list(said.box) if said and said.box else None


def asked_data(run: Path, plan: RunPlan) -> dict[str, dict[str, Any]]:
    """By benchmark what its data are known by, as the evaluations of models of real size keep it: the ``digest``, and
    of a user's own the ``place``."""
    found: dict[str, dict[str, Any]] = {}
    for path in (run / step.folder / "run.json" for step in plan.evaluations()):
        if found.keys() >= {column.asks for column in plan.columns}:
            break
        if path.is_file() and (path.parent / "done.json").is_file():
            found |= parse_json(as_made(path).read_bytes())["benchmarks"]
    return found


def load_curves(run: Path, plan: RunPlan) -> list[dict[str, Any]]:
    """Score on probe questions against training step: one entry per finished step that has a ``probes.jsonl``.

    Each entry: arm, stage, seed, ``steps`` (list of step numbers) and ``accuracy`` (per column a list as long as
    ``steps``, None where a column was not measured).
    """
    curves = []
    for step in plan.steps:
        rows = _log(run, step, PROBES) if step.arm is not None else []
        if rows:
            names = [column.id for column in plan.columns if any(column.id in row["right"] for row in rows)]
            accuracy = {name: [row["right"].get(name) for row in rows] for name in names}
            steps = [row["step"] for row in rows]
            curves.append({"arm": step.arm, "stage": step.stage or step.kind, "seed": step.seed}
                          | {"steps": steps, "accuracy": accuracy})  # fmt: skip
    return curves


def load_probes(run: Path, plan: RunPlan) -> dict[tuple[str, int], list[ProbeRow]]:
    """The probes of stage 2 by arm and seed; an arm that shares its training has those of the step it shares."""
    steps, found = {step.id: step for step in plan.steps}, {}
    for step in plan.evaluations():
        source = steps.get(step.inputs.get("instruct", ""))
        own = [one for one in plan.steps if one.kind == "instruct" and (one.arm, one.seed) == (step.arm, step.seed)]
        for made in own if source is None else [source]:
            path = run / made.folder / PROBES
            key = step.arm or "", step.seed or 0
            if key in found or not path.is_file() or not (path.parent / "done.json").exists():
                continue
            rows = []
            for number, row in enumerate(read_jsonl(as_made(path)), start=1):
                try:
                    rows.append(ProbeRow.model_validate(row))
                except ValidationError as error:
                    raise UserError(f"{path}:{number}: no probe (step, and right: column -> score in 0..1); delete the "
                                    "step's folder and run the study again") from error  # fmt: skip
            found[key] = sorted(rows, key=lambda row: row.step)
    return found


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


def still_falling(run: Path, plan: RunPlan) -> Iterator[str]:
    """A sentence for every stage before the last some of whose runs ended before their loss was level."""
    stages: dict[str, list[Level]] = defaultdict(list)
    for step in plan.steps:
        path = run / step.folder / LEVELLED
        if (path.parent / "done.json").exists() and path.is_file():
            stages[step.kind].append(Level.model_validate_json(as_made(path).read_bytes()))
    for kind, runs in stages.items() if plan.meaningful else ():
        if falling := [one.fell for one in runs if not one.level]:
            yield (
                f"{len(falling)} of {len(runs)} runs of the {kind} stage ended before the loss was level: it still "
                f"fell by up to {max(falling):.0%} of its whole fall in the last fifth of its log. Raise {kind}.steps."
            )


def _log(run: Path, step: RunStep, name: str = LOG) -> list[dict[str, Any]]:
    """The log of a finished step, or another of its files of rows; empty where there is none."""
    path = run / step.folder / name
    return list(read_jsonl(as_made(path))) if (path.parent / "done.json").exists() and path.exists() else []
