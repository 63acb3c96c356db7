"""An arm of a study of real size, end to end, on tiny checkpoints in the real formats."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import SiglipVisionConfig, SiglipVisionModel

import blindspot
from blindspot.errors import UserError
from blindspot.model.assemble import position_table
from blindspot.studies.arms import find_arm
from blindspot.studies.loading import load_study
from blindspot.studies.real import ArmRun, run_in, train_run
from blindspot.studies.rehearsal import write_benchmark
from tests.golden.record import write_llava
from tests.studies.conftest import wait_for

ROOT = Path(__file__).parents[2]
Make = Callable[..., ArmRun]
VISION: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 24, "patch_size": 8,
    "intermediate_size": 40,
}  # fmt: skip
STAGES = """
connector: {{recipe: llava, trains: [connector], data: &data {{file: rows.json, images: images, rows: 12}},
    template: plain, batch: 4, lr: 1e-2, warmup: 0.03, schedule: cosine, epochs: 1, max_length: 60,
    aspect_ratio: square}}
instruct: {{recipe: llava, trains: [connector, language_model], data: *data, template: v1, batch: 4,
    lr: 1e-2, warmup: 0.03, schedule: cosine, epochs: 1, max_length: 60, aspect_ratio: pad}}
"""
STUDY = """
name: tiny
title: Tiny
arms:
  base: {{encoder: {root}/clip, language_model: {root}/llama}}
  named:
    - {{id: base, label: Base, image_size: 32}}
    - {{id: tuned, label: Tuned, positions: mixed,
       stages: {{connector: {{trains: [connector, encoder], encoder_lr: 1e-3}},
                instruct: {{trains: [connector, language_model, encoder], encoder_lr: 1e-3}}}}}}
    - {{id: borrowed, label: Borrowed, image_size: 32, language_positions: mrope, connector_from: base}}
    - {{id: released, label: Released, encoder: {root}/siglip, drop_first_patch: true,
       positions: {{scheme: released_concat, table: released}}, evaluate_with: learned}}
  replicate: borrowed
seeds: 2
"""
MACHINE: dict[str, Any] = {"precision": "fp32", "workers": 0, "pack_tokens": 120}


@pytest.fixture(autouse=True)
def always_one_thread(one_thread: None) -> None:
    """Every test here computes with small models."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints, data and a study that names them."""
    folder = tmp_path_factory.mktemp("tiny")
    write_llava(folder)
    torch.manual_seed(0)
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(folder / "siglip")
    (folder / "tiny.yaml").write_text((STUDY + STAGES).format(root=folder))
    return folder


@pytest.fixture(scope="module")
def run(root: Path) -> Make:
    def make(arm: str, out: Path, seed: int | None = None, **machine: Any) -> ArmRun:
        resolved = find_arm(load_study(root / "tiny.yaml"), arm)
        return run_in(resolved, seed, root, out, MACHINE | machine)

    return make


@pytest.fixture(scope="module")
def base(run: Make, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The out folder in which arm `base` is trained."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs")
    train_run(run("base", out))
    return out


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_both_stages_and_what_they_leave(base: Path, run: Make) -> None:
    folder = base / "base-seed0"
    assert [len(_rows(folder / stage)) for stage in ("connector", "instruct")] == [3, 3]
    model, processor = blindspot.load(folder / "instruct" / "model")
    assert model.config.image_token_id == processor.tokenizer.convert_tokens_to_ids("<image>") == 11
    assert processor.tokenizer.chat_template.startswith("{%- macro") and "USER: " in processor.chat_template
    assert processor.image_processor.do_pad
    pixels = processor.image_processor(images=Image.new("RGB", (40, 30)), return_tensors="pt")["pixel_values"]
    assert pixels.shape[-2:] == (32, 32), "the study's size, not the checkpoint's"
    assert not (folder / "instruct" / "checkpoints").exists() and not (folder / "connector" / "checkpoints").exists()
    assert (base / "rows" / "rows" / "rows.arrow").is_file()
    connector = load_file(folder / "connector" / "connector.safetensors")
    after = model.state_dict()
    assert not any(torch.equal(after[f"model.{name}"], tensor) for name, tensor in connector.items())


