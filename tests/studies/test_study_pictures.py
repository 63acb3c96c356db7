"""Studies about pictures of other sizes and shapes: what their arms see, and that they run."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blindspot.encoders import ENCODERS
from blindspot.errors import UserError
from blindspot.reporting import collect
from blindspot.scenes import sampling
from blindspot.scenes.render import render
from blindspot.scenes.text import WORDS, words
from blindspot.scenes.world import CANVAS, draw_distinct, put
from blindspot.studies.arms import expand_arms
from blindspot.studies.corpus import EncoderView
from blindspot.studies.loading import load_study, save_study
from blindspot.studies.plan import plan_steps
from blindspot.studies.schema import Arms, NamedArm

SIZES = [(48, 48), (32, 72), (72, 32)]
SIGLIP = ENCODERS["siglip"]


@given(st.integers(0, 10**6))
def test_scenes_lie_anywhere_in_larger_pictures_and_boxes_follow(seed: int) -> None:
    scene = draw_distinct(Random(seed), "iid")
    first, second = put(Random(seed), [scene, scene], SIZES)
    assert first == second and (first.height, first.width) in SIZES
    for before, after in zip(scene.things, first.things, strict=True):
        assert (after.x - before.x, after.y - before.y) == (first.things[0].x - scene.things[0].x,
                                                            first.things[0].y - scene.things[0].y)  # fmt: skip
        assert 0 <= after.x <= first.width - after.size and 0 <= after.y <= first.height - after.size
    down, across = first.things[0].y - scene.things[0].y, first.things[0].x - scene.things[0].x
    own = render(first)[down : down + CANVAS, across : across + CANVAS]
    assert np.array_equal(own, render(scene)) and render(first).shape == (first.height, first.width, 3)
    assert put(Random(seed), [scene], []) == [scene]


def test_questions_about_them_name_no_cells_and_have_the_boxes_of_their_pictures() -> None:
    scenes, questions = sampling.test_questions("iid", 12, 0, sizes=SIZES)
    assert not {"recognition", "localisation"} & {question.groups["task"] for question in questions}
    assert {question.benchmark for question in questions} == {
        one.benchmark for one in sampling.test_questions("iid", 12, 0)[1]
    }
    boxes = [question for question in questions if question.kind == "boxes"]
    for question in boxes:
        things = scenes[question.images[0]].things
        (thing,) = (one for one in things if question.prompt.endswith(one.colour))
        assert question.answer == " ".join(map(str, thing.box))
    said = {word for question in questions for word in f"{question.prompt} {question.answer}".split()}
    assert said <= set(words(72)) and words() == WORDS
    pairs: dict[str, set[tuple[int, int]]] = {}
    for question in questions:
        if question.benchmark == "mmvp":
            scene = scenes[question.images[0]]
            pairs.setdefault(question.groups["cluster"], set()).add((scene.height, scene.width))
    assert pairs and all(len(sizes) == 1 for sizes in pairs.values()), "both pictures of a pair have one shape"


def picture(height: int, width: int) -> np.ndarray:
    """A wide or tall picture in the corner of a square, white at its ends and grey between."""
    drawn = np.full((height, width, 3), 128, np.uint8)
    drawn[:8, :8] = drawn[-8:, -8:] = 255
    side = max(height, width)
    return np.pad(drawn, ((0, side - height), (0, side - width), (0, 0)))


def test_a_picture_is_squashed_padded_cropped_or_cut_into_patches_as_it_is() -> None:
    images, sizes = picture(32, 72)[None], np.array([[32, 72]])
    seen = {kind: EncoderView(48, 8, kind)(images, SIGLIP, sizes) for kind in ("squash", "pad", "crop")}  # pyright: ignore
    squash, pad, crop = (seen[kind]["pixel_values"][0, 0] for kind in ("squash", "pad", "crop"))
    grey = 2 * 128 / 255 - 1
    assert squash[0, 0] == squash[-1, -1] == 1 and squash[24, 24] == pytest.approx(grey, abs=1e-6)
    high = round(48 * 32 / 72)
    assert not pad[: (48 - high) // 2].any() and not pad[-((48 - high) // 2) :].any() and pad[24].all()
    assert pad[(48 - high) // 2, 0] > 0.9, "all of it is there"
    assert torch.allclose(crop, torch.full_like(crop, grey), atol=1e-6), "what lies at its ends is lost"
    native = EncoderView(48, 8, "native")(
        np.stack([picture(32, 72), picture(72, 32)]), SIGLIP, np.array([[32, 72], [72, 32]])
    )
    assert native["pixel_values"].shape == (2, 36, 192) and native["spatial_shapes"].tolist() == [[4, 9], [9, 4]]
    assert (native["pixel_values"][:, 0] == 1).all() and (native["pixel_values"][:, -1] == 1).all()


def test_reduced_pictures_have_lost_what_is_fine_and_others_are_untouched() -> None:
    fine = np.tile(np.array([[0, 255], [255, 0]], np.uint8)[..., None], (32, 32, 3))[None]
    plain, reduced = (EncoderView(64, 8, reduced_to=to)(fine, SIGLIP, None)["pixel_values"] for to in (None, 32))
    assert plain.shape == reduced.shape == (1, 3, 64, 64)
    assert plain.std() == pytest.approx(1, abs=0.01) and reduced.std() < 0.05
    assert torch.equal(plain[0, 0], torch.from_numpy(fine[0, ..., 0]).float() / 127.5 - 1)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("name", "some"),
    [
        ("resolution", {"base", "enlarged", "interpolated"}),
        ("aspect", {"pad", "naflex", "aimv2-native"}),
        ("connectors", {"mlp-norm", "qformer-blip2"}),
        ("layers", {"1-learned"}),
    ],
)
def test_it_runs_at_its_smoke_scale(name: str, some: set[str], tmp_path: Path, run_inline: Callable[..., Path]) -> None:
    """Those of its arms that no other study has the like of."""
    study = load_study(name, scale="smoke")
    arms = [arm for arm in expand_arms(study) if arm.id in some]
    named = [NamedArm.model_validate({"id": arm.id, "label": arm.label, **arm.point.given}) for arm in arms]
    few = {"arms": Arms(base=study.arms.base, named=named), "hypotheses": []}
    save_study(study.model_copy(update=few), tmp_path / "smoke.yaml")
    results = collect(run_inline(tmp_path / "smoke.yaml", tmp_path / "run"))
    assert {row["arm"] for row in results["scores"]} == some and not results["missing"]
    (boxes,) = (column for column in results["columns"] if column["id"] == "boxes")
    assert boxes["box_units"] == {"resolution": 40, "aspect": 72}.get(name, 32)
    if name == "resolution":
        assert len(list((tmp_path / "run").glob("steps/instruct_*"))) == 2, "asked at two resolutions, trained once"
        assert len(list((tmp_path / "run").glob("steps/evaluate_instruct_*"))) == 3


@pytest.mark.parametrize(
    ("arm", "values", "message"),
    [
        ({"aspect": "native"}, {}, "aspect: native is for siglip2_naflex, aimv2_native, and for these alone"),
        (
            {"family": "siglip2_naflex", "aspect": "native"},
            {},
            "objective: missing; siglip2_naflex has none of its own",
        ),
        ({"family": "siglip2_naflex", "objective": "siglip"}, {}, "aspect: native is for"),
        ({"image_size": 30}, {}, "image_size 30 is not a multiple of its patch (8 px)"),
        ({"layer": 9}, {}, "layer 9: the encoder has 2 blocks"),
        ({}, {"data": {"train": 9, "test": 1, "pictures": [[16, 64]]}}, "pictures: 16 x 64 is smaller than a scene"),
        ({}, {"data": {"train": 9, "test": 1, "scale": 2}, "source": "nlvr"}, "data: pictures and scale are of drawn"),
        ({}, {"data": {"train": 9, "test": 1, "scale": 2}, "diagnose": ["probes"]}, "diagnose: shows scenes that fill"),
        ({"connector_objective": "blip2"}, {}, "connector_objective: blip2 is for the connector qformer"),
    ],
)
def test_what_cannot_be_seen_is_one_line(
    study_of: Callable[..., Any], arm: dict[str, Any], values: dict[str, Any], message: str
) -> None:
    named = [{"id": "one", "label": "One", "family": "siglip", **arm}]
    with pytest.raises(UserError) as caught:
        expand_arms(study_of({"named": named}, **values))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_native_pictures_have_as_many_patches_as_the_square(study_of: Callable[..., Any]) -> None:
    arm = {"id": "one", "label": "One", "family": "aimv2_native", "objective": "clip", "aspect": "native"}
    data = {"train": 9, "test": 1, "pictures": [[32, 40]]}
    with pytest.raises(UserError, match="32 x 40 gives no 16 whole patches"):
        expand_arms(study_of({"named": [arm]}, data=data))


def test_older_studies_keep_their_keys() -> None:
    for name in ("miniature", "why"):
        steps = plan_steps(load_study(name), "code")
        assert set(steps[0].config["data"]) == {"train", "test", "probe", "seed"}
        assert not [step for step in steps if {"view", "layer", "evaluate_size"} & set(step.config)]
