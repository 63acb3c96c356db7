"""The plan: which steps there are and what their keys depend on."""

import ast
import cProfile
import json
import pstats
import time
from pathlib import Path
from typing import Any

import pytest

from blindspot.benchmarks.registry import BENCHMARKS, SETS
from blindspot.reporting.run import load_plan
from blindspot.studies import versions
from blindspot.studies.arms import expand_arms
from blindspot.studies.compare import compared_pairs
from blindspot.studies.loading import _merge, load_study
from blindspot.studies.plan import LARGE, plan_steps, write_plan
from blindspot.studies.progress import SECONDS_TO_START
from blindspot.studies.schema import Study
from blindspot.studies.step import Step


def plan(code: str = "code", data: str | None = None, seeds: int | None = None, **changes: Any) -> dict[str, Step]:
    study = load_study("miniature", seeds=seeds)
    study = Study.model_validate(_merge(study.model_dump(exclude_none=True), changes))
    return {step.id: step for step in plan_steps(study, code, data)}


def changed(**changes: Any) -> set[str]:
    before, after = plan(), plan(**changes)
    return {
        before[name].kind if before[name].kind != "evaluate" else f"evaluate {before[name].stage}"
        for name in before
        if before[name].key != after[name].key
    }


def test_arms_are_the_papers_eight_and_a_replicate() -> None:
    labels = [arm.label for arm in expand_arms(load_study("miniature"))]
    families = ["CLIP", "SigLIP", "SigLIP2", "AIMv2"]
    assert labels[:-1] == [f"LLaVA-{name}{suffix}" for name in families for suffix in ("", "-2D-RoPE")]
    assert labels[-1] == "LLaVA-CLIP (replicate)"


def test_pairs_are_same_family_other_positions_and_the_replicate() -> None:
    pairs = compared_pairs(load_study("miniature"))
    assert [pair["label"] for pair in pairs] == ["CLIP", "SigLIP", "SigLIP2", "AIMv2", "CLIP, other seed"]
    words = {"first": "2D-RoPE", "second": "learned positions"}
    assert pairs[0] == {"a": "clip-axial", "b": "clip-learned", "label": "CLIP", "kind": "positions", **words}
    assert (pairs[-1]["a"], pairs[-1]["b"], pairs[-1]["kind"]) == ("replicate", "clip-learned", "replicate")


def test_steps_come_after_their_inputs_and_their_keys_follow_code_and_data() -> None:
    steps = list(plan(seeds=2).values())
    keys = [step.key for step in steps]
    assert keys == [step.key for step in plan(seeds=2).values()]
    assert not set(keys) & {step.key for other in (plan(code="other"), plan(data="x")) for step in other.values()}
    assert len(steps) == 2 + 2 * 9 * 5
    seen: set[str] = set()
    for step in steps:
        assert set(step.inputs.values()) <= seen
        seen.add(step.id)
    assert len({step.folder for step in steps}) == len(steps)
    assert all(step.folder.count("/") == 1 for step in steps)


STAGE_2 = {"instruct", "evaluate instruct"}
AFTER_PRETRAINING = {"connector", "evaluate connector", *STAGE_2}


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"instruct": {"lr": 1e-3}}, STAGE_2),
        ({"connector": {"steps": 1}}, AFTER_PRETRAINING),
        ({"encoder": {"captions": "places"}}, {"encoder", *AFTER_PRETRAINING}),
        ({"text": {"about": "raster"}}, {"text", *AFTER_PRETRAINING}),
        ({"model": {"encoder_layers": 1}}, {"encoder", *AFTER_PRETRAINING}),
        ({"data": {"seed": 1}}, {"data", "text", "encoder", *AFTER_PRETRAINING}),
        ({"title": "Another"}, set()),
        ({"seeds": 4}, set()),
    ],
)
def test_a_change_touches_only_what_depends_on_it(changes: dict, kinds: set[str]) -> None:
    assert changed(**changes) == kinds


def test_an_added_family_leaves_the_other_arms_alone() -> None:
    small, large = plan(arms={"families": ["clip"]}), plan()
    assert all(large[name].key == step.key for name, step in small.items())


def test_replicate_shares_the_text_step_and_nothing_else() -> None:
    steps = plan(text={"shared": False})
    twin, replicate = steps["connector/clip-learned/seed1"], steps["connector/replicate/seed1"]
    assert replicate.inputs["text"] == twin.inputs["text"] == "text/seed1"
    assert (replicate.seed, replicate.config["seed"]) == (1, 1001)
    assert {**replicate.config, "seed": 1} == twin.config
    assert steps["encoder/replicate/seed1"].key != steps["encoder/clip-learned/seed1"].key


