"""From a study to its steps, each with the key that its cached result is found by, and to what reports must know."""

from collections import defaultdict
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.files import fingerprint, inside, is_hub_id, write_json
from blindspot.studies.arms import STAGES, Arm, expand_arms
from blindspot.studies.axes import CONNECTORS, LANGUAGE_POSITIONS, Choice
from blindspot.studies.budget import GPUS, flops
from blindspot.studies.compare import compared_pairs
from blindspot.studies.progress import SECONDS_TO_START
from blindspot.studies.relatives import RELATIVES
from blindspot.studies.schema import EvaluatedModel, Study
from blindspot.studies.step import Step
from blindspot.studies.versions import diagnostics_version
from blindspot.training.objectives import OBJECTIVES

NUMERICS = 1
"""Raised by hand when code changes what a step of real size computes: its source is in no key, so that a mended comment
retrains nothing for a week."""

SECONDS_PER_SAMPLE = {"text": 2.5e-3, "connector": 2.7e-3, "instruct": 3.8e-3}
SECONDS_PER_TRAINING_IMAGE = 8e-4
SECONDS_PER_TEST_QUESTION = 8e-3  # for all columns together
SECONDS_PER_DIAGNOSTIC = 5.0
SECONDS_PER_EVALUATION = 3600.0  # of a model of real size
SECONDS_PER_REHEARSED_STEP = 5.0
REFERENCE_WIDTH = 64  # the width at which the figures above were measured, one thread of a 2-core machine


