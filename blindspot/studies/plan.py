"""From a study to the list of its steps, each with the key that its cached result is found by."""

from pathlib import Path
from typing import Any

from blindspot.files import fingerprint, write_json
from blindspot.studies.arms import Arm, compared_pairs, describe_arms, expand_arms
from blindspot.studies.schedule import estimate
from blindspot.studies.spec import Study
from blindspot.studies.step import Step


def plan_steps(study: Study, code: str, data: str | None = None) -> list[Step]:
    """All steps of a study, inputs before what needs them.

    Per seed: the language model's text step, then per arm the encoder, the connector, its evaluation, the instruct
    stage and its evaluation. The data step is shared by everything. The replicate draws from its own seeds except for
    the text step, which belongs to the setting and is the one of the same seed index.

    Args:
        study: what to plan.
        code: version of the code and libraries, part of every key.
        data: fingerprint of the user's data folder, for studies of real data.
    """
    plan = _Plan(study, code)
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


def write_plan(run: Path, study: Study, steps: list[Step], columns: list[dict[str, Any]]) -> None:
    """Write ``plan.json``: what the reports need to know about a run.

    Args:
        run: the run folder.
        study: the resolved study.
        steps: its steps.
        columns: what its questions are called in the tables.
    """
    write_json(
        run / "plan.json",
        {
            "study": study.name,
            "title": study.title,
            "scale": study.scale,
            "meaningful": study.meaningful,
            "seeds": study.seeds,
            "arms": describe_arms(study),
            "pairs": compared_pairs(study),
            "columns": columns,
            "notes": _notes(study),
            "data": {"test": steps[0].folder},
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
        self.steps: list[Step] = []
        self._keys: dict[str, str] = {}

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
        roles = {source.split("/")[0]: source for source in inputs or []}
        input_keys = {role: self._keys[source] for role, source in roles.items()}
        key = fingerprint({"kind": kind, "config": config, "code": self.code, "inputs": input_keys})
        seconds = estimate(self.study, kind, arm.family if arm else None)
        self.steps.append(Step(name, kind, arm.id if arm else None, seed, stage, config, roles, seconds, key))
        self._keys[name] = key
        return name

    def section(self, name: str) -> dict[str, Any]:
        return self.study.model_dump(include={name})

    def model(self, *keys: str, without: str = "") -> dict[str, Any]:
        """The model section, cut to what a step depends on, so that other sizes do not invalidate it."""
        sizes = self.study.model.model_dump()
        return {"model": {key: size for key, size in sizes.items() if key != without and (not keys or key in keys)}}


def _add_arm(plan: _Plan, arm: Arm, seed: int) -> None:
    def add(kind: str, inputs: list[str], stage: str | None = None, **config: Any) -> str:
        name = "/".join(part for part in (kind, stage, arm.id, f"seed{seed}") if part)
        config = {"family": arm.family, "positions": arm.positions, "seed": arm.training_seed(seed), **config}
        return plan.add(name, kind, config, inputs, arm, seed, stage)

    text = f"text/seed{seed}"
    encoder = add("encoder", ["data"], **plan.section("encoder"), **plan.model(without="language_layers"))
    made = ["data", text, encoder]
    for stage in ("connector", "instruct"):
        made.append(add(stage, made, **plan.section(stage), **plan.model()))
        add("evaluate", made, stage, **plan.model())


def _notes(study: Study) -> list[str]:
    notes = [
        f"What the language model's text says about place: {study.text.about}.",
        f"What the encoders' captions name: {study.encoder.captions}.",
        f"The image encoder is {study.instruct.encoder} in the instruct stage.",
    ]
    if study.arms.replicate:
        notes.append(
            "The replicate draws from other seeds; only the pretrained language model is shared with its twin."
        )
    if not study.meaningful:
        notes.insert(0, f'Scale "{study.scale}" only tests the machinery: these numbers mean nothing.')
    return notes
