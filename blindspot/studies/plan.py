"""From a study to its steps, each with the key that its cached result is found by, and to what reports must know."""

from collections import defaultdict
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from blindspot import plugins
from blindspot.errors import UserError
from blindspot.files import fingerprint, inside, is_hub_id, write_json
from blindspot.studies.arms import STAGES, Arm, expand_arms
from blindspot.studies.axes import CONNECTORS, LANGUAGE_POSITIONS, Choice
from blindspot.studies.budget import GPUS, QUESTIONS, answering, flops, parameters, room
from blindspot.studies.compare import compared_pairs
from blindspot.studies.needs import hub_datasets
from blindspot.studies.progress import SECONDS_TO_START
from blindspot.studies.schema import AXES, Study
from blindspot.studies.sizes import MODELS, USUAL, ModelSize
from blindspot.studies.step import Step
from blindspot.studies.versions import diagnostics_version
from blindspot.training.objectives import OBJECTIVES

NUMERICS = 1
"""Raised by hand when code changes what a step of real size computes: its source is in no key, so that a mended comment
retrains nothing for a week."""

SECONDS_PER_SAMPLE = {"text": 2.1e-3, "connector": 1.9e-3, "instruct": 3.1e-3}
SECONDS_PER_TRAINING_IMAGE = 8e-4
SECONDS_PER_TEST_QUESTION = 8e-3  # for all columns together
SECONDS_PER_DIAGNOSTIC = 5.0
SECONDS_UNSAID = 3600.0  # of a diagnosis of real size, and of a stage on data that are of no stated size
A100_REACHED = 0.4 * GPUS[1].peak  # operations a second
SECONDS_PER_REHEARSED_STEP = 2.0
SECONDS_PER_REHEARSED_BENCHMARK = 0.7
LARGE = 3000
"""Questions from which on a benchmark is asked in a step of its own, so that several of a model run side by side."""
REHEARSED_STIMULI = 16
"""That a rehearsed diagnosis shows."""
REFERENCE_PATCHES, ROW = 16, 100  # likewise, of a picture; tokens of the turns about it
REFERENCE_WIDTH = 64  # the width at which the figures above were measured, one thread of a 2-core machine


def plan_steps(study: Study, code: str, data: str | None = None) -> list[Step]:
    """All steps of a study, inputs before what needs them.

    Per seed: the language model's text step, then per arm the encoder, the connector, its evaluation, the instruct
    stage and its evaluation. The data step is shared by everything, and arms share every training step on which they
    do not differ: it is named after its content and belongs to no arm. The replicate draws from its own seeds except
    for the text step, which belongs to the setting and is the one of the same seed index. Models of real size begin at
    their checkpoints, with the connector, and are asked every `LARGE` benchmark in a step of its own; models that are
    only evaluated come last, once.

    Every key holds ``code``, the version of code and libraries, or of released checkpoints `NUMERICS`; that of the data
    step the fingerprint of the ``data`` that the user has.
    """
    arms = expand_arms(study)
    plan = _Plan(study, code)
    if study.recipe == "toy":
        world = {"source": study.source, "fingerprint": data, **plan.section("data"), **plan.model("image", "patch")}
        plan.add("data", [], world)
    if study.rehearsed:
        plan.add("data", [], _rehearsed(study, arms))
    for seed in range(study.seeds):
        if study.recipe == "toy":
            own = _text_seed(study, seed)
            config = {"seed": own, **plan.section("text"), **plan.model(without="encoder_layers")}
            plan.add("text", ["data"], config, seed=own)
        for arm in arms:
            (_add_arm if study.recipe == "toy" else _add_real_arm)(plan, arm, seed)
    for model in study.models:  # what they are asked with follows from no seed, but every step of an arm has one
        config = {"seed": 0, "recipe": "llava", "arm": model.id, "model": model.model, "served": model.served}
        made = ["data"] if study.rehearsed else []
        plan.evaluate(made, config, "instruct", 0, MODELS.get(model.model, USUAL), model.id, None)
    return [replace(step, arm=plan.owner(step)) for step in plan.steps.values()]


def _text_seed(study: Study, seed: int) -> int:
    """The seed whose language model a seed has."""
    return 0 if study.text.shared else seed


