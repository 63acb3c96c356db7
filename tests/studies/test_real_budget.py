"""The plan of a study of real size: golden numbers worked out by hand, missing files, and no need of torch."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from rich.console import Console

from blindspot.errors import UserError
from blindspot.studies import budget
from blindspot.studies.arms import Arm, find_arm
from blindspot.studies.budget import as_json, plan
from blindspot.studies.budget_show import print_plan
from blindspot.studies.loading import SHIPPED, load_study
from blindspot.studies.needs import needs
from blindspot.studies.sizes import encoder_size, language_size

ROOT = Path(__file__).parents[2]
A40, A100, H100, H200 = budget.GPUS
FOLDERS = ("coco/train2017", "gqa/images", "ocr_vqa/images", "textvqa/train_images", "vg/VG_100K", "vg/VG_100K_2")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No checkpoint is here, whatever this machine's own cache holds."""
    cache = tmp_path / "hub"
    cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture
def frozen(tmp_path: Path) -> Arm:
    """CLIP of the matched set, frozen: the case that was counted by hand."""
    text = (SHIPPED / "paper-controlled.yaml").read_text(encoding="utf-8")
    for old, new in (("  encoder_lr: 2e-5\n", ""), ("  encoder_lr: 2e-6\n", ""), (", encoder]", "]")):
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "frozen.yaml"
    path.write_text(text, encoding="utf-8")
    return find_arm(load_study(path), "clip")


def test_parameters_are_those_of_llava(frozen: Arm) -> None:
    language = frozen.language_size
    assert language.blocks / 1e9 == pytest.approx(6.476, abs=5e-4)
    assert language.head / 1e9 == pytest.approx(0.131, abs=5e-4)
    assert budget.parameters(frozen)["connector"] / 1e6 == pytest.approx(20.98, abs=5e-3)


def test_operations_are_those_of_the_specs(frozen: Arm) -> None:
    """Within 1 %: here attention's backward pass counts twice and the connector is counted, there not."""
    first, second = (budget.flops(frozen, stage) for stage in frozen.stages.values())
    counts = [budget.counts(frozen, stage) for stage in frozen.stages.values()]
    assert [count.steps for count in counts] == [2181, 5198]
    assert counts[0].tokens == 558_128 * (256 + 31)
    assert counts[1].tokens == pytest.approx(3.59e8, rel=2e-3)
    assert first.total == pytest.approx(4.26e18, rel=0.01)
    assert second.total == pytest.approx(1.44e19, rel=0.01)
    assert first.total + first.recompute == pytest.approx(6.39e18, rel=0.015)
    assert second.total + second.recompute == pytest.approx(1.92e19, rel=0.015)
    assert first.encoder / first.total == pytest.approx(0.021, abs=0.001)
    assert 0.006 <= second.encoder / second.total <= 0.008
    whole = replace(first, head=first.head * counts[0].tokens / counts[0].supervised)
    assert (whole.total - first.total) / whole.total == pytest.approx(0.018, abs=0.002)


def test_hours_are_those_of_the_specs(frozen: Arm) -> None:
    each = sum(budget.flops(frozen, stage).total for stage in frozen.stages.values())
    made = plan(load_study("paper-controlled"))
    assert made.gpu_hours(each, A100) == pytest.approx(42, rel=0.02)
    assert made.gpu_hours(each, H100) == pytest.approx(13.1, rel=0.01)
    assert made.gpu_hours(each, H200) == made.gpu_hours(each, H100)
    quarter = plan(load_study("paper-controlled"), mfu=0.25)
    assert quarter.gpu_hours(each, A100) == pytest.approx(66, rel=0.02)
    assert quarter.gpu_hours(each, H100) == pytest.approx(21, rel=0.02)


