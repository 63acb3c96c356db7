"""The plan: which steps there are and what their keys depend on."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest

from blindspot.errors import UserError
from blindspot.studies import versions
from blindspot.studies.arms import expand_arms
from blindspot.studies.compare import compared_pairs
from blindspot.studies.loading import _merge, load_study
from blindspot.studies.plan import plan_steps, write_plan
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
    assert len(steps) == 1 + 2 * (1 + 9 * 5)
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
        ({"seeds": 3}, set()),
    ],
)
def test_a_change_touches_only_what_depends_on_it(changes: dict, kinds: set[str]) -> None:
    assert changed(**changes) == kinds


def test_an_added_family_leaves_the_other_arms_alone() -> None:
    small, large = plan(arms={"families": ["clip"]}), plan()
    assert all(large[name].key == step.key for name, step in small.items())


def test_replicate_shares_the_text_step_and_nothing_else() -> None:
    steps = plan()
    twin, replicate = steps["connector/clip-learned/seed1"], steps["connector/replicate/seed1"]
    assert replicate.inputs["text"] == twin.inputs["text"] == "text/seed1"
    assert (replicate.seed, replicate.config["seed"]) == (1, 1001)
    assert {**replicate.config, "seed": 1} == twin.config
    assert steps["encoder/replicate/seed1"].key != steps["encoder/clip-learned/seed1"].key


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
    assert {"id", "kind", "arm", "seed", "stage", "folder", "key", "inputs", "estimate"} == set(written["steps"][0])
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
    "__init__.py",
    "studies/__init__.py",
    "benchmarks/__init__.py",
    "benchmarks/base.py",  # NLVR is also a benchmark for other models, with sources and rules by harness
    "benchmarks/rules.py",
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


def test_nlvr_fingerprint_follows_content_not_place(tmp_path: Path) -> None:
    for copy in ("a", "b"):
        (tmp_path / copy / "images").mkdir(parents=True)
        (tmp_path / copy / "images" / "x.png").write_bytes(b"x")
        for split in ("train", "dev", "test"):
            (tmp_path / copy / f"{split}.jsonl").write_text("{}")
    first = versions.nlvr_fingerprint(tmp_path / "a")
    assert versions.nlvr_fingerprint(tmp_path / "b") == first
    (tmp_path / "b" / "images" / "x.png").write_bytes(b"y")
    assert versions.nlvr_fingerprint(tmp_path / "b") != first
    (tmp_path / "b" / "dev.jsonl").unlink()
    with pytest.raises(UserError, match="no rows of the dev split of NLVR"):
        versions.nlvr_fingerprint(tmp_path / "b")
    with pytest.raises(UserError, match="--data: no NLVR folder"):
        versions.nlvr_fingerprint(tmp_path / "c")
    with pytest.raises(UserError, match="git clone"):
        versions.nlvr_fingerprint(None)