def test_a_stage_that_is_done_is_passed_over(base: Path, run: Make) -> None:
    told: list[Any] = []
    made = train_run(run("base", base), report=lambda *args, **kwargs: told.append(args))
    assert made == base / "base-seed0" / "instruct" / "model" and not told
    with pytest.raises(UserError, match=r"is another \(precision was fp32 and is bf16\)"):
        train_run(run("base", base, precision="bf16"))


def test_a_run_that_was_stopped_has_the_same_bits(base: Path, run: Make, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
        if (phase, step) == ("instruct", 2):
            raise Stop

    with pytest.raises(Stop):
        train_run(run("base", tmp_path, save_every=1), report=stop)
    heard: list[Any] = []
    train_run(run("base", tmp_path, save_every=1), report=lambda step, steps, loss=None, phase="": heard.append(phase))
    assert set(heard) == {"instruct"} and len(heard) <= 2
    ours, theirs = (load_file(next(folder.rglob("model.safetensors"))) for folder in (base, tmp_path))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_seeds_differ_and_are_the_arms_own(base: Path, run: Make, tmp_path: Path) -> None:
    train_run(run("base", tmp_path, seed=1), ["connector"])
    first, second = (
        load_file(folder / "connector" / "connector.safetensors")
        for folder in (base / "base-seed0", tmp_path / "base-seed1")
    )
    assert not any(torch.equal(tensor, second[name]) for name, tensor in first.items())
    with pytest.raises(UserError, match="--seed 2: base has the seeds 0, 1"):
        run("base", tmp_path, seed=2)


def test_an_encoder_that_trains_goes_on_into_stage_2(run: Make, root: Path, tmp_path: Path) -> None:
    arm = run("tuned", tmp_path)
    train_run(arm, ["connector"])
    kept = load_file(arm.folders["connector"] / "encoder.safetensors")
    frequencies = [name for name in kept if name.endswith("rotation.frequencies")]
    assert frequencies and not any("language_model" in name for name in kept)
    frozen = replace(arm, machine={**arm.machine, "encoder_lr": 1e-30, "lr": 1e-30})
    model, _ = blindspot.load(train_run(frozen, ["instruct"]))
    state = model.state_dict()
    for name, tensor in kept.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=1e-6)
    table = next(iter(position_table(root / "clip")))
    assert not kept[table].any()


def test_a_borrowed_connector(base: Path, run: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"train it first: --arm base --seed 0 --stage connector"):
        train_run(run("borrowed", tmp_path))
    with pytest.raises(UserError, match="takes its stage 1 from base"):
        train_run(run("borrowed", tmp_path), ["connector"])
    for source in ("base-seed0", "base-seed1"):
        shutil.copytree(base / "base-seed0" / "connector", tmp_path / source / "connector")
    model, _ = blindspot.load(train_run(run("borrowed", tmp_path)))
    assert model.config.language_positions["scheme"] == "mrope"
    assert not (tmp_path / "borrowed-seed0" / "connector").exists()
    again = run("replicate", tmp_path, seed=1001)
    assert train_run(again) == tmp_path / "replicate-seed1001" / "instruct" / "model"


def test_what_is_trained_with_other_positions_than_it_is_evaluated(run: Make, root: Path, tmp_path: Path) -> None:
    arm = run("released", tmp_path)
    model, processor = blindspot.load(train_run(arm))
    assert model.config.encoder_positions["scheme"] == "learned" and model.tokens_per_image == 8
    tower = SiglipVisionModel.from_pretrained(root / "siglip").state_dict()
    state = model.model.vision_tower.state_dict()
    assert all(torch.equal(tensor, tower[name]) for name, tensor in state.items()), "the checkpoint, table and all"
    facts = json.loads((arm.folders["instruct"] / "run.json").read_text())
    assert facts["encoder_positions"]["table"] == "released" and facts["arm"] == "released"
    inputs = processor(images=[Image.new("RGB", (30, 30))], text=["<image> what is"], return_tensors="pt")
    assert model(**inputs).logits.isfinite().all()
    point = arm.arm.point.model_copy(update={"evaluate_with": arm.arm.point.positions})
    as_trained = replace(arm, arm=replace(arm.arm, point=point))
    assert train_run(as_trained, ["connector"]) == arm.product("connector"), "which stage 1 has no part in"
    with pytest.raises(UserError, match=r"is another \(evaluate_with was \{'scheme': 'learned'"):
        train_run(as_trained)