def test_memory_is_that_of_the_specs(frozen: Arm) -> None:
    one, eight = (budget.memory(frozen, frozen.stages["instruct"], gpus) for gpus in (1, 8))
    assert one.states / 1e9 == pytest.approx(108, rel=0.015)
    assert [round(part / 1e9, 1) for part in (one.weights, one.master, one.adam)] == [14.1, 27.0, 54.1]
    assert (eight.states - eight.gathered) / 1e9 == pytest.approx(13.5, rel=0.02)
    assert [one.fits(gpu) for gpu in budget.GPUS] == ["no", "no", "no", "full"], "an H200 only just holds it"
    assert [eight.fits(gpu) for gpu in (A100, H100, H200)] == ["none"] * 3
    first = budget.memory(frozen, frozen.stages["connector"], 1)
    assert first.gradients / 1e6 == pytest.approx(2 * 20.98, rel=1e-3)
    assert first.recomputed < first.activations < one.activations


def test_an_encoder_that_trains_costs_three_times_its_forward_pass(frozen: Arm) -> None:
    trained = find_arm(load_study("paper-controlled"), "clip")
    for name, stage in trained.stages.items():
        costs, before = budget.flops(trained, stage), budget.flops(frozen, frozen.stages[name])
        assert costs.encoder == pytest.approx(3 * before.encoder)
        assert costs.blocks == before.blocks


def test_the_encoder_costs_what_the_catalogue_says() -> None:
    from blindspot.encoders import catalogue

    arm = find_arm(load_study("paper-released"), "aimv2")
    rows = {row["checkpoint"]: row for row in catalogue.rows()}
    said = rows[arm.point.encoder]["gflop"] * 23 / 24  # the last block is not run
    stage = arm.stages["connector"]  # which reads with a frozen encoder
    forward = budget.flops(arm, stage).encoder / budget.counts(arm, stage).images
    assert forward / 1e9 == pytest.approx(said, rel=2e-3)


def test_the_trainer_agrees() -> None:
    from blindspot.training.config import TrainConfig

    config = TrainConfig(batch=1, lr=1.0)
    assert (config.pack_tokens, config.keep) == (budget.PACK, budget.CHECKPOINTS_KEPT)