def test_seeds_share_a_language_model_or_not_and_the_page_says_so(tmp_path: Path) -> None:
    study = load_study("miniature")
    shared, own = plan(), plan(text={"shared": False})
    assert [name for name in shared if name.startswith("text")] == ["text/seed0"]
    assert {step.inputs["text"] for step in shared.values() if step.kind == "instruct"} == {"text/seed0"}
    assert sorted(name for name in own if name.startswith("text")) == [
        f"text/seed{seed}" for seed in range(study.seeds)
    ]
    assert all(step.inputs["text"] == f"text/seed{step.seed}" for step in own.values() if step.kind == "instruct")
    for text, says in (
        ({"shared": True}, "one pretrained language model"),
        ({"shared": False}, "share the data alone"),
    ):
        told = Study.model_validate(_merge(study.model_dump(exclude_none=True), {"text": text}))
        write_plan(tmp_path, told, plan_steps(told, "code"))
        assert sum(says in note for note in json.loads((tmp_path / "plan.json").read_text())["notes"]) == 1


def test_what_an_hour_gives_means_something() -> None:
    assert load_study("miniature", "long").meaningful and not load_study("miniature", "smoke").meaningful


def test_plan_file_tells_the_reports_what_they_need(tmp_path: Path) -> None:
    study = load_study("miniature", scale="smoke")
    steps = plan_steps(study, "code")
    write_plan(tmp_path, study, steps)
    written = json.loads((tmp_path / "plan.json").read_text())
    assert (written["study"], written["scale"], written["meaningful"]) == ("miniature", "smoke", False)
    assert written["data"]["test"] == steps[0].folder
    assert [column["id"] for column in written["columns"]][:2] == ["mmvp", "cvbench_relation"]
    arm = written["arms"][0]
    assert (arm["id"], arm["label"], arm["replicate_of"]) == ("clip-learned", "LLaVA-CLIP", None)
    assert (arm["block"], arm["panel"]) == ("1-D: learned absolute positions", "CLIP")
    assert (arm["marker"], arm["baseline"]) == ("learned positions", True)
    assert (arm["axes"]["family"], arm["axes"]["positions"], arm["axes"]["connector"]) == ("clip", "learned", "mlp")
    assert {"id", "kind", "arm", "seed", "stage", "folder", "key", "inputs", "estimate", "gpus"} == set(
        written["steps"][0]
    )
    assert "mean nothing" in written["notes"][0]