class _Plan:
    """Collects steps; keys follow from those already there."""

    def __init__(self, study: Study, code: str) -> None:
        self.study = study
        self.steps: dict[str, Step] = {}
        self.portions = _portions(study) if study.recipe == "llava" else []
        brought = "".join(f", {name} {digest}" for name, digest in plugins.digests())
        self._code, self._said = f"numerics {NUMERICS}{brought}" if study.released else code, code
        self._users: dict[str, list[Arm]] = defaultdict(list)

    def add(
        self,
        kind: str,
        inputs: list[str],
        config: dict[str, Any],
        arm: Arm | None = None,
        seed: int | None = None,
        stage: str | None = None,
        what: str | None = None,
        seconds: float | None = None,
    ) -> str:
        """Add a step, unless another arm has added it already; its name, in which ``what`` stands for what it makes.

        It is expected to take ``seconds``; None: what `_estimate` says.
        """
        name = "/".join(part for part in (kind, stage, what, None if seed is None else f"seed{seed}") if part)
        if arm is not None and seed is not None:
            config = {"seed": arm.training_seed(seed), **config}
            config |= {"recipe": "llava", "arm": arm.id} if self.study.recipe == "llava" else {}
            self._users[name].append(arm)
        roles = {source.split("/")[0]: source for source in inputs}
        input_keys = {role: self.steps[source].key for role, source in roles.items()}
        key = fingerprint({"kind": kind, "config": config, "code": self._code, "inputs": input_keys})
        expected = _estimate(self.study, kind, arm) if seconds is None else seconds
        written = room(self.study, kind, arm, config.get("benchmarks", ()))
        step = Step(name, kind, None, seed, stage, config, roles, expected, key, self._said, written)
        assert self.steps.setdefault(name, step).key == key, f"two different steps are called {name}"
        return name

    def evaluate(
        self,
        inputs: list[str],
        config: dict[str, Any],
        stage: str,
        seed: int,
        size: ModelSize,
        name: str,
        arm: Arm | None,
    ) -> None:
        """Ask a model of real size all benchmarks."""
        from blindspot.benchmarks.scoring import DEFAULT

        for large, questions, own in self.portions:
            seconds = SECONDS_PER_REHEARSED_BENCHMARK * len(questions)
            if not self.study.rehearsed:
                work = answering(size.parameters, size.image_tokens, sum(questions.values()))
                seconds = SECONDS_TO_START + work / A100_REACHED
            asked = {"benchmarks": list(questions), "profile": DEFAULT} | ({"own": own} if own else {})
            what = f"{large}/{name}" if large else name
            self.add("evaluate", inputs, config | asked, arm, seed, stage, what, seconds)

    def owner(self, step: Step) -> str | None:
        """The only arm that uses a step; of those that share a trained variant, the one it is evaluated as."""
        if self.study.recipe == "llava":  # no arms share a step: what one takes from another it names
            return step.config.get("arm")
        users = self._users[step.id]
        if step.kind == "instruct":
            users = [arm for arm in users if not arm.evaluated_otherwise]
        return users[0].id if len(users) == 1 else None

    @cached_property
    def diagnosis(self) -> dict[str, Any]:
        """What of a diagnosis no model changes; its version reads a room's files."""
        few = {"stimuli": REHEARSED_STIMULI} if self.study.rehearsed else {}
        return {"diagnose": self.study.diagnose, "diagnostics": diagnostics_version(), **few}

    def section(self, name: str) -> dict[str, Any]:
        values = getattr(self.study, name).model_dump(exclude={"recipe"})
        quiet = {"scale": 1, "pictures": [], "cue": "shadow"} if name == "data" else {}  # which older keys do not hold
        return {name: {key: value for key, value in values.items() if key not in quiet or value != quiet[key]}}

    def model(self, *keys: str, without: str = "", arm: Arm | None = None) -> dict[str, Any]:
        """The model section, cut to what a step depends on, so that other sizes do not invalidate it."""
        sizes = self.study.model.model_dump() | (arm.sizes if arm else {})
        return {"model": {key: size for key, size in sizes.items() if key != without and (not keys or key in keys)}}


