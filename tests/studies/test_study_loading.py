"""Study files and their claims: what is accepted, and the one line that each mistake gets."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.studies.arms import expand_arms
from blindspot.studies.loading import load_study, save_study, shipped_studies
from blindspot.studies.plan import plan_steps

MINIATURES = [
    *("aspect", "connectors", "depth", "layers", "miniature", "motion", "nlvr"),
    *("objectives", "positions", "released", "resolution", "views", "why"),
]


@pytest.mark.parametrize("name", MINIATURES)
def test_shipped_studies_load_at_every_scale(name: str) -> None:
    assert name in shipped_studies()
    full = load_study(name)
    smoke = load_study(name, scale="smoke")
    assert full.meaningful and not smoke.meaningful
    assert smoke.instruct.steps < full.instruct.steps
    assert smoke.instruct.lr == full.instruct.lr == pytest.approx(4e-3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trained, steps: 3", "trained, stepz: 3", 'instruct.stepz: unknown key; did you mean "steps"?'),
        (
            "trained, steps: 3",
            "trained, probes: [vrs], steps: 3",
            'instruct.probes: no column "vrs"; did you mean "vsr"?',
        ),
        ("seeds: 1", "sedes: 1", 'sedes: unknown key; did you mean "seeds"?'),
        ("{train: 10,", "{xyzzy: 1, train: 10,", "data.xyzzy: unknown key; one of: train, test, probe, seed"),
        ("seeds: 1", "seeds: 0", "seeds: 0: should be at least 1"),
        ("seeds: 1", "seeds: true", "seeds: True: should be a whole number"),
        ("seeds: 1", "seeds: 1\nseeds: 2", 'key "seeds" is given twice'),
        ("[clip]", "[clap]", 'arms.families[0]: "clap": unknown; did you mean "clip"?'),
        ("[clip]", "[]", "arms.families: is empty; give at least one"),
        ("[clip]", "[clip, clip]", "arms.families: names something twice; keep one of each"),
        ("[clip]", "clip", 'arms.families: "clip": should be a list, e.g. [clip, siglip]'),
        ("axial", "axle", 'arms.positions[1]: "axle": unknown; did you mean "axial"?'),
        ("replicate: clip-learned", "replicate: clip-lerned", 'not an arm of this study; did you mean "clip-learned"?'),
        ("source: scenes", "source: scene", 'source: "scene": unknown; did you mean "scenes"?'),
        ("lr: 4e-3", "lr: fast", 'instruct.lr: "fast": should be a number'),
        ("lr: 4e-3", "lr: .nan", "instruct.lr: nan: should be "),
        ("patch: 8", "patch: 7", "image 32 is not a multiple of patch 7"),
        ("heads: 2", "heads: 3", "width 64 over heads 3 must give a multiple of 4"),
        ("connector: {steps", "connector: [1]\nx: {steps", "x: unknown key"),
        ("connector: {steps: 3, batch: 2, lr: 5e-3}", "connector: 3", "connector: 3: should be a group of keys"),
        ("name: toy", "name: ../toy", 'name: "../toy": use lower-case letters'),
        ("smoke: {instruct: {steps: 1}}", "smoke: {instruct: {stepz: 1}}", "scales.smoke.instruct.stepz: unknown key"),
        ("smoke: {instruct: {steps: 1}}", "smoke: {name: x}", "scales.smoke.name: a scale cannot change this key"),
        ("seeds: 1", "seeds: 1\nextends: miniatur", 'extends: "miniatur": no shipped study; did you mean "miniature"?'),
        ("seeds: 1", "seeds: 1\nextends: [why]", "extends: \"['why']\": no shipped study; "),
        ("seeds: 1", "seeds: 1\nextend: why", 'extend: unknown key; did you mean "extends"?'),
        ("name: toy", "extends: miniature", "name: missing; every study states it"),
        ("seeds: 1", "seeds: [1", "not a study file: "),
        ("seeds: 1", "? [seeds]\n: 1", "not a study file: found unhashable key"),
        ("A toy study", "2020-13-45", ':3: not a study file: "2020-13-45" is no timestamp; in quotes it is text'),
        ("seeds: 1", "seeds: !!int foo", '"foo" is no int; in quotes it is text'),
        ("seeds: 1", "seeds: !!int ''", '"" is no int; in quotes it is text'),
        pytest.param("seeds: 1", "seeds: 1" + "0" * 5000, "is no int; in quotes it is text", id="digits"),
        ("A toy study", '"\\ud800"', ":3: not a study file: "),
        pytest.param("seeds: 1", "seeds: " + "[" * 3000 + "]" * 3000, "nested too deeply", id="brackets"),
        pytest.param("A toy study", "x" * 100_000_000, "more than 256 kB: not a study file", id="100 MB"),
    ],
)
def test_a_mistake_gets_one_line_with_file_and_key(study_file: Path, old: str, new: str, message: str) -> None:
    text = study_file.read_text()
    assert old in text
    study_file.write_text(text.replace(old, new))
    with pytest.raises(UserError) as caught:
        load_study(study_file)
    assert str(caught.value).startswith(str(study_file))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("base", MINIATURES)
def test_a_study_takes_over_what_it_does_not_say(base: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    arms = {"families": ["clip"], "positions": ["axial"], "replicate": None}
    own = {
        "name": "mine",
        "title": "Mine",
        "about": "Ours.",
        "arms": arms,
        "hypotheses": [],
        "instruct": {"encoder": "frozen"},
    }
    path.write_text(yaml.safe_dump({"extends": base, **own}))
    study, shipped = load_study(path, "smoke", seeds=3), load_study(base, "smoke", seeds=3)
    assert [arm.id for arm in expand_arms(study)] == ["clip-axial"]
    assert study.instruct == shipped.instruct.model_copy(update={"encoder": "frozen"})
    assert study.model_dump(exclude={*own}) == shipped.model_dump(exclude={*own})


@pytest.mark.parametrize("name", MINIATURES)
def test_saved_study_loads_as_the_same_study_at_its_scale_only(tmp_path: Path, name: str) -> None:
    study = load_study(name, scale="smoke", seeds=3)
    save_study(study, tmp_path / "study.yaml")
    again = load_study(tmp_path / "study.yaml")
    assert again.model_dump(exclude={"scales"}) == study.model_dump(exclude={"scales"})
    assert expand_arms(again) == expand_arms(study)
    with pytest.raises(UserError, match='already resolved at scale "smoke"'):
        load_study(tmp_path / "study.yaml", scale="full")


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_anywhere_is_accepted_or_refused_in_one_line(study_file: Path, data: st.DataObject) -> None:
    raw = yaml.safe_load(study_file.read_text())
    key = data.draw(st.sampled_from(sorted(raw)))
    if isinstance(raw[key], dict) and data.draw(st.booleans()):
        raw[key][data.draw(st.sampled_from(sorted(raw[key])))] = data.draw(_values)
    else:
        raw[key] = data.draw(_values)
    path = study_file.with_name("drawn.yaml")
    path.write_text(yaml.safe_dump(raw, allow_unicode=True), encoding="utf-8")
    try:
        load_study(path)
    except UserError as error:
        assert str(error).startswith(str(path))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_file_is_refused_in_one_line(study_file: Path, content: bytes) -> None:
    study_file.write_bytes(content)
    with pytest.raises(UserError):
        load_study(study_file)


CLAIM = {
    "id": "hurts",
    "claim": "It hurts",
    "test": "one minus the other",
    "contrast": {"clip-axial": 1, "clip-learned": -1},
    "predicts": "negative",
    "column": "vsr",
}


INSTRUCT = {"encoder": "trained", "steps": 3, "batch": 2, "lr": 4e-3}


def test_a_claim_survives_being_read(study_of: Any) -> None:
    (claim,) = study_of(hypotheses=[CLAIM]).hypotheses
    assert claim.model_dump(exclude_none=True) == CLAIM | {"outcome": "score"}
    timed = CLAIM | {"column": "places", "outcome": "time", "level": 0.8, "margin": 2.0}
    made = {
        "means": {"places": ["vsr", "cvbench_relation"]},
        "instruct": INSTRUCT | {"probes": ["vsr", "cvbench_relation"]},
    }
    (claim,) = study_of(hypotheses=[timed], **made).hypotheses
    assert claim.model_dump() == timed


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
        ({"outcome": "speed"}, '"speed": unknown'),
        ({"level": 0.9}, "the score that a time is taken to"),
        ({"outcome": "time", "level": 2}, "level: Input should be less than or equal to 1"),
        ({"outcome": "time", "margin": 0.5}, "0.5; a factor above 1"),
        ({"margin": 100}, "100; points, below 100"),
        ({}, '"hurts" is there twice'),
        ({"outcome": "time", "column": "vsr"}, "vsr is not asked on the way; name it in instruct.probes"),
    ],
)
def test_mistakes_are_named(study_of: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"made\.yaml: ") as caught:
        study_of(hypotheses=[{**CLAIM, **change}] * (1 if change else 2))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("means", "message"),
    [
        ({"places": ["vsr", "vrs"]}, 'means.places: no column "vrs"; did you mean "vsr"?'),
        ({"vsr": ["vsr", "mmvp"]}, "means.vsr: is a column itself"),
        ({"places": ["vsr", "vsr"]}, "a column is there twice"),
        ({"places": ["vsr"]}, "means.places"),
    ],
)
def test_mistakes_in_means_are_named(study_of: Any, means: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=r"made\.yaml: ") as caught:
        study_of(means=means)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_the_shipped_study_tests_seven_explanations_over_twelve_seeds() -> None:
    study = load_study("why")
    assert study.seeds == 12
    assert {claim.outcome for claim in study.hypotheses} == {"score", "time"}
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