def test_code_version_follows_rooms_that_make_results_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "PACKAGE", tmp_path)
    monkeypatch.setattr(versions, "RESULT_SOURCES", ("model", "studies/steps.py"))
    for name in ("model/a.py", "reporting/b.py", "studies/steps.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    first = versions.code_version()
    (tmp_path / "reporting/b.py").write_text("2")
    assert versions.code_version() == first
    (tmp_path / "model/a.py").write_text("2")
    second = versions.code_version()
    (tmp_path / "studies/steps.py").write_text("2")
    assert len({first, second, versions.code_version()}) == 3


@pytest.mark.parametrize("gone", ["model/rewritten.py", "rooms"])
def test_a_listed_source_that_does_not_exist_is_an_error(gone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "RESULT_SOURCES", (*versions.RESULT_SOURCES, gone))
    with pytest.raises(FileNotFoundError, match=gone):
        versions.code_version()


WITHOUT_A_NUMBER = {
    "studies/tracking.py",
    "training/tracker.py",
    "text.py",
    "terminal.py",
    "__init__.py",
    "studies/__init__.py",
    "benchmarks/__init__.py",
    "plugins.py",  # what they bring is counted by its bytes
    "benchmarks/points.py",
    "benchmarks/base.py",  # NLVR is also a benchmark for other models, with sources and rules by harness
    "benchmarks/rules.py",
    "benchmarks/registry.py",  # by way of the words of benchmarks, which no arm of a study of scenes is asked in
    "benchmarks/own.py",
    "benchmarks/words.py",
    "evaluation/prompts.py",
    "benchmarks/sources/__init__.py",
    "benchmarks/sources/forms.py",
    "errors.py",
    "files.py",
    "rendezvous.py",
    "studies/relatives.py",
    "studies/step.py",
    "training/__init__.py",
    "training/flops.py",
}
"""What steps import that no result depends on."""


def test_keys_follow_all_code_that_steps_import() -> None:
    trained = set(versions.sources(versions.RESULT_SOURCES))
    diagnosed = set(versions.sources(versions.DIAGNOSIS_SOURCES))
    others = ("studies/diagnosing.py", "studies/real.py")  # with keys of their own
    assert _imported("studies/steps.py", others) - trained <= WITHOUT_A_NUMBER
    assert _imported("studies/diagnosing.py") - trained - diagnosed <= WITHOUT_A_NUMBER


def _imported(start: str, without: tuple[str, ...] = ()) -> set[str]:
    """Files of the package that one imports, directly or not."""
    found: set[str] = set()
    left = {start}
    while left:
        name = left.pop()
        found.add(name)
        for node in ast.walk(ast.parse((versions.PACKAGE / name).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("blindspot"):
                modules = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
                left |= {file for module in modules for file in _files(module)} - found - {*without}
    return found


def _files(module: str) -> list[str]:
    path = module.replace(".", "/").removeprefix("blindspot").lstrip("/")
    names = [f"{path}.py", f"{path}/__init__.py".lstrip("/")]
    return [name for name in names if (versions.PACKAGE / name).is_file()]


def test_a_large_benchmark_of_a_model_is_a_step_of_its_own_and_small_ones_share_one() -> None:
    study = load_study("paper")
    steps = plan_steps(study, "code")
    of_clip = {step.id: step for step in steps if step.kind == "evaluate" and step.arm == "clip"}
    asked_of_all = [*SETS["paper"], "coco_boxes"]
    large = {name for name in asked_of_all if not BENCHMARKS[name].size or BENCHMARKS[name].size >= LARGE}
    assert large == {"tallyqa", "gqa", "topviewrs", "seedbench_img", "coco_boxes"}, "or of a size that is not known"
    for stage in ("connector", "instruct"):
        asked = [step.config["benchmarks"] for step in of_clip.values() if step.stage == stage]
        assert sorted(name for names in asked for name in names) == sorted(asked_of_all), "each once"
        assert of_clip[f"evaluate/{stage}/gqa/clip/seed0"].config["benchmarks"] == ["gqa"]
        assert len(of_clip[f"evaluate/{stage}/clip/seed0"].config["benchmarks"]) == 7
    model = {step.id: step for step in steps if step.arm == "gemma3"}
    assert set(model) == {
        "evaluate/instruct/gemma3/seed0",
        *(f"evaluate/instruct/{name}/gemma3/seed0" for name in large),
    }
    seconds = {step.id.split("/")[2]: step.estimate - SECONDS_TO_START for step in model.values()}
    assert seconds["tallyqa"] / seconds["gqa"] == pytest.approx(38589 / 12578), "time follows questions"


@pytest.mark.parametrize(("asked", "ids"), [
    ("[mmvp, vsr]", ["evaluate/instruct/m/seed0"]),
    ("[gqa]", ["evaluate/instruct/gqa/m/seed0"]),
    ("[gqa, mmvp]", ["evaluate/instruct/m/seed0", "evaluate/instruct/gqa/m/seed0"]),
])  # fmt: skip
def test_steps_of_a_model_follow_what_the_study_asks(tmp_path: Path, asked: str, ids: list[str]) -> None:
    model = "models: [{id: m, label: M, model: a/b}]"
    (tmp_path / "mine.yaml").write_text(f"extends: paper\nname: mine\ntitle: Mine\nbenchmarks: {asked}\n{model}\n")
    for scale in ("full", "rehearsal"):
        study = load_study(tmp_path / "mine.yaml", scale)
        assert [step.id for step in plan_steps(study, "") if step.arm == "m"] == ids


def test_another_large_benchmark_asks_nothing_else_again(tmp_path: Path) -> None:
    def keys(asked: str) -> dict[str, str]:
        (tmp_path / "mine.yaml").write_text(f"extends: paper\nname: mine\ntitle: Mine\nbenchmarks: {asked}\n")
        return {step.id: step.key for step in plan_steps(load_study(tmp_path / "mine.yaml"), "")}

    few, many = keys("[mmvp, tallyqa]"), keys("[mmvp, gqa, tallyqa]")
    assert few.items() < many.items()
    assert {name.split("/")[2] for name in many.keys() - few.keys()} == {"gqa"}


LARGE_STUDY = """
extends: paper
name: large
title: Large
arms:
  base: {image_size: 256, language_model: lmsys/vicuna-7b-v1.5, encoder: openai/clip-vit-large-patch14-336}
  named:
%s
seeds: 5
diagnose: [probes]
benchmarks: [paper]
models: []
"""


def large_study(path: Path, arms: int) -> Study:
    """With arms that are compared one with the next."""
    others = [1, *range(arms - 1)]
    named = [f"    - {{id: a{n}, label: A{n}, image_size: {32 + n}, against: [a{others[n]}]}}" for n in range(arms)]
    path.write_text(LARGE_STUDY % "\n".join(named))
    return load_study(path)


def test_no_function_is_called_more_than_twice_as_often_for_twice_the_arms(tmp_path: Path) -> None:
    def calls(arms: int) -> dict[tuple[str, int, str], int]:
        profile = cProfile.Profile()
        with profile:
            study = large_study(tmp_path / "large.yaml", arms)
            steps = plan_steps(study, "code")
            write_plan(tmp_path, study, steps)
            plan = load_plan(tmp_path)
        assert len(steps) == len(plan.steps) == arms * 5 * (2 + 2 * 5 + 1) and len(plan.pairs) == arms
        return {place: told[0] for place, told in pstats.Stats(profile).stats.items()}  # pyright: ignore

    few, many = calls(50), calls(100)
    assert not {place: count for place, count in many.items() if count > 2.2 * few.get(place, 0) + 1000}


def test_500_arms_from_5_seeds_are_planned_in_5_seconds(tmp_path: Path) -> None:
    began = time.process_time()  # on a core, which other processes of a busy machine do not change
    study = large_study(tmp_path / "large.yaml", 500)
    write_plan(tmp_path, study, plan_steps(study, "code"))
    assert time.process_time() - began < 5