def _add_arm(plan: _Plan, arm: Arm, seed: int) -> None:
    from blindspot.studies.relatives import probed  # which loads numpy

    point, study = arm.point, plan.study
    made = ["data", f"text/seed{_text_seed(study, seed)}"]
    names = [point.family, *([point.objective] if point.objective != point.family else [])]
    names += [point.captions] if point.captions and point.captions != study.encoder.captions else []
    names.append(point.pretrained_with.name)
    names += [f"{point.image_size}px"] if point.image_size else []
    names += [f"patch{point.patch_size}"] if point.patch_size else []
    names += [f"from{point.reduced_to}px"] if point.reduced_to else []
    names += [point.aspect] if point.aspect else []
    view = {key: value for key in ("aspect", "reduced_to") if (value := getattr(point, key)) is not None}
    seen = {"view": view} if view else {}

    def add(kind: str, inputs: list[str], *parts: dict[str, Any], stage: str | None = None) -> str:
        shared = kind in ("encoder", *STAGES) and not arm.replicate_of
        config = {key: value for part in parts for key, value in part.items()}
        return plan.add(kind, inputs, config, arm, seed, stage, "-".join(names) if shared else arm.id)

    tower = {"family": point.family, "positions": dict(point.pretrained_with.values)}
    pretraining = {"objective": point.objective, "captions": point.captions}
    recipe = {"encoder": study.encoder.model_dump(exclude={"captions", "recipe"})}
    sizes = plan.model(without="language_layers", arm=arm)
    made.append(add("encoder", ["data"], tower, pretraining, recipe, sizes, seen))

    variant = {
        "family": point.family,
        "pretrained_with": tower["positions"],
        "positions": dict(point.positions.values),
        "language_positions": dict(point.language_positions.values),
        "connector_spec": dict(point.connector.values),
        "drop_first_patch": point.drop_first_patch,
        **seen,
        **({} if point.layer is None else {"layer": point.layer}),
    }
    names += [] if point.layer is None else [f"layer{point.layer}"]
    names += [f"as-{point.positions}"] if point.positions != point.pretrained_with else []
    names += [str(point.language_positions)] if point.language_positions != LANGUAGE_POSITIONS["rope1d"] else []
    names += [str(point.connector)] if point.connector != CONNECTORS["mlp"] else []
    names += ["first-dropped"] if point.drop_first_patch else []
    names += [point.connector_objective] if point.connector_objective else []
    for stage in STAGES:
        section = plan.section(stage)
        if stage == "connector" and point.connector_objective:
            section |= {"connector_objective": point.connector_objective, **plan.section("encoder")}
        if stage == "instruct":
            section["instruct"]["encoder"] = point.encoder_training
            section["instruct"]["probes"] = section["instruct"]["probes"] or probed(study.source, study.data.cue)
            names += [point.encoder_training] if point.encoder_training != study.encoder_training else []
        made.append(add(stage, made, variant, section, plan.model(arm=arm)))
        evaluation = {"evaluate_with": dict(point.evaluate_with.values), "encoder_training": point.encoder_training}
        evaluation |= {} if point.evaluate_size is None else {"evaluate_size": point.evaluate_size}
        add("evaluate", made, variant, evaluation, plan.model(arm=arm), stage=stage)
    if study.diagnose and not arm.evaluated_otherwise:  # else it is the model of another arm
        add("diagnose", made[-1:], plan.diagnosis)


def _rehearsed(study: Study, arms: list[Arm]) -> dict[str, Any]:
    """What the rehearsal of a study makes: all that its arms are made from, trained on and asked.

    It writes under these names, so none may be a path of the user's own files.
    """
    from blindspot.benchmarks.registry import select

    sets = {(stage.data.file, stage.data.images): stage.data for arm in arms for stage in arm.own_stages.values()}
    for name in {name for arm in arms for name in (arm.point.encoder, arm.point.language_model)}:
        if not is_hub_id(name) or Path(name).exists():
            raise UserError(
                f"{name}: a rehearsal makes checkpoints of Hugging Face ids (ORGANISATION/NAME), not folders"
            )
    for path in {path for names in sets for path in names}:
        if not inside(path):
            raise UserError(
                f"data: {path}: a rehearsal makes what it reads in a folder of its own; name it relative to --data"
            )
    return {
        "recipe": "llava",
        "encoders": sorted({arm.point.encoder for arm in arms}),
        "language_models": sorted({arm.point.language_model for arm in arms}),
        "models": sorted({model.model for model in study.models}),
        "data": [data.model_dump(exclude_none=True) for data in sets.values()],
        "benchmarks": [one.name for one in select(study.asked) if one.place is None],
    }