def plan_steps(study: Study, code: str, data: str | None = None) -> list[Step]:
    """All steps of a study, inputs before what needs them.

    Per seed: the language model's text step, then per arm the encoder, the connector, its evaluation, the instruct
    stage and its evaluation. The data step is shared by everything, and arms share every training step on which they
    do not differ: it is named after its content and belongs to no arm. The replicate draws from its own seeds except
    for the text step, which belongs to the setting and is the one of the same seed index. Models of real size begin at
    their checkpoints, with the connector; models that are only evaluated come last, once.

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
            config = {"seed": seed, **plan.section("text"), **plan.model(without="encoder_layers")}
            plan.add("text", ["data"], config, seed=seed)
        for arm in arms:
            (_add_arm if study.recipe == "toy" else _add_real_arm)(plan, arm, seed)
    for model in study.models:
        _add_model(plan, model)
    return [replace(step, arm=plan.owner(step)) for step in plan.steps.values()]


class _Plan:
    """Collects steps; keys follow from those already there."""

    def __init__(self, study: Study, code: str) -> None:
        self.study = study
        self.steps: dict[str, Step] = {}
        self._code = f"numerics {NUMERICS}" if study.released else code
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
    ) -> str:
        """Add a step, unless another arm has added it already; its name, in which ``what`` stands for what it makes."""
        name = "/".join(part for part in (kind, stage, what, None if seed is None else f"seed{seed}") if part)
        if arm is not None and seed is not None:
            config = {"seed": arm.training_seed(seed), **config}
            config |= {"recipe": "llava", "arm": arm.id} if self.study.recipe == "llava" else {}
            self._users[name].append(arm)
        roles = {source.split("/")[0]: source for source in inputs}
        input_keys = {role: self.steps[source].key for role, source in roles.items()}
        key = fingerprint({"kind": kind, "config": config, "code": self._code, "inputs": input_keys})
        step = Step(name, kind, None, seed, stage, config, roles, _estimate(self.study, kind, arm), key)
        assert self.steps.setdefault(name, step).key == key, f"two different steps are called {name}"
        return name

    def owner(self, step: Step) -> str | None:
        """The only arm that uses a step; of those that share a trained variant, the one it is evaluated as."""
        if self.study.recipe == "llava":  # no arms share a step: what one takes from another it names
            return step.config.get("arm")
        users = self._users[step.id]
        if step.kind == "instruct":
            users = [arm for arm in users if arm.point.evaluate_with == arm.point.positions]
        return users[0].id if len(users) == 1 else None

    def section(self, name: str) -> dict[str, Any]:
        return {name: getattr(self.study, name).model_dump(exclude={"recipe"})}

    def model(self, *keys: str, without: str = "") -> dict[str, Any]:
        """The model section, cut to what a step depends on, so that other sizes do not invalidate it."""
        sizes = self.study.model.model_dump()
        return {"model": {key: size for key, size in sizes.items() if key != without and (not keys or key in keys)}}


def _add_arm(plan: _Plan, arm: Arm, seed: int) -> None:
    point, study = arm.point, plan.study
    made = ["data", f"text/seed{seed}"]
    names = [point.family, *([point.objective] if point.objective != point.family else [])]
    names += [point.captions] if point.captions and point.captions != study.encoder.captions else []
    names.append(point.pretrained_with.name)

    def add(kind: str, inputs: list[str], *parts: dict[str, Any], stage: str | None = None) -> str:
        shared = kind in ("encoder", *STAGES) and not arm.replicate_of
        config = {key: value for part in parts for key, value in part.items()}
        return plan.add(kind, inputs, config, arm, seed, stage, "-".join(names) if shared else arm.id)

    tower = {"family": point.family, "positions": dict(point.pretrained_with.values)}
    pretraining = {"objective": point.objective, "captions": point.captions}
    recipe = {"encoder": study.encoder.model_dump(exclude={"captions", "recipe"})}
    made.append(add("encoder", ["data"], tower, pretraining, recipe, plan.model(without="language_layers")))

    variant = {
        "family": point.family,
        "pretrained_with": tower["positions"],
        "positions": dict(point.positions.values),
        "language_positions": dict(point.language_positions.values),
        "connector_spec": dict(point.connector.values),
        "drop_first_patch": point.drop_first_patch,
    }
    names += [f"as-{point.positions}"] if point.positions != point.pretrained_with else []
    names += [str(point.language_positions)] if point.language_positions != LANGUAGE_POSITIONS["rope1d"] else []
    names += [str(point.connector)] if point.connector != CONNECTORS["mlp"] else []
    names += ["first-dropped"] if point.drop_first_patch else []
    for stage in STAGES:
        section = plan.section(stage)
        if stage == "instruct":
            section["instruct"]["encoder"] = point.encoder_training
            names += [point.encoder_training] if point.encoder_training != study.encoder_training else []
        made.append(add(stage, made, variant, section, plan.model()))
        evaluation = {"evaluate_with": dict(point.evaluate_with.values), "encoder_training": point.encoder_training}
        add("evaluate", made, variant, evaluation, plan.model(), stage=stage)
    if study.diagnose and point.evaluate_with == point.positions:  # else it is the model of another arm
        add("diagnose", made[-1:], {"diagnose": study.diagnose, "diagnostics": diagnostics_version()})


def _rehearsed(study: Study, arms: list[Arm]) -> dict[str, Any]:
    """What the rehearsal of a study makes: all that its arms are made from, trained on and asked.

    It writes under these names, so none may be a path of the user's own files.
    """
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
        "benchmarks": _asked(study)["benchmarks"],
    }


def _asked(study: Study) -> dict[str, Any]:
    from blindspot.benchmarks.registry import select
    from blindspot.benchmarks.scoring import DEFAULT

    return {"benchmarks": [benchmark.name for benchmark in select(study.asked)], "profile": DEFAULT}


def _add_model(plan: _Plan, model: EvaluatedModel) -> None:
    """What it is asked with does not follow from a seed, and its step has one because every step of an arm has."""
    config = {"seed": 0, "recipe": "llava", "arm": model.id, "model": model.model, "served": model.served}
    data = ["data"] if plan.study.rehearsed else []
    plan.add("evaluate", data, config | _asked(plan.study), seed=0, stage="instruct", what=model.id)


def _add_real_arm(plan: _Plan, arm: Arm, seed: int) -> None:
    study, made = plan.study, [f"connector/{arm.point.connector_from}/seed{seed}"]
    data = ["data"] if study.rehearsed else []
    variant = {
        axis: dict(value.values) if isinstance(value, Choice) else value
        for axis, value in arm.point.given.items()
        if axis not in ("evaluate_with", "stages")
    }
    for name, stage in arm.own_stages.items():
        recipe = {"trains_by": stage.model_dump(mode="json")}
        if name == "instruct":
            recipe["evaluate_with"] = dict(arm.point.evaluate_with.values)
        inputs = [*data, *(made if name == "instruct" else [])]
        made = [plan.add(name, inputs, variant | recipe, arm, seed, what=arm.id)]
        plan.add("evaluate", [*data, *made], _asked(study), arm, seed, name, arm.id)
    if study.diagnose:
        diagnosis = {"diagnose": study.diagnose, "diagnostics": diagnostics_version()}
        plan.add("diagnose", made, diagnosis, arm, seed, what=arm.id)


def _estimate(study: Study, kind: str, arm: Arm | None) -> float:
    """Expected seconds of a step: of a miniature on one core, of models of real size on one A100."""
    if study.rehearsed:
        return SECONDS_PER_REHEARSED_STEP
    if study.recipe == "llava":
        if arm is None or kind not in arm.stages:
            return SECONDS_PER_EVALUATION
        try:
            return SECONDS_TO_START + flops(arm, arm.stages[kind]).total / (0.4 * GPUS[1].peak)
        except UserError:  # the study does not say how large its data are
            return SECONDS_PER_EVALUATION
    if kind == "data":
        return 1.0 + SECONDS_PER_TRAINING_IMAGE * study.data.train
    scale = study.model.width / REFERENCE_WIDTH
    if kind == "diagnose":
        return SECONDS_PER_DIAGNOSTIC * len(study.diagnose)
    if kind == "evaluate":
        return 0.5 + SECONDS_PER_TEST_QUESTION * study.data.test * scale
    recipe, objective = getattr(study, kind), OBJECTIVES.get(arm.point.objective) if arm else None
    per_sample = SECONDS_PER_SAMPLE.get(kind, objective.seconds if objective else 0.0)
    return 0.5 + recipe.steps * recipe.batch * per_sample * scale


def write_plan(run: Path, study: Study, steps: list[Step]) -> None:
    """Write ``plan.json``: what the reports and `blindspot status` need to know about the run of a resolved study."""
    arm_keys = ("id", "label", "block", "panel", "marker", "baseline", "replicate_of")
    step_keys = ("id", "kind", "arm", "seed", "stage", "folder", "key", "inputs", "estimate")
    arms = [{**{key: getattr(arm, key) for key in arm_keys}, "axes": arm.point.plain} for arm in expand_arms(study)]
    arms += [{key: getattr(model, key) for key in ("id", "label", "block")} for model in study.models]
    write_json(
        run / "plan.json",
        {
            "study": study.name,
            "title": study.title,
            "scale": study.scale,
            "meaningful": study.meaningful,
            "seeds": study.seeds,
            "arms": arms,
            "pairs": compared_pairs(study),
            "columns": columns(study),
            "hypotheses": [claim.model_dump() for claim in study.hypotheses],
            "notes": _notes(study, steps),
            "data": {"test": steps[0].folder} if study.recipe == "toy" else {},
            "steps": [{key: getattr(step, key) for key in step_keys} for step in steps],
        },
    )


def columns(study: Study) -> list[dict[str, Any]]:
    """The columns of a study's tables: of its source, or those that the paper has of its benchmarks."""
    if study.recipe == "toy":
        relative = study.source == "scenes"
        return [{"metric": "accuracy", "relative": relative, **column} for column in RELATIVES[study.source]]
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


def _notes(study: Study, steps: list[Step]) -> list[str]:
    if study.recipe == "llava":
        profiles = {step.config["profile"] for step in steps if step.kind == "evaluate"}
        return [f"Scored as {profile} does." for profile in sorted(profiles)]
    notes = [] if study.meaningful else [f'Scale "{study.scale}" only tests the machinery: these numbers mean nothing.']
    notes.append(f"What the language model's text says about place: {study.text.about}.")
    points = [arm.point for arm in expand_arms(study)]
    if len({point.captions for point in points} - {None}) == 1:
        notes.append(f"What the encoders' captions name: {study.encoder.captions}.")
    if len({point.encoder_training for point in points}) == 1:
        notes.append(f"The image encoder is {study.encoder_training} in the instruct stage.")
    if study.arms.replicate:
        notes.append(
            "The replicate draws from other seeds; only the pretrained language model is shared with its twin."
        )
    return notes
