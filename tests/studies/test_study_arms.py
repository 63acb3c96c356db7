"""Arms as points in the space of axes: names, labels, pairs, shared steps, and the line that each mistake gets."""

from typing import Any

import pytest

from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.positions import EncoderPositions, LanguagePositions, encoder, language
from blindspot.studies import axes
from blindspot.studies.arms import expand_arms
from blindspot.studies.compare import compare_arms, compared_pairs
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.schema import Study
from blindspot.studies.step import Step
from blindspot.training.objectives import OBJECTIVES


def steps_of(study: Study) -> dict[str, Step]:
    return {step.id: step for step in plan_steps(study, "code")}


def named(name: str, **values: Any) -> dict[str, Any]:
    return {"id": name, "label": name.upper(), "family": "clip", **values}


def test_every_named_choice_can_be_built() -> None:
    for choices, part in (
        (axes.ENCODER_POSITIONS, EncoderPositions),
        (axes.LANGUAGE_POSITIONS, LanguagePositions),
        (axes.CONNECTORS, ConnectorSpec),
    ):
        for choice in choices.values():
            assert part.from_dict(choice.values)
    assert {choice.values["scheme"] for choice in axes.ENCODER_POSITIONS.values()} == set(encoder.SCHEMES)
    assert {choice.values["scheme"] for choice in axes.LANGUAGE_POSITIONS.values()} == set(language.SCHEMES)
    assert all(entry.load().__name__.endswith("Objective") for entry in OBJECTIVES.values())


def test_a_crossed_arm_is_named_after_the_crossed_axes(study_of: Any) -> None:
    study = study_of(
        {"base": {"family": "siglip"}, "cross": {"objective": ["clip", "none"], "captions": ["objects", "places"]}}
    )
    arms = expand_arms(study)
    assert [arm.id for arm in arms] == ["clip-objects", "clip-places", "none"]
    assert [arm.label for arm in arms] == [
        "CLIP, captions of objects",
        "CLIP, captions with places",
        "no pretraining",
    ]
    assert (arms[0].panel, arms[0].marker) == ("CLIP", "captions of objects")
    assert arms[0].point.family == "siglip" and arms[0].point.pretrained_with == arms[0].point.positions


def test_one_arm_in_two_groups_comes_once(study_of: Any) -> None:
    crosses = [
        {"group": "Encoder", "positions": ["learned", "none"]},
        {"group": "Language", "positions": ["learned"], "language_positions": ["rope1d", "mrope"]},
    ]
    arms = expand_arms(study_of({"base": {"family": "siglip"}, "cross": crosses}))
    assert [(arm.id, arm.block) for arm in arms] == [
        ("learned-rope1d", "Encoder"),
        ("none-rope1d", "Encoder"),
        ("learned-mrope", "Language"),
    ]


