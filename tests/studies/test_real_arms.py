"""Studies of real size: what they may say, the arms they resolve to, and what moves between these."""

import json
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.studies.arms import expand_arms, find_arm
from blindspot.studies.axes import LANGUAGE_POSITIONS
from blindspot.studies.budget import GPUS, flops
from blindspot.studies.compare import compare_arms, compared_pairs
from blindspot.studies.loading import load_study
from blindspot.studies.plan import plan_steps, write_plan

SHIPPED = ("paper", "paper-released", "paper-controlled", "paper-fusion")
SMALL = """
name: small
title: Two arms
arms:
  base: {encoder: google/siglip-large-patch16-256, language_model: lmsys/vicuna-7b-v1.5}
  named:
    - {id: plain, label: Plain}
    - {id: turned, label: Turned, positions: axial, against: [plain]}
connector: {recipe: llava, trains: [connector], data: llava-pretrain, template: plain, batch: 256, lr: 1e-3,
            warmup: 0.03, schedule: cosine, epochs: 1, max_length: 2048, aspect_ratio: square}
instruct: {recipe: llava, trains: [connector, language_model], data: llava-mix665k, template: v1, batch: 128,
           lr: 2e-5, warmup: 0.03, schedule: cosine, epochs: 1, max_length: 2048, aspect_ratio: pad}
seeds: 2
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(folder: Path, old: str, new: str) -> str:
    assert old in SMALL
    with pytest.raises(UserError) as refused:
        load_study(_write(folder, SMALL.replace(old, new, 1)))
    message = str(refused.value)
    assert "\n" not in message and "mine.yaml" in message
    return message


def test_arms_and_models_stand_in_rows_of_the_paper_by_what_they_say_or_by_their_label(tmp_path: Path) -> None:
    said = SMALL.replace("label: Plain", "label: LLaVA-SigLIP").replace(
        "label: Turned", "label: Turned, paper: LLaVA-AIMv2"
    )
    said += "models: [{id: molmo, label: Molmo, model: a/b}, {id: own, label: Own, model: a/c}]\n"
    study = load_study(_write(tmp_path, said))
    write_plan(tmp_path, study, plan_steps(study, "code"))
    arms = {arm["id"]: arm["paper"] for arm in json.loads((tmp_path / "plan.json").read_text())["arms"]}
    assert arms == {"plain": "LLaVA-SigLIP", "turned": "LLaVA-AIMv2", "molmo": "Molmo", "own": None}
    assert 'paper: "LLaVA-SigLip": unknown;' in _refusal(tmp_path, "label: Plain", "label: Plain, paper: LLaVA-SigLip")
    for name in ("paper-controlled", "paper-fusion"):
        assert {arm.paper for arm in expand_arms(load_study(name))} >= {"LLaVA-1.5", "LLaVA-2D-RoPE", "LLaVA-AIMv2"}


@pytest.mark.parametrize(
    ("models", "message"),
    [
        ("[{id: a, label: A}]", "models[0].model: missing"),
        ('[{id: a, label: A, model: "http://x/v1"}]', "models[0]: http://x/v1 may serve several models; name one with"),
        ("[{id: a, label: A, model: a/b, served: c}]", "models[0]: served and key_env are a server's, and a/b is no"),
        ("[{id: a, label: A, model: a/b, seeds: 3}]", "models[0].seeds: unknown key"),
        ("[{id: plain, label: A, model: a/b}]", 'two arms or models are called "plain"'),
        ("[{id: replicate, label: A, model: a/b}]", 'two arms or models are called "replicate"'),
    ],
)
def test_models_that_make_no_sense_are_one_line(models: str, message: str, tmp_path: Path) -> None:
    assert message in _refusal(tmp_path, "seeds: 2", f"seeds: 2\nmodels: {models}")


def test_a_model_is_asked_again_only_where_it_or_what_it_is_asked_changes(tmp_path: Path) -> None:
    def key(**changes: str) -> str:
        model = {"id": "m", "label": "M", "model": '"http://x/v1"', "served": "s", "key_env": "K", **changes}
        said = ", ".join(f"{name}: {value}" for name, value in model.items() if name != "benchmarks")
        asked = f"benchmarks: [{changes.get('benchmarks', 'mmvp')}]"
        study = load_study(_write(tmp_path, f"{SMALL}{asked}\nmodels:\n  - {{{said}}}\n"))
        (step,) = [step for step in plan_steps(study, "") if step.arm == "m"]
        assert (step.kind, step.stage, step.seed, step.inputs) == ("evaluate", "instruct", 0, {})
        return step.key

    assert key() == key(key_env="OTHER") == key(label="N") == key(block="B")
    assert len({key(), key(served="t"), key(model='"http://y/v1"'), key(benchmarks="vsr")}) == 4


def test_a_study_with_other_arms_has_no_models_of_the_one_that_it_extends(tmp_path: Path) -> None:
    assert load_study("paper").models and not load_study("paper-next").models
    assert load_study(_write(tmp_path, "extends: paper\nname: mine\ntitle: Mine")).models == load_study("paper").models


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_studies_have_the_papers_eight_arms(name: str) -> None:
    study = load_study(name)
    families = [arm.encoder_size.family for arm in expand_arms(study)]
    assert study.recipe == "llava"
    assert study.name == name
    assert families[:8] == ["clip", "siglip", "siglip2", "aimv2"] * 2
    assert {arm.stages["instruct"].steps for arm in expand_arms(study)} == {5198}


def test_a_study_of_real_size_extends_a_shipped_one(tmp_path: Path) -> None:
    extending = load_study(_write(tmp_path, "extends: paper\nname: mine\ntitle: Mine\nseeds: 3"))
    assert extending.arms == load_study("paper").arms and extending.seeds == 3


def test_the_paper_as_its_text_states_it() -> None:
    for arm in expand_arms(load_study("paper")):
        first, second = arm.stages["connector"], arm.stages["instruct"]
        assert arm.point.image_size == 256
        assert (first.batch, first.lr, first.trains, first.steps) == (256, 1e-3, ["connector"], 2181)
        assert (second.batch, second.lr) == (128, 2e-5)
        assert set(second.trains) == {"connector", "language_model", "encoder"}


def test_the_paper_as_its_code_does_it() -> None:
    arms = {arm.id: arm for arm in expand_arms(load_study("paper-released"))}
    assert [arms[name].image_tokens for name in ("clip", "siglip", "siglip2", "aimv2")] == [576, 255, 255, 256]
    assert all("encoder" not in stage.trains for arm in arms.values() for stage in arm.stages.values())
    for name in ("clip-2d", "siglip-2d", "siglip2-2d"):
        arm = arms[name]
        assert arm.point.positions.values == {"scheme": "released_concat", "table": "released"}
        assert arm.point.evaluate_with.name == "learned"
        assert (arm.stages["connector"].batch, arm.stages["connector"].steps) == (128, 4361)
    assert arms["aimv2-2d"].point.positions.name == "learned", "the code never uses the converted AIMv2"


def test_controlled_arms_share_everything_but_one_axis() -> None:
    study = load_study("paper-controlled")
    arms = expand_arms(study)
    assert {(arm.image_tokens, arm.encoder_size.layers, arm.encoder_size.width) for arm in arms} == {(256, 24, 1024)}
    assert all("encoder" in stage.trains for arm in arms for stage in arm.stages.values())
    compared = compare_arms(study)
    tested = [one for one in compared if one.tested and not one.seed_only]
    assert [one.moves for one in tested] == [("encoder positions: 2D-RoPE against learned positions",)] * 4
    assert all(one.controlled for one in tested)
    assert [one.a for one in compared if one.seed_only] == ["SigLIP (replicate)"]
    assert not any(one.controlled for one in compared if not one.tested)


def test_released_arms_differ_in_many_things_at_once() -> None:
    compared = {(one.a, one.b): one for one in compare_arms(load_study("paper-released"))}
    rope = compared["LLaVA-2D-RoPE", "LLaVA-1.5"]
    assert rope.moves == (
        "encoder positions: 2D-RoPE as released (table released) against learned positions",
        "positions at evaluation: learned positions instead against as trained",
        "batch of stage 1: 128 against 256",
    )
    encoder = compared["LLaVA-SigLIP", "LLaVA-1.5"].moves
    assert [text.split(":")[0] for text in encoder] == [
        "pretrained weights",
        "architecture",
        "size of the encoder",
        "resolution",
        "preparation of pictures",
        "patch tokens",
        "patches",
    ]
    assert compared["LLaVA-AIMv2-2D-RoPE", "LLaVA-AIMv2"].moves == ("batch of stage 1: 128 against 256",)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("warmup: 0.03", "warm_up: 0.03", 'connector.warm_up: unknown key; did you mean "warmup"?'),
        ("label: Plain", "label: Plain, encodr: x", 'arms.named[0].encodr: unknown key; did you mean "encoder"?'),
        ("template: plain", "template: plane", '"plane": unknown; did you mean "plain"?'),
        ("llava-pretrain", "llava-pretrained", '"llava-pretrained": unknown; did you mean "llava-pretrain"?'),
        ("data: llava-pretrain", "data: {fil: a}", 'connector.data.fil: unknown key; did you mean "file"?'),
        (
            "data: llava-pretrain",
            "data: {file: a, rows: 1, with_image: 2}",
            "with_image 2: more than there are rows (1)",
        ),
        ("warmup: 0.03", "warmup: 1.5", "connector.warmup"),
        ("siglip-large-patch16-256", "siglip-large-patch16-265", 'did you mean "google/siglip-large-patch16-256"?'),
        (
            "against: [plain]",
            "against: [plan]",
            '"turned": "plan": not another arm of this study; did you mean "plain"?',
        ),
        ("trains: [connector]", "trains: [encoder]", "does not train the connector"),
        ("lr: 1e-3", "lr: 1e-3, encoder_lr: 1e-5", ""),
        (
            "positions: axial",
            "positions: {scheme: axial, table: released}, stages: {instruct: {trains: [connector, encoder]}}",
            'the table "released" belongs to a frozen encoder',
        ),
        ("label: Plain", "label: Plain, stages: {instruct: {encoder_lr: 1e-6}}", "the encoder is not among"),
        ("label: Plain", "label: Plain, image_size: 8", "smaller than a patch"),
        ("label: Plain", "label: Plain, connector: resampler, language_positions: mrope", "rows and columns"),
        ("recipe: llava", "recipe: lava", "connector.recipe: unknown; one of: toy, llava"),
        ("seeds: 2", "seeds: 2\ndata: {train: 1, test: 1}", "data: is of models trained from nothing"),
        ("label: Plain", "label: Plain, family: clip", "family: is for the recipe toy"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_write(tmp_path: Path, old: str, new: str, says: str) -> None:
    if not says:  # a study may give a rate that an arm with a frozen encoder has no use for
        study = load_study(_write(tmp_path, SMALL.replace(old, new, 1)))
        assert find_arm(study, "plain").stages["connector"].encoder_lr is None
        return
    assert says in _refusal(tmp_path, old, new)


def test_an_arm_is_resolved_with_everything_a_run_needs(tmp_path: Path) -> None:
    study = load_study(_write(tmp_path, SMALL + "\n"))
    arm = find_arm(study, "turned")
    assert (arm.point.image_size, arm.image_tokens, arm.seeds) == (256, 256, (0, 1))
    assert arm.point.evaluate_with is arm.point.positions
    assert arm.point.connector.values == {"name": "mlp"}
    with pytest.raises(FrozenInstanceError):
        arm.id = "x"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(UserError, match='no arm "turnd"; did you mean "turned"'):
        find_arm(study, "turnd")


def test_an_arm_may_start_from_the_connector_of_another(tmp_path: Path) -> None:
    text = SMALL.replace("positions: axial", "connector_from: plain")
    arm = find_arm(load_study(_write(tmp_path, text)), "turned")
    assert list(arm.own_stages) == ["instruct"]
    other = "connector_from: plain, encoder: google/siglip-base-patch16-256"
    assert "another encoder" in _refusal(tmp_path, "positions: axial", other)
    assert "not another arm" in _refusal(tmp_path, "positions: axial", "connector_from: turned")


def test_the_replicate_draws_from_other_seeds(tmp_path: Path) -> None:
    text = SMALL.replace("\nconnector:", "\n  replicate: plain\nconnector:", 1)
    arms = {arm.id: arm for arm in expand_arms(load_study(_write(tmp_path, text)))}
    assert arms["replicate"].replicate_of == "plain"
    assert not set(arms["replicate"].seeds) & set(arms["plain"].seeds)


@settings(max_examples=25)
@given(rows=st.integers(1, 10**7), batch=st.integers(1, 4096), epochs=st.integers(1, 4))
def test_every_row_is_seen_once_an_epoch(rows: int, batch: int, epochs: int) -> None:
    stage = find_arm(load_study("paper"), "clip").stages["instruct"]
    data = stage.data.model_copy(update={"rows": rows})
    count = stage.model_copy(update={"data": data, "batch": batch, "epochs": epochs}).steps
    assert (count - epochs) * batch < rows * epochs <= count * batch


def test_image_tokens_are_those_of_the_model() -> None:
    from blindspot.connectors import RULES, ConnectorSpec
    from blindspot.model.config import image_tokens
    from blindspot.positions import LanguagePositions
    from blindspot.studies.axes import CONNECTORS

    study = load_study("paper")
    base = find_arm(study, "clip")
    for language in LANGUAGE_POSITIONS.values():
        arm = replace(base, point=base.point.model_copy(update={"language_positions": language}))
        positions = LanguagePositions.from_dict(language.values)
        assert arm.image_tokens == image_tokens(ConnectorSpec(), positions, arm.grid, False)
    for name in RULES:
        arm = replace(base, point=base.point.model_copy(update={"connector": CONNECTORS[name]}))
        assert arm.image_tokens == image_tokens(ConnectorSpec(name), LanguagePositions(), arm.grid, False)


def test_a_study_that_one_gpu_does_overnight() -> None:
    study = load_study("small")
    arms = expand_arms(study)
    assert {arm.image_tokens for arm in arms} == {256}, "encoders are compared at as many tokens"
    assert {arm.language_size for arm in arms} == {arms[0].language_size} and arms[0].language_size.parameters < 4e8
    h100 = next(gpu for gpu in GPUS if "H100" in gpu.name)
    seconds = sum(flops(arm, stage).total for arm in arms for stage in arm.own_stages.values()) / (0.4 * h100.peak)
    assert study.seeds * seconds < 10 * 3600 and study.arms.replicate


def test_what_the_paper_leaves_to_future_work_moves_one_thing_at_a_time() -> None:
    arms = {arm.id: arm for arm in expand_arms(load_study("paper-next"))}
    assert {arms[f"px{side}-pooled"].image_tokens for side in (224, 336, 448)} == {49}
    assert [arms[f"px{side}"].image_tokens for side in (224, 336, 448)] == [196, 441, 784]
    assert arms["naflex"].image_tokens == arms["siglip2"].image_tokens == 256
    assert arms["naflex"].stages["instruct"].aspect_ratio == "square", "a padded picture has no aspect ratio to keep"


def test_two_d_positions_in_the_language_model() -> None:
    study = load_study("paper-fusion")
    for pair in compared_pairs(study):
        a, b = (next(arm.point for arm in expand_arms(study) if arm.id == pair[side]) for side in ("a", "b"))
        moved = {axis for axis in a.given if str(getattr(a, axis)) != str(getattr(b, axis))}
        assert moved == {"language_positions"}
