"""What a study may claim, and the line that each mistake gets."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from blindspot.errors import UserError
from blindspot.studies.arms import expand_arms
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.schema import Study

CLAIM = {
    "id": "hurts",
    "claim": "It hurts",
    "test": "one minus the other",
    "contrast": {"clip-axial": 1, "clip-learned": -1},
    "predicts": "negative",
    "column": "vsr",
}


@pytest.fixture
def study_with(study_file: Path) -> Any:
    def make(**values: Any) -> Study:
        raw = yaml.safe_load(study_file.read_text())
        raw["arms"] = {"families": ["clip"], "positions": ["learned", "axial"], "replicate": "clip-learned"}
        path = study_file.with_name("claims.yaml")
        path.write_text(yaml.safe_dump({**raw, **values}))
        return load_study(path)

    return make


def test_a_claim_survives_being_read(study_with: Any) -> None:
    (claim,) = study_with(hypotheses=[CLAIM]).hypotheses
    assert claim.model_dump() == CLAIM


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrast": {"clip-axial": 1, "clip-learned": -0.5}}, "weights of two or more arms that sum to zero"),
        ({"contrast": {"clip-axial": 0}}, "weights of two or more arms that sum to zero"),
        ({"contrast": {"clip-axial": 0, "clip-learned": 0}}, "weights of two or more arms that sum to zero"),
        ({"contrast": {"clip-axial": float("nan"), "clip-learned": -1}}, "nan: should be a finite number"),
        ({"contrast": {"clip-axial": float("inf"), "clip-learned": float("-inf")}}, "inf: should be a finite number"),
        ({"contrast": {"clip-axal": 1, "clip-learned": -1}}, 'no arm "clip-axal"; did you mean "clip-axial"?'),
        ({"column": "vrs"}, 'no column "vrs"; did you mean "vsr"?'),
        ({"predicts": "worse"}, '"worse": unknown'),
        ({"effect": 1}, "unknown key"),
    ],
)
def test_mistakes_are_named(study_with: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"claims\.yaml: ") as caught:
        study_with(hypotheses=[{**CLAIM, **change}])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_claims_of_one_name_are_refused(study_with: Any) -> None:
    with pytest.raises(UserError, match='"hurts" is there twice'):
        study_with(hypotheses=[CLAIM, CLAIM])


def test_the_shipped_study_tests_seven_explanations_over_three_seeds() -> None:
    study = load_study("why")
    assert study.seeds >= 3
    numbered = [claim.claim[:3] for claim in study.hypotheses if claim.claim.startswith("(")]
    assert numbered == [f"({number})" for number in range(1, 8)]
    arms = {arm.id for arm in expand_arms(study)}
    used = {arm for claim in study.hypotheses for arm in claim.contrast}
    assert used == arms


def test_diagnosis_is_a_step_of_every_trained_model_and_invalidates_no_other(study_with: Any) -> None:
    plain, diagnosed = (plan_steps(study_with(**values), "code") for values in ({}, {"diagnose": ["probes"]}))
    added = [step for step in diagnosed if step.kind == "diagnose"]
    models = [step for step in plain if step.kind == "instruct"]
    assert len(added) == len(models)
    assert {step.inputs["instruct"] for step in added} == {step.id for step in models}
    assert {step.key for step in plain} == {step.key for step in diagnosed} - {step.key for step in added}


def test_a_mistyped_diagnostic_is_named(study_with: Any) -> None:
    with pytest.raises(UserError, match=r'diagnose.*"probs": unknown; did you mean "probes"\?'):
        study_with(diagnose=["probs"])