@pytest.mark.parametrize("name", ["paper", "paper-released", "paper-controlled"])
def test_the_plan_as_json_is_stable_and_whole(name: str) -> None:
    study = load_study(name)
    values = as_json(plan(study))
    assert json.loads(json.dumps(values, allow_nan=False)) == values == as_json(plan(study))
    runs = {arm["id"]: len(arm["seeds"]) for arm in values["arms"]}
    assert sum(runs.values()) == values["runs"] == (27 if name == "paper-controlled" else 8)
    assert len(values["stages"]) == 2 * len(runs)
    total = sum(stage["flops_per_run"]["total"] * runs[stage["arm"]] for stage in values["stages"])
    assert total == pytest.approx(values["flops"])
    for stage in values["stages"]:
        assert stage["steps"] == -(-stage["samples"] // stage["batch"])
        assert stage["memory_per_gpu"].keys() == {"1", "8"}


def test_everything_is_missing_on_a_bare_machine(tmp_path: Path) -> None:
    made = plan(load_study("paper-released"), data_root=tmp_path)
    missing = {need.what: need for need in made.missing}
    assert len(missing) == len(made.needs) == 12
    assert missing["lmsys/vicuna-7b-v1.5"].where == str(tmp_path / "checkpoints" / "lmsys" / "vicuna-7b-v1.5")
    assert missing["openai/clip-vit-large-patch14-336"].commands[0].startswith("hf download openai/clip-vit-large")
    assert missing["coco/train2017"].where == str(tmp_path)
    assert str(tmp_path) in missing["coco/train2017"].commands[0]
    assert made.next_commands == (f"blindspot data get paper-released --data {tmp_path}",)
    assert {folder for need in missing.values() for folder in need.missing.split(", ")} >= set(FOLDERS)


def test_what_is_there_is_found(tmp_path: Path, empty_cache: Path) -> None:
    data = tmp_path / "data"
    for folder in (*FOLDERS, "LLaVA-Pretrain/images"):
        (data / folder).mkdir(parents=True)
        (data / folder / "1.jpg").touch()
    for file in ("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "llava_v1_5_mix665k.json"):
        (data / file).write_text("[]", encoding="utf-8")
    study = load_study("paper-released")
    for name in {need.what for need in plan(study).needs if need.kind == "checkpoint"}:
        _cached(empty_cache, name, "config.json", "model.safetensors", "tokenizer.model")
    made = plan(study, gpus=[8], data_root=data)
    assert not made.missing
    assert made.disk["missing"] == 0
    assert made.next_commands == (
        f"torchrun --nproc-per-node 8 -m blindspot train paper-released --arm clip --data {data}",
    )
    (data / "vg/VG_100K_2/1.jpg").unlink()
    assert [need.missing for need in plan(study, data_root=data).missing] == ["vg/VG_100K_2"]


def test_models_that_are_only_evaluated_are_missing_too(tmp_path: Path, empty_cache: Path) -> None:
    study = load_study("paper")

    def state() -> dict[str, str]:
        wanted = plan(study, data_root=tmp_path).needs
        return {need.what: need.missing for need in wanted if need.what in {model.model for model in study.models}}

    assert set(state().values()) == {"all of it"} and len(state()) == 6
    _cached(empty_cache, "google/gemma-3-4b-it", "config.json", "model.safetensors", "tokenizer.json")
    (tmp_path / "checkpoints/Qwen/Qwen2.5-VL-7B-Instruct").mkdir(parents=True)
    assert state()["google/gemma-3-4b-it"] == "" and state()["Qwen/Qwen2.5-VL-7B-Instruct"] == "weights"
    assert [model["id"] for model in as_json(plan(study))["models"]] == [model.id for model in study.models]


def test_commands_can_be_pasted_where_folders_have_spaces(tmp_path: Path) -> None:
    data = tmp_path / "my data"
    data.mkdir()
    made = plan(load_study("paper-released"), data_root=data)
    coco = next(need for need in made.needs if need.what == "coco/train2017")
    assert [shlex.split(command)[-1] for command in coco.commands[1:]] == [f"{data}/coco"]
    here = replace(made, needs=())
    assert shlex.split(here.next_commands[0])[-2:] == ["--data", str(data)]


def test_rows_that_two_stages_read_are_needed_with_the_pictures_of_both(tmp_path: Path) -> None:
    text = (SHIPPED / "paper-controlled.yaml").read_text(encoding="utf-8")
    text = text.replace("data: llava-pretrain", "data: {file: rows.json, images: small}")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("data: llava-mix665k", "data: {file: rows.json, images: large}"), encoding="utf-8")
    wanted = needs([find_arm(load_study(path), "clip")], tmp_path)
    assert [need.what for need in wanted if need.kind == "data"] == ["rows.json, small", "rows.json, large"]


def test_a_checkpoint_that_came_in_part_is_missing(empty_cache: Path) -> None:
    arm = find_arm(load_study("paper-released"), "clip")

    def state() -> str:
        return next(need.missing for need in needs([arm], None) if need.what == arm.point.language_model)

    assert state() == "all of it"
    snapshot = _cached(empty_cache, arm.point.language_model, "config.json")
    assert state() == "weights"
    shards = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
    (snapshot / "pytorch_model.bin.index.json").write_text(json.dumps(shards), encoding="utf-8")
    with ZipFile(snapshot / "pytorch_model-1.bin", "w") as archive:
        archive.writestr("weights", bytes(1000))
    assert state() == "1 of 2 shards: pytorch_model-2.bin"
    whole = (snapshot / "pytorch_model-1.bin").read_bytes()
    for content in (whole[:-1], whole[:500], b""):
        (snapshot / "pytorch_model-2.bin").write_bytes(content)
        assert state() == "a whole pytorch_model-2.bin"
    (snapshot / "pytorch_model-2.bin").write_bytes(b"of before torch 1.6, which is no archive")
    assert state() == "tokenizer"
    (snapshot / "tokenizer.model").touch()
    assert state() == ""


def test_models_that_are_only_evaluated_have_their_size_and_hours(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("""
extends: paper
name: mine
title: Mine
benchmarks: [gqa, mmvp]
models:
  - {id: qwen, label: Qwen2.5-VL, model: Qwen/Qwen2.5-VL-7B-Instruct}
  - {id: other, label: Other, model: some/vlm}
  - {id: served, label: Served, model: "http://host:1/v1", served: x}
""")
    made = plan(load_study(tmp_path / "mine.yaml"))
    told = as_json(made)
    known, other, served = told["models"]
    assert told["questions"] == 12578 + 300 and known["download"] == 16.6e9
    assert known["gpu_hours"]["A100"] == pytest.approx(
        2 * 8.29e9 * (391 + 64) * 12878 / (0.4 * 312e12 * 3600), abs=0.01
    )
    assert (other["download"], other["gpu_hours"], served["gpu_hours"]) == (None, None, None)
    needed = {need["what"]: need["size"] for need in told["needs"]}
    assert needed["Qwen/Qwen2.5-VL-7B-Instruct"] == 16.6e9 and needed["some/vlm"] == 0
    assert told["flops"] == as_json(plan(load_study("paper")))["flops"], "training alone, as ever"
    print_plan(made, Console(file=(out := StringIO()), width=100))
    printed = out.getvalue()
    (row,) = (line for line in printed.splitlines() if line.startswith("other "))
    assert "size unknown" in row and "12,878 questions each" in printed and "on a server" in printed


def test_own_models_and_data_are_planned_too(tmp_path: Path) -> None:
    _folder(tmp_path / "tower", model_type="clip_vision_model", intermediate_size=32, image_size=32, patch_size=8)
    _folder(tmp_path / "words", model_type="llama", intermediate_size=48, vocab_size=100, num_key_value_heads=2)
    tower, words = encoder_size(str(tmp_path / "tower")), language_size(str(tmp_path / "words"))
    assert (tower.family, tower.prefix, tower.block) == ("clip", 1, 4 * 16**2 + 2 * 16 * 32)
    assert (words.query, words.key, words.head) == (16, 8, 1600)
    (tmp_path / "mine.json").write_text("[]", encoding="utf-8")
    own = f"{{file: {tmp_path}/mine.json, images: {tmp_path}, SIZES}}"
    text = (SHIPPED / "paper-controlled.yaml").read_text(encoding="utf-8")
    text = text.replace("lmsys/vicuna-7b-v1.5", str(tmp_path / "words")).replace("data: llava-pretrain", f"data: {own}")
    text = text.replace("openai/clip-vit-large-patch14", str(tmp_path / "tower"))
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace(", SIZES", ""), encoding="utf-8")
    with pytest.raises(UserError, match="write rows, with_image, text_tokens and supervised_tokens under data"):
        plan(load_study(path))
    sizes = "rows: 100, with_image: 60, text_tokens: 7, supervised_tokens: 5"
    path.write_text(text.replace("SIZES", sizes), encoding="utf-8")
    made = plan(load_study(path))
    counts = made.stages[0].counts
    assert (counts.images, counts.tokens, counts.supervised, counts.steps) == (60, 60 * 16 + 700, 500, 1)
    assert {need.what for need in made.needs if need.here} == {f"{tmp_path}/mine.json, {tmp_path}"}


def test_sizes_that_a_config_leaves_out_are_those_of_its_class(tmp_path: Path) -> None:
    """As the hub has SigLIP's and Gemma's: only what differs from the default is written."""
    vision = {"model_type": "siglip_vision_model", "image_size": 384}
    _write(tmp_path / "siglip", model_type="siglip", vision_config=vision)
    base = encoder_size("google/siglip-base-patch16-256")
    assert encoder_size(str(tmp_path / "siglip")) == replace(base, image=384, download=0)
    _write(tmp_path / "gemma", model_type="gemma", vocab_size=1000)
    gemma = language_size(str(tmp_path / "gemma"))
    assert (gemma.width, gemma.layers, gemma.query, gemma.key, gemma.mlp) == (3072, 28, 4096, 4096, 24576)
    assert gemma.parameters == gemma.blocks + 3072 * 1000, "its head is its embedding"


def test_sizes_of_a_config_are_those_of_its_encoder(tmp_path: Path) -> None:
    from blindspot.encoders import ENCODERS, catalogue

    rows = {row["checkpoint"]: row for row in catalogue.rows()}
    for number, one in enumerate(one for family in ENCODERS.values() for one in family.checkpoints):
        one.config().save_pretrained(folder := tmp_path / str(number))
        family = next(family for family in ENCODERS.values() if one in family.checkpoints)
        if family.name == "aimv2_native":
            with pytest.raises(UserError, match="as many patches as the picture asks for"):
                encoder_size(str(folder))
            continue
        size, said = encoder_size(str(folder)), rows[one.id]
        assert (size.width, size.layers, size.patch) == (said["width"], said["layers"], said["patch"])
        assert size.prefix == said["prefix_tokens"]
        assert size.layers * size.block / 1e6 == pytest.approx(said["blocks_mparams"], rel=2e-3)
        known = encoder_size(one.id)
        assert known == replace(size, family=family.name, image=one.size, download=known.download)
        assert (known.image // known.patch) ** 2 == said["tokens"]


def test_the_gated_mlp_of_the_largest_dinov2_is_counted(tmp_path: Path) -> None:
    from transformers import AutoConfig

    from blindspot.encoders import ENCODERS, catalogue

    values = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "use_swiglu_ffn": True}
    _write(tmp_path / "giant", model_type="dinov2", **values)
    said = catalogue.describe(ENCODERS["dinov2"], AutoConfig.for_model("dinov2", **values))
    size = encoder_size(str(tmp_path / "giant"))
    assert size.layers * size.block / 1e6 == pytest.approx(said["blocks_mparams"], abs=0.05)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_type": "vit"}, 'encoder ".*": image encoder: unknown model_type .vit.; known are'),
        ({"model_type": "nothing of the kind"}, 'encoder ".*": its config.json cannot be read'),
        ({}, 'encoder ".*": its config.json cannot be read'),
    ],
)
def test_what_is_no_encoder_is_one_line(tmp_path: Path, values: dict[str, Any], says: str) -> None:
    _write(tmp_path / "other", **values)
    with pytest.raises(UserError, match=says) as refused:
        encoder_size(str(tmp_path / "other"))
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=r'encoder ".*": its config.json cannot be read'):
        encoder_size(str(tmp_path))
    with pytest.raises(UserError, match=r"language_model .*: dinov2 is no decoder like Llama"):
        _write(tmp_path / "tower", model_type="dinov2")
        language_size(str(tmp_path / "tower"))