def test_parameters_make_an_arm_of_their_own_unless_they_are_a_named_one(study_of: Any) -> None:
    positions = ["axial", {"scheme": "axial", "base": 30}, {"scheme": "axial", "table": "keep"}]
    arms = expand_arms(study_of({"base": {"family": "clip"}, "cross": {"positions": positions}}))
    assert [arm.id for arm in arms] == ["axial", "axial-base30", "axial+keep"]
    assert arms[1].label == "2D-RoPE (base 30)"
    assert arms[1].point.positions.values == {"scheme": "axial", "table": "replace", "base": 30}


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({}, "arms: give families and positions, or else cross or named"),
        ({"families": ["clip"]}, "the short form has families and positions"),
        ({"cross": {"positions": ["learned"]}}, "arms: family: missing; give it here or under base"),
        ({"cross": {"famly": ["clip"]}}, 'arms.cross[0].famly: unknown key; did you mean "family"?'),
        ({"cross": {"objective": ["siglap"]}}, 'arms.cross[0].objective[0]: "siglap": unknown; did you mean "siglip"?'),
        ({"cross": {"captions": ["place"]}}, 'captions[0]: "place": unknown; did you mean "places"?'),
        ({"cross": {"positions": ["learned", "learned"]}}, "cross[0].positions: names something twice"),
        ({"cross": {"positions": [{"scheme": "axial", "bas": 3}]}}, '"bas": unknown key; did you mean "base"?'),
        ({"cross": {"positions": [{"scheme": "axial", "base": -3}]}}, "positions[0]: encoder positions: base must be"),
        ({"cross": {"positions": [{"base": 3}]}}, "None: should be one of: learned, none"),
        ({"cross": {"language_positions": ["mrop"]}}, '"mrop": unknown; did you mean "mrope"?'),
        ({"cross": {"connector": ["mpl"]}}, '"mpl": unknown; did you mean "mlp"?'),
        ({"cross": {"connector": [{"name": "resampler", "token": 4}]}}, '"token": unknown key; did you mean "tokens"?'),
        (
            {"cross": {"encoder_training": ["thawed"]}},
            'encoder_training[0]: "thawed": unknown; did you mean "trained"?',
        ),
        ({"cross": {"family": ["clip"]}, "compare": {"famly": ["clip"]}}, "arms.compare.famly: unknown key"),
        ({"named": [named("a", famly="clip")]}, 'arms.named[0].famly: unknown key; did you mean "family"?'),
        ({"named": [named("a"), named("b")]}, 'arms: "b" is the same as "a"; remove one or change an axis'),
        ({"named": [named("a"), named("a", captions="places")]}, 'arms: two arms are called "a"; rename one'),
        ({"named": [named("replicate")]}, 'arms: two arms are called "replicate"'),
        ({"named": [named("a", drop_first_patch=True)]}, '"a": clip has a CLS token to drop'),
        ({"named": [named("a", family="dinov2")]}, '"a": a dinov2 tower needs model.mlp 172 to be a multiple'),
        ({"named": [named("a", positions={"scheme": "axial", "table": "released"})]}, "belongs to a frozen encoder"),
        (
            {"named": [named("a", connector={"name": "qformer", "tokens": 4, "depth": 1}, language_positions="mrope")]},
            '"a": language positions mrope need image tokens in rows and columns',
        ),
        ({"named": [named("a")], "replicate": {"of": "b"}}, 'replicate "b": not an arm of this study; one of: a'),
    ],
)
def test_a_mistake_in_the_arms_gets_one_line(study_of: Any, arms: dict[str, Any], message: str) -> None:
    if "cross" in arms and "family: missing" not in message and "family" not in arms["cross"]:
        arms = {"base": {"family": "clip"}, **arms}
    with pytest.raises(UserError) as caught:
        study_of(arms)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_arms_share_the_steps_on_which_they_do_not_differ(study_of: Any) -> None:
    study = study_of(
        {
            "named": [
                named("plain"),
                named("language", language_positions="mrope"),
                named("frozen", encoder_training="frozen"),
                named("forgotten", positions="axial", evaluate_with="none"),
                named("axial", positions="axial"),
                named("swapped", positions="axial", pretrained_with="learned"),
            ],
            "replicate": "plain",
        }
    )
    steps = steps_of(study)
    kinds = [step.kind for step in steps.values()]
    assert [kinds.count(kind) for kind in ("encoder", "connector", "instruct", "evaluate")] == [3, 5, 6, 14]
    assert steps["encoder/clip-learned/seed0"].arm is None
    assert steps["connector/clip-learned/seed0"].arm is None
    assert steps["instruct/clip-learned/seed0"].arm == "plain"
    assert steps["instruct/clip-learned-frozen/seed0"].arm == "frozen"
    assert steps["connector/clip-learned-mrope/seed0"].arm == "language"
    assert steps["instruct/clip-axial/seed0"].arm == "axial"  # not "forgotten", which is evaluated as something else
    assert steps["evaluate/instruct/forgotten/seed0"].inputs == steps["evaluate/instruct/axial/seed0"].inputs
    assert steps["connector/clip-learned-as-axial/seed0"].inputs["encoder"] == "encoder/clip-learned/seed0"
    assert steps["encoder/replicate/seed0"].arm == "replicate"
    assert len({step.folder for step in steps.values()}) == len(steps)