def test_what_is_missing_is_said_before_anything_is_loaded(root: Path, run: Make, tmp_path: Path) -> None:
    bare = replace(run("base", tmp_path), data_root=None)
    with pytest.raises(UserError, match=r"rows\.json is missing \(name the data folder with --data\)|with --data"):
        train_run(bare)
    paper = find_arm(load_study("paper"), "clip")
    with pytest.raises(UserError, match=r"vicuna-7b-v1\.5 is not all there, .* get it with: hf download lmsys"):
        train_run(run_in(paper, 0, root, tmp_path, MACHINE | {"pack_tokens": 4096}))
    with pytest.raises(UserError, match="max_length 2048 does not fit a pack of pack_tokens 120"):
        train_run(run_in(paper, 0, root, tmp_path, MACHINE))
    assert not (tmp_path / "clip-seed0").exists()


def test_the_command(root: Path, base: Path) -> None:
    said = f"train {root}/tiny.yaml --arm base --data {root} --out {base}"
    machine = "--precision fp32 --workers 0 --pack-tokens 120"
    command = [sys.executable, "-m", "blindspot", *said.split(), *machine.split()]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"Written: {base}/base-seed0/instruct/model"


WHOLE = """
name: whole
title: Two arms, from checkpoints to a page
arms:
  base: {{encoder: {root}/clip, language_model: {root}/llama, image_size: 32}}
  named:
    - {{id: base, label: Base}}
    - {{id: turned, label: Turned, positions: axial, connector_from: base, against: [base]}}
  replicate: base
benchmarks: [cvbench_2d, mmvp]
seeds: 1
"""


def test_a_whole_study_from_checkpoints_to_a_page(
    root: Path, run_inline: Callable[..., Path], tmp_path: Path, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    """Trained, evaluated, compared with its noise, shown: by the steps, statistics and pages of a miniature."""
    import pandas as pd
    from typer.testing import CliRunner

    from blindspot.cli import app

    picture = base64.b64encode((root / "images" / "0.png").read_bytes()).decode()
    row = {"image": picture, "question": "what is", "A": "red", "B": "box"}
    data = tmp_path / "data"
    shutil.copytree(root / "images", data / "images")
    shutil.copy(root / "rows.json", data)
    pairs = [{**row, "index": number + 1, "answer": "AB"[number % 2]} for number in range(8)]
    sources = [{**one, "source": "COCO" if one["index"] % 3 else "ADE20K", "task": "Count"} for one in pairs]
    for name, file, rows in (("mmvp", "MMVP.tsv", pairs), ("cvbench_2d", "CV-Bench-2D.tsv", sources)):
        (data / name).mkdir()
        pd.DataFrame(rows).to_csv(data / name / file, sep="\t", index=False)
    (tmp_path / "whole.yaml").write_text((WHOLE + STAGES).format(root=root))
    with pytest.raises(UserError, match=r"rows\.json.* that study .* needs: missing; .* --plan --data FOLDER"):
        run_inline(tmp_path / "whole.yaml", tmp_path / "run")
    (data / "mmvp").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"benchmark mmvp that study .* needs: missing"):
        run_inline(tmp_path / "whole.yaml", tmp_path / "run", data)
    (tmp_path / "elsewhere").rename(data / "mmvp")
    out = run_inline(tmp_path / "whole.yaml", tmp_path / "run", data)
    assert len([*(out / "steps").glob("connector_*")]) == 2, "the turned arm starts from the other's"
    assert (out / "models" / "turned-seed0" / "config.json").is_file()
    shown = CliRunner().invoke(app, ["report", str(out)])
    assert shown.exit_code == 0, shown.output
    results = json.loads((out / "results.json").read_text())
    assert {column["id"] for column in results["columns"]} == {
        "cvbench_2d/overall", "cvbench_2d/coco", "cvbench_2d/ade20k", "mmvp/overall"
    }  # fmt: skip
    at = {(one["arm"], one["column"]): one for one in results["scores"] if one["seed"] is None}
    assert {at["turned", column]["n"] for column in ("cvbench_2d/coco", "cvbench_2d/ade20k")} == {6, 2}
    sides = {(one["a"], one["b"], one["column"]): one for one in results["differences"]}
    difference = sides["turned", "base", "mmvp/overall"]
    assert difference["noise_included"] and difference["kind"] == "positions"
    assert all(row["df"] == 1 for row in results["noise"]), "the replicate and its twin"
    assert (out / "report" / "index.html").is_file()
    shutil.move(data, tmp_path / "put away")
    assert run_inline(tmp_path / "whole.yaml", out) == out, "what is finished needs its data no more"
    shutil.move(tmp_path / "put away", data)
    before = contents(out)
    shutil.rmtree(next((out / "steps").glob("instruct_turned*")))
    run_inline(tmp_path / "whole.yaml", out, data)
    after = contents(out)
    answers = [name for name in before if name.endswith("answers.jsonl")]
    assert answers and all(after[name] == before[name] for name in answers)


