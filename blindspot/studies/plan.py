"""From a study to the list of its steps, each with the key that its cached result is found by."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

from blindspot.files import fingerprint, write_json
from blindspot.studies.arms import Arm, describe_arms, expand_arms
from blindspot.studies.axes import CONNECTORS, LANGUAGE_POSITIONS, Choice
from blindspot.studies.columns import columns
from blindspot.studies.compare import compared_pairs
from blindspot.studies.schedule import estimate
from blindspot.studies.schema import Study
from blindspot.studies.step import Step
from blindspot.studies.versions import diagnostics_version

NUMERICS = 1
"""Raised by hand when code changes what a step of real size computes: its source is in no key, so that a mended comment
retrains nothing for a week."""


def plan_steps(study: Study, code: str, data: str | None = None) -> list[Step]:
    """All steps of a study, inputs before what needs them.

    Per seed: the language model's text step, then per arm the encoder, the connector, its evaluation, the instruct
    stage and its evaluation. The data step is shared by everything, and arms share every training step on which they
    do not differ: it is named after its content and belongs to no arm. The replicate draws from its own seeds except
    for the text step, which belongs to the setting and is the one of the same seed index.

    Args:
        study: what to plan.
        code: version of the code and libraries, part of every key.
        data: fingerprint of the user's data folder, for studies of real data.
    """
    plan = _Plan(study, code)
    if study.recipe == "llava":
        for seed in range(study.seeds):
            for arm in expand_arms(study):
                _add_real_arm(plan, arm, seed)
        return plan.steps
    plan.add(
        "data",
        "data",
        {"source": study.source, "fingerprint": data, **plan.section("data"), **plan.model("image", "patch")},
    )
    for seed in range(study.seeds):
        config = {"seed": seed, **plan.section("text"), **plan.model(without="encoder_layers")}
        plan.add(f"text/seed{seed}", "text", config, ["data"], seed=seed)
        for arm in expand_arms(study):
            _add_arm(plan, arm, seed)
    return plan.steps


def write_plan(run: Path, study: Study, steps: list[Step]) -> None:
    """Write ``plan.json``: what the reports need to know about a run.

    Args:
        run: the run folder.
        study: the resolved study.
        steps: its steps.
    """
    write_json(
        run / "plan.json",
        {
            "study": study.name,
            "title": study.title,
            "scale": study.scale,
            "meaningful": study.meaningful,
            "seeds": study.seeds,
            "arms": describe_arms(expand_arms(study)),
            "pairs": compared_pairs(study),
            "columns": columns(study),
            "hypotheses": [claim.model_dump() for claim in study.hypotheses],
            "notes": _notes(study, steps),
            "data": {"test": steps[0].folder} if study.recipe == "toy" else {},
            "steps": [
                {
                    "id": step.id,
                    "kind": step.kind,
                    "arm": step.arm,
                    "seed": step.seed,
                    "stage": step.stage,
                    "folder": step.folder,
                }
                for step in steps
            ],
        },
    )


class _Plan:
    """Collects steps; keys follow from those already there."""

    def __init__(self, study: Study, code: str) -> None:
        self.study, self.code = study, code
        self._steps: dict[str, Step] = {}
        self._users: dict[str, list[Arm]] = defaultdict(list)

    @property
    def steps(self) -> list[Step]:
        """Every step, with the arm that it belongs to."""
        return [replace(step, arm=self._owner(step)) for step in self._steps.values()]

    def add(
        self,
        name: str,
        kind: str,
        config: dict[str, Any],
        inputs: list[str] | None = None,
        arm: Arm | None = None,
        seed: int | None = None,
        stage: str | None = None,
    ) -> str:
        """Add a step, unless another arm has added it already."""
        roles = {source.split("/")[0]: source for source in inputs or []}
        input_keys = {role: self._steps[source].key for role, source in roles.items()}
        code = self.code if self.study.recipe == "toy" else f"numerics {NUMERICS}"
        key = fingerprint({"kind": kind, "config": config, "code": code, "inputs": input_keys})
        if arm:
            self._users[name].append(arm)
        seconds = estimate(self.study, kind, arm)
        step = Step(name, kind, None, seed, stage, config, roles, seconds, key)
        assert self._steps.setdefault(name, step).key == key, f"two different steps are called {name}"
        return name

    def _owner(self, step: Step) -> str | None:
        """The only arm that uses a step; of those that share a trained variant, the one it is evaluated as."""
        users = self._users[step.id]
        if self.study.recipe == "llava":  # no arms share a step: what one takes from another it names
            return users[0].id
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
    def add(kind: str, what: str, inputs: list[str], stage: str | None = None, **config: Any) -> str:
        name = "/".join(part for part in (kind, stage, what, f"seed{seed}") if part)
        return plan.add(name, kind, {"seed": arm.training_seed(seed), **config}, inputs, arm, seed, stage)

    point, study = arm.point, plan.study
    made = ["data", f"text/seed{seed}"]
    tower = {"family": point.family, "positions": dict(point.pretrained_with.values)}
    names = [point.family, *([point.objective] if point.objective != point.family else [])]
    names += [point.captions] if point.captions and point.captions != study.encoder.captions else []
    names.append(point.pretrained_with.name)
    pretraining = {"objective": point.objective, "captions": point.captions}
    recipe = {"encoder": study.encoder.model_dump(exclude={"captions", "recipe"})}
    sizes = plan.model(without="language_layers")
    made.append(add("encoder", _named(arm, names), ["data"], **tower, **pretraining, **recipe, **sizes))

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
    for stage in ("connector", "instruct"):
        section = plan.section(stage)
        if stage == "instruct":
            section["instruct"]["encoder"] = point.encoder_training
            names += [point.encoder_training] if point.encoder_training != study.encoder_training else []
        made.append(add(stage, _named(arm, names), made, **variant, **section, **plan.model()))
        evaluation = {"evaluate_with": dict(point.evaluate_with.values), "encoder_training": point.encoder_training}
        add("evaluate", arm.id, made, stage, **variant, **evaluation, **plan.model())
    if study.diagnose and point.evaluate_with == point.positions:  # else it is the model of another arm
        add("diagnose", arm.id, made[-1:], diagnose=study.diagnose, diagnostics=diagnostics_version())


def _add_real_arm(plan: _Plan, arm: Arm, seed: int) -> None:
    from blindspot.benchmarks.registry import select
    from blindspot.benchmarks.scoring import DEFAULT

    def add(kind: str, inputs: list[str], stage: str | None = None, **config: Any) -> str:
        name = "/".join(part for part in (kind, stage, arm.id, f"seed{seed}") if part)
        config = {"recipe": "llava", "arm": arm.id, "seed": arm.training_seed(seed), **config}
        return plan.add(name, kind, config, inputs, arm, seed, stage)

    study, made = plan.study, [f"connector/{arm.point.connector_from}/seed{seed}"]
    variant = {
        axis: dict(value.values) if isinstance(value, Choice) else value
        for axis, value in arm.point.given.items()
        if axis not in ("evaluate_with", "stages")
    }
    for name, stage in arm.own_stages.items():
        recipe = {"trains_by": stage.model_dump(mode="json")}
        if name == "instruct":
            recipe["evaluate_with"] = dict(arm.point.evaluate_with.values)
        made = [add(name, made if name == "instruct" else [], None, **variant, **recipe)]
    benchmarks = [benchmark.name for benchmark in select(study.asked)]
    add("evaluate", made, "instruct", benchmarks=benchmarks, profile=DEFAULT)
    if study.diagnose:
        add("diagnose", made, diagnose=study.diagnose, diagnostics=diagnostics_version())


def _named(arm: Arm, names: list[str]) -> str:
    return arm.id if arm.replicate_of else "-".join(names)


def _notes(study: Study, steps: list[Step]) -> list[str]:
    if study.recipe == "llava":
        profiles = {step.config["profile"] for step in steps if step.kind == "evaluate"}
        return [f"Scored as {profile} does." for profile in sorted(profiles)]
    notes = [
        f"What the language model's text says about place: {study.text.about}.",
        *_unless_varied(study, "captions", f"What the encoders' captions name: {study.encoder.captions}."),
        *_unless_varied(
            study, "encoder_training", f"The image encoder is {study.encoder_training} in the instruct stage."
        ),
    ]
    if study.arms.replicate:
        notes.append(
            "The replicate draws from other seeds; only the pretrained language model is shared with its twin."
        )
    if not study.meaningful:
        notes.insert(0, f'Scale "{study.scale}" only tests the machinery: these numbers mean nothing.')
    return notes


def _unless_varied(study: Study, axis: str, note: str) -> list[str]:
    values = {value for arm in expand_arms(study) if (value := getattr(arm.point, axis)) is not None}
    return [note] if len(values) == 1 else []