@pytest.mark.parametrize("width", [80, 120])
def test_the_summary_comes_first_and_nothing_is_cut_off(width: int, tmp_path: Path) -> None:
    out = StringIO()
    print_plan(plan(load_study("paper-released"), data_root=tmp_path), Console(file=out, width=width))
    text = out.getvalue()
    head = text[: text.index("Arms")]
    for said in ("8 arms", "1.74e20 FLOPs", "H100, H200 15.3 h", "12 of 12", "blindspot data get paper-released"):
        assert said in head
    for said in ("clip-vit-large-patch14-336", "siglip2-2d", "2,181", "4,361", "5,198", "9.19e18", "2.25e19", "104.2"):
        assert said in text
    assert "…" not in text


def test_a_plan_needs_neither_torch_nor_network_nor_time() -> None:
    code = """
import socket, sys, time
def refuse(*_, **__):
    raise AssertionError("network")
socket.socket.connect = socket.getaddrinfo = refuse
from rich.console import Console
from blindspot.studies.loading import load_study
from blindspot.studies.budget import as_json, plan
from blindspot.studies.budget_show import print_plan
made = plan(load_study("paper"))
print_plan(made, Console())
as_json(made)
assert not {"torch", "transformers", "numpy"} & set(sys.modules)
assert time.process_time() < 3
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def _cached(cache: Path, name: str, *files: str) -> Path:
    """A snapshot in the layout of the Hugging Face cache."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / "abc"
    (repository / "refs").mkdir(parents=True, exist_ok=True)
    (repository / "refs" / "main").write_text("abc", encoding="utf-8")
    snapshot.mkdir(parents=True, exist_ok=True)
    for file in files:
        header = b"\2" + bytes(7) if file.endswith(".safetensors") else b""
        (snapshot / file).write_bytes(header + b"{}")
    return snapshot


def _folder(folder: Path, **values: Any) -> None:
    _write(folder, **{"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, **values})


def _write(folder: Path, **values: Any) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