def test_an_encoder_is_known_by_what_it_depends_on_alone(study_of: Any) -> None:
    def key(**axes: Any) -> str:
        steps = steps_of(study_of({"named": [named("a", **axes)]}))
        return next(step.key for step in steps.values() if step.kind == "encoder")

    same = [{}, {"language_positions": "bapa"}, {"connector": "linear"}, {"encoder_training": "frozen"},
            {"evaluate_with": "none"}, {"positions": "axial", "pretrained_with": "learned"}]  # fmt: skip
    other = [{"family": "aimv2"}, {"objective": "dinov2"}, {"captions": "places"}, {"positions": "axial"}]
    assert len({key(**axes) for axes in same}) == 1
    assert len({key(**axes) for axes in [{}, *other]}) == 5
    assert key(objective="none", captions="objects") == key(objective="none", captions="places")


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("family", ["clip", "siglip", "aimv2"]),
        ("objective", ["clip", "siglip", "dinov2"]),
        ("captions", ["objects", "places"]),
        ("positions", ["learned", "axial", "mixed"]),
        ("pretrained_with", ["same", "axial", "mixed"]),
        ("language_positions", ["rope1d", "mrope", "circle"]),
        ("connector", ["mlp", "linear", "average_pooling"]),
        ("encoder_training", ["trained", "frozen"]),
        ("drop_first_patch", [False, True]),
        ("evaluate_with", ["same", "axial", "mixed"]),
    ],
)
@pytest.mark.parametrize("many", [True, False])
def test_every_axis_can_be_compared(study_of: Any, axis: str, values: list[Any], many: bool) -> None:
    """Also where no arm stands elsewhere on it, and where several do."""
    arms = [named("a", family="siglip")]
    if many:
        arms += [{**arms[0], "id": f"a{number}", axis: value} for number, value in enumerate(values[1:])]
    arms[0] |= {} if values[0] == "same" else {axis: values[0]}
    compare = values[0] if values[0] == "same" else [values[0]]
    pairs = compared_pairs(study_of({"named": arms, "compare": {axis: compare}}))
    assert [(pair["a"], pair["b"], pair["kind"]) for pair in pairs] == [(arm["id"], "a", axis) for arm in arms[1:]]
    assert all(pair["first"] and pair["second"] for pair in pairs)


def test_objectives_are_compared_on_the_same_captions() -> None:
    pairs = {(pair["a"], pair["b"]): pair["kind"] for pair in compared_pairs(load_study("objectives"))}
    assert pairs["aimv2-places", "none"] == pairs["dinov2", "none"] == "objective against none"
    assert pairs["aimv2-places", "clip-places"] == "objective against clip"
    assert pairs["aimv2-places", "aimv2-objects"] == "captions"
    assert ("aimv2-places", "clip-objects") not in pairs and ("clip-objects", "clip-objects") not in pairs


def test_released_arms_are_compared_with_the_corrected_ones() -> None:
    pairs = {(pair["a"], pair["b"]): pair["kind"] for pair in compared_pairs(load_study("released"))}
    assert pairs["clip-concat", "clip-2d-swapped"] == "positions against axial"
    assert pairs["clip-2d-swapped", "clip-2d"] == "pretrained_with"
    assert pairs["clip-published", "clip-concat"] == pairs["clip-2d-forgotten", "clip-2d"] == "evaluate_with"
    assert pairs["siglip-dropped", "siglip"] == "drop_first_patch"
    assert pairs["replicate", "aimv2"] == "replicate"


def test_families_differ_in_more_than_one_axis_and_it_says_in_which() -> None:
    beside = {(one.a, one.b): one for one in compare_arms(load_study("miniature")) if not one.tested}
    clip = beside["LLaVA-CLIP", "LLaVA-SigLIP"]
    assert clip.verdict == "not controlled: 3 axes move together"
    architecture, pixels, objective = clip.moves
    assert "CLS token: yes against no" in architecture and "CLIPVisionModel against SiglipVisionModel" in architecture
    assert pixels.startswith("preparation of pictures: normalisation of pixels: CLIP")
    assert objective == "pretraining objective: CLIP against SigLIP"
    same_trunk = beside["LLaVA-SigLIP", "LLaVA-SigLIP2"]
    assert same_trunk.moves == ("pretraining objective: SigLIP against SigLIP2",) and same_trunk.controlled
    assert len(beside) == 6


def test_an_uncontrolled_pair_is_called_so(study_of: Any) -> None:
    study = study_of({"named": [named("a"), named("b", family="aimv2", positions="axial", pretrained_with="learned")]})
    assert compare_arms(study) == []  # nothing is compared, and nothing else is alike
    cross = {"family": ["clip", "aimv2"]}
    study = study_of({"base": {"captions": "objects"}, "cross": cross, "compare": {"family": ["clip"]}})
    (tested,) = (one for one in compare_arms(study) if one.tested)
    assert not tested.controlled and tested.to_dict()["verdict"] == "not controlled: 2 axes move together"