def _descendants(process: int) -> set[int]:
    found: set[int] = set()
    for task in Path("/proc").glob(f"{process}/task/*/children"):
        with suppress(OSError):  # it has ended
            for child in map(int, task.read_text().split()):
                found |= {child} | _descendants(child)
    return found


TWO = """
name: two
title: An arm, trained by two processes
arms: {{base: {{encoder: {root}/clip, language_model: {root}/llama, image_size: 32}}, named: [{{id: base, label: B}}]}}
benchmarks: [mmvp]
seeds: 1
"""


@pytest.mark.skipif("BLINDSPOT_KILLS" not in os.environ, reason="takes minutes: make faults")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
def test_two_processes_train_an_arm_and_a_kill_leaves_none_and_costs_nothing(
    root: Path, base: Path, tmp_path: Path
) -> None:
    """On a machine that says it has two GPUs."""
    data = tmp_path / "data"
    shutil.copytree(root / "images", data / "images")
    shutil.copy(root / "rows.json", data)
    write_benchmark(data, "mmvp", seed=0)
    study = TWO + STAGES.replace("epochs: 1", "epochs: 4")
    (tmp_path / "two.yaml").write_text(study.format(root=root))

    def start(out: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "blindspot", "study", "two.yaml", "--data", "data", "--out", out, *options]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "0,1"}
        return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True)

    def made(out: str) -> dict[str, bytes]:
        files = [file for file in (tmp_path / out / "steps").rglob("*") if file.is_file()]
        timed = ("log.jsonl", "done.json", ".lock")
        return {str(file.relative_to(tmp_path / out)): file.read_bytes() * (file.name not in timed) for file in files}

    whole = start("whole", "--gpus-per-step", "2")
    printed, _ = whole.communicate(timeout=300)
    assert whole.returncode == 0 and "step 12/12" in printed
    killed = start("killed", "--gpus-per-step", "2")
    wait_for(lambda: list(tmp_path.glob("killed/steps/instruct_*/.told.json")), killed, 200)
    processes = _descendants(killed.pid)
    killed.kill()
    assert len(processes) >= 4, "workers, torchrun and its two"
    again = start("killed", "--gpus-per-step", "2")
    again.communicate(timeout=300)
    assert not any(Path(f"/proc/{process}").exists() for process in processes)
    assert again.returncode == 0 and made("killed") == made("whole")
    for stage in ("connector", "instruct"):
        (folder,) = tmp_path.glob(f"whole/steps/{stage}_*")
        one = {str(file.relative_to(base / "base-seed0" / stage)) for file in (base / "base-seed0" / stage).rglob("*")}
        assert {str(file.relative_to(folder)) for file in folder.rglob("*")} - {"done.json"} == one