def _portions(study: Study) -> list[tuple[str, dict[str, int], dict[str, str]]]:
    """What each model of a study of real size is asked, a step each: questions by benchmark, digests of a user's own.

    A step is named after its `LARGE` benchmark; that of all that are smaller has no name.
    """
    from blindspot.benchmarks.registry import BENCHMARKS, select

    chosen = select(study.asked)  # the order in which a study names them says nothing
    asked = [one for one in BENCHMARKS.values() if one in chosen]
    asked += sorted((one for one in chosen if one.place is not None), key=lambda one: one.name)
    own = {one.name: one.read(one.place) for one in asked if one.place is not None}
    sizes = {one.name: len(own[one.name].questions) if one.name in own else one.size or QUESTIONS for one in asked}
    small = {name: size for name, size in sizes.items() if size < LARGE}
    parts = [("", small)] * bool(small) + [(name, {name: size}) for name, size in sizes.items() if size >= LARGE]
    return [(name, part, {one: own[one].digest for one in part if one in own}) for name, part in parts]


def _add_real_arm(plan: _Plan, arm: Arm, seed: int) -> None:
    """What stands at its default is in no key, so that a new axis or setting retrains nothing; neither are counts of
    rows and tokens, which only estimates read."""
    study, made = plan.study, [f"connector/{arm.point.connector_from}/seed{seed}"]
    data = ["data"] if study.rehearsed else []
    variant = {
        axis: dict(value.values) if isinstance(value, Choice) else value
        for axis, value in arm.point.given.items()
        if axis not in ("evaluate_with", "stages") and value != AXES[axis].default
    }
    for name, stage in arm.own_stages.items():
        recipe = {"trains_by": stage.model_dump(mode="json", exclude_defaults=True, exclude={"data"})}
        recipe["trains_by"]["data"] = {"file": stage.data.file, "images": stage.data.images}
        if name == "instruct":
            recipe["evaluate_with"] = dict(arm.point.evaluate_with.values)
        inputs = [*data, *(made if name == "instruct" else [])]
        made = [plan.add(name, inputs, variant | recipe, arm, seed, what=arm.id)]
        plan.evaluate([*data, *made], {}, name, seed, _size(arm), arm.id, arm)
    if study.diagnose:
        plan.add("diagnose", made, plan.diagnosis, arm, seed, what=arm.id)


def _size(arm: Arm) -> ModelSize:
    try:
        return ModelSize(sum(parameters(arm).values()), arm.image_tokens, 0)
    except UserError:  # a checkpoint that is neither known nor here
        return USUAL


def _estimate(study: Study, kind: str, arm: Arm | None) -> float:
    """Expected seconds of a step: of a miniature on one core, of models of real size on one A100."""
    if study.rehearsed:
        return SECONDS_PER_REHEARSED_STEP + (SECONDS_PER_DIAGNOSTIC * len(study.diagnose) if kind == "diagnose" else 0)
    if study.recipe == "llava":
        if arm is None or kind not in arm.stages:
            return SECONDS_UNSAID
        try:
            return SECONDS_TO_START + flops(arm, arm.stages[kind]).total / A100_REACHED
        except UserError:  # the study does not say how large its data are
            return SECONDS_UNSAID
    if kind == "data":
        return 1.0 + SECONDS_PER_TRAINING_IMAGE * study.data.train
    scale = study.model.width / REFERENCE_WIDTH
    if kind == "diagnose":
        return SECONDS_PER_DIAGNOSTIC * len(study.diagnose)
    if kind == "evaluate":
        return 0.5 + SECONDS_PER_TEST_QUESTION * study.data.test * scale
    recipe, objective = getattr(study, kind), OBJECTIVES.get(arm.point.objective) if arm else None
    per_sample = SECONDS_PER_SAMPLE.get(kind, objective.seconds if objective else 0.0)
    if arm and kind != "text":
        patches = arm.grid[0] * arm.grid[1]
        scale *= patches / REFERENCE_PATCHES if kind == "encoder" else (ROW + patches) / (ROW + REFERENCE_PATCHES)
    return 0.5 + recipe.steps * recipe.batch * per_sample * scale


