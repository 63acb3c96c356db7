"""What a study may claim, and the line that each mistake gets."""

from typing import Any

import pytest

from blindspot.errors import UserError
from blindspot.studies.arms import expand_arms
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps

CLAIM = {
    "id": "hurts",
    "claim": "It hurts",
    "test": "one minus the other",
    "contrast": {"clip-axial": 1, "clip-learned": -1},
    "predicts": "negative",
    "column": "vsr",
}


def test_a_claim_survives_being_read(study_of: Any) -> None:
    (claim,) = study_of(hypotheses=[CLAIM]).hypotheses
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
        ({}, '"hurts" is there twice'),
    ],
)
def test_mistakes_are_named(study_of: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"made\.yaml: ") as caught:
        study_of(hypotheses=[{**CLAIM, **change}] * (1 if change else 2))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_shipped_study_tests_seven_explanations_over_three_seeds() -> None:
    study = load_study("why")
    assert study.seeds >= 3
    numbered = [claim.claim[:3] for claim in study.hypotheses if claim.claim.startswith("(")]
    assert numbered == [f"({number})" for number in range(1, 8)]
    arms = {arm.id for arm in expand_arms(study)}
    used = {arm for claim in study.hypotheses for arm in claim.contrast}
    assert used == arms


def test_diagnosis_is_a_step_of_every_trained_model_and_invalidates_no_other(study_of: Any) -> None:
    plain, diagnosed = (plan_steps(study_of(**values), "code") for values in ({}, {"diagnose": ["probes"]}))
    added = [step for step in diagnosed if step.kind == "diagnose"]
    models = [step for step in plain if step.kind == "instruct"]
    assert len(added) == len(models)
    assert {step.inputs["instruct"] for step in added} == {step.id for step in models}
    assert {step.key for step in plain} == {step.key for step in diagnosed} - {step.key for step in added}


def test_a_mistyped_diagnostic_is_named(study_of: Any) -> None:
    with pytest.raises(UserError, match=r'diagnose.*"probs": unknown; did you mean "probes"\?'):
        study_of(diagnose=["probs"])