def write_plan(run: Path, study: Study, steps: list[Step]) -> None:
    """Write ``plan.json``: what the reports and `blindspot status` need to know about the run of a resolved study."""
    arm_keys = ("id", "label", "block", "panel", "marker", "baseline", "replicate_of", "paper")
    step_keys = ("id", "kind", "arm", "seed", "stage", "folder", "key", "inputs", "estimate", "gpus")
    arms = [{**{key: getattr(arm, key) for key in arm_keys}, "axes": arm.point.plain} for arm in expand_arms(study)]
    arms += [{key: getattr(model, key) for key in ("id", "label", "block", "paper")} for model in study.models]
    if study.recipe == "llava":
        from blindspot.evaluation.paper import load

        for arm in arms:
            if arm["label"] in load().roles and not arm.get("replicate_of"):
                arm["paper"] = arm["paper"] or arm["label"]
    write_json(
        run / "plan.json",
        {
            "study": study.name,
            "title": study.title,
            "about": study.about,
            "scale": study.scale,
            "meaningful": study.meaningful,
            "seeds": study.seeds,
            "arms": arms,
            "pairs": compared_pairs(study),
            "columns": columns(study),
            "hypotheses": [claim.model_dump(exclude_none=True) for claim in study.hypotheses],
            "means": study.means,
            "recipes": {arm.id: _recipe(study, arm) for arm in expand_arms(study)},
            "notes": _notes(study, steps),
            "data": {"test": steps[0].folder} if study.recipe == "toy" else {},
            "steps": [{key: getattr(step, key) for key in step_keys} for step in steps],
        },
    )


def columns(study: Study) -> list[dict[str, Any]]:
    """The columns of a study's tables: of its source, or those that the paper has of its benchmarks."""
    if study.recipe == "toy":
        from blindspot.studies.relatives import relatives  # which loads numpy

        common = {"metric": "accuracy", "relative": study.source != "nlvr"}
        side = max([max(size) for size in study.data.pictures], default=None)  # of the square that pictures stand in
        found = [common | column for column in relatives(study.source, study.data.cue)]
        return [column | ({"box_units": side} if side and "box_units" in column else {}) for column in found]
    from blindspot.benchmarks.registry import select
    from blindspot.evaluation.paper import load

    paper = {column.key for column in load().columns}
    found: list[dict[str, Any]] = []
    for benchmark in select(study.asked):
        for metric in benchmark.metrics:
            if (benchmark.name, metric.name) not in paper and metric != benchmark.metrics[0]:
                continue
            most = sum(term.weight for term in metric.terms)
            found.append(
                {
                    "id": f"{benchmark.name}/{metric.name}",
                    "benchmark": benchmark.name,
                    "label": metric.name,
                    "paper": benchmark.title,
                    "metric": "accuracy",
                    "terms": [{**asdict(term), "weight": term.weight / most} for term in metric.terms],
                    "chance": None if metric.chance is None else metric.chance / most,
                    "description": f"{metric.name} of {benchmark.title}.",
                }
            )
    return found


def _recipe(study: Study, arm: Arm) -> dict[str, Any]:
    """How an arm trains, stage by stage, and the data sets of the Hub that it trains on, in plain values."""
    if study.recipe == "llava":
        stages = arm.stages
        datasets = {name: None for stage in stages.values() for name in hub_datasets(stage.data)}
    else:
        stages, datasets = {name: getattr(study, name) for name in ("data", "text", "encoder", *STAGES)}, {}
    plain = {name: stage.model_dump(mode="json", exclude_none=True) for name, stage in stages.items()}
    return {"stages": plain, "datasets": [] if study.rehearsed else list(datasets)}


_SHARED = {
    "toy": "Seeds share the data alone: each trains a language model, encoders, connectors and stage 2 of its own.",
    "text": "Seeds share the data and one pretrained language model, a single draw of something random that the spread "
    "between seeds does not show; each trains encoders, connectors and stage 2 of its own.",
    "llava": "Seeds share the released checkpoints and the data; they differ in the connector's first weights, the "
    "order of the data and everything else that training draws.",
}
"""What seeds of a study share, as its page says it."""


def _notes(study: Study, steps: list[Step]) -> list[str]:
    if study.recipe == "llava":
        profiles = {step.config["profile"] for step in steps if step.kind == "evaluate"}
        shared = [] if study.seeds == 1 else [_SHARED["llava"]]
        return [f"Scored as {profile} does." for profile in sorted(profiles)] + shared
    notes = [] if study.meaningful else [f'Scale "{study.scale}" only tests the machinery: these numbers mean nothing.']
    notes.append(f"What the language model's text says about place: {study.text.about}.")
    points = [arm.point for arm in expand_arms(study)]
    if len({point.captions for point in points} - {None}) == 1:
        notes.append(f"What the encoders' captions name: {study.encoder.captions}.")
    if len({point.encoder_training for point in points}) == 1:
        notes.append(f"The image encoder is {study.encoder_training} in the instruct stage.")
    if study.seeds > 1:
        notes.append(_SHARED["text" if study.text.shared else "toy"])
    if study.arms.replicate:
        notes.append(
            "The replicate draws from other seeds; only the pretrained language model is shared with its twin."
        )
    return notes
