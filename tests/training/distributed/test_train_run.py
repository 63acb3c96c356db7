"""A run on one process: its log, its checkpoints, what it refuses, and what it says of rows and workers that fail."""

import json
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from toy_training import ToySamples, toy_variant
from typer.testing import CliRunner

from blindspot.cli import app
from blindspot.errors import UserError
from blindspot.training import tracker as tracking
from blindspot.training.checkpoint import Checkpoints
from blindspot.training.config import TrainConfig
from blindspot.training.loading import Batches, batches_ahead
from blindspot.training.log import Log
from blindspot.training.loss import AnswerLoss
from blindspot.training.optim import adamw, begin
from blindspot.training.order import Order, shuffled
from blindspot.training.parallel import joined
from blindspot.training.tracker import Tracker
from blindspot.training.variant import train

CONFIG = TrainConfig(batch=8, lr=3e-3, steps=6, precision="fp32", pack_tokens=80, save_every=2, workers=0)


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_log_and_its_last_checkpoints(tmp_path: Path) -> None:
    heard = []
    samples = ToySamples(count=30, untrainable=frozenset({2, 20}), broken=frozenset({11}))
    state = train(CONFIG, toy_variant(), samples, tmp_path, lambda *told, **_: heard.append(told))
    rows = _log(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [told[:2] for told in heard] == [(step, 6) for step in range(1, 7)]
    assert rows[-1]["loss"] < rows[0]["loss"]
    told = {"grad_norm", "lr", "tokens_per_second", "mfu", "memory_gib", "seconds_left", "supervised_tokens"}
    assert told <= set(rows[0])
    assert rows[-1]["seconds_left"] == 0
    skipped = {one["row"]: one for row in rows[:4] for one in row.get("skipped", [])}
    assert set(skipped) == {2, 11, 20}
    assert skipped[2]["why"] == "it has no answer"
    assert skipped[11]["id"] == "s11"
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-4", "step-6"]
    # Called again, it is over at once, with the same weights.
    again = train(CONFIG, toy_variant(), samples, tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    assert _log(tmp_path) == rows


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    config = replace(CONFIG, steps=1)
    train(config, toy_variant(), ToySamples(), tmp_path)
    with pytest.raises(UserError, match=r"is another \(lr was 0.003 and is 0.1\); choose another --out"):
        train(replace(config, lr=0.1), toy_variant(), ToySamples(), tmp_path)
    with pytest.raises(UserError, match="samples was 64 and is 10"):
        train(config, toy_variant(), ToySamples(count=10), tmp_path)
    train(replace(config, pack_tokens=200, keep=5, checkpointing="full"), toy_variant(), ToySamples(), tmp_path)


@pytest.mark.parametrize("name", ["*.distcp", ".metadata"])
@pytest.mark.parametrize("steps", [("step-4",), ("step-4", "step-6")])
def test_a_damaged_checkpoint_is_said_and_what_it_held_is_done_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, steps: tuple[str, ...]
) -> None:
    whole = train(CONFIG, toy_variant(), ToySamples(), tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "step-6") if len(steps) == 1 else None
    for step in steps:
        (path,) = (tmp_path / "checkpoints" / step).glob(name)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    again = train(CONFIG, toy_variant(), ToySamples(), tmp_path)
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    said = capfd.readouterr().err.splitlines()
    assert [any(step in line and "damaged" in line for line in said) for step in steps] == [True] * len(steps)
    assert len(said) == len(steps)
    assert [row["step"] for row in _log(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-4", "step-6"]


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    with joined() as ranks:
        for width, method in ((3, "save"), (4, "load")):
            model = AnswerLoss(toy_variant(), "documents", torch.float32)
            model.register_parameter("extra", torch.nn.Parameter(torch.ones(width)))
            checkpoints = Checkpoints(tmp_path, 2, ranks, False)
            if method == "save":
                checkpoints.save(2, {"model": model.state_dict()})
        with pytest.raises(UserError, match=r"step-2 cannot be continued .* delete it"):
            checkpoints.load(2, {"model": model.state_dict()})


@pytest.mark.parametrize("moments_in", ["fp32", "bf16"])
def test_checkpoints_written_beside_training_are_the_same(tmp_path: Path, moments_in: Any) -> None:
    states = []

    def begun() -> tuple[AnswerLoss, dict[str, Any], Any]:
        objective = AnswerLoss(toy_variant(), "documents", torch.float32)
        (optimiser,) = adamw(objective, 1e-3, half=moments_in == "bf16")
        begin([optimiser])
        moments = {name: optimiser.state[one] for name, one in objective.named_parameters() if one.requires_grad}
        return objective, {"model": objective.state_dict(), "optimiser": moments}, optimiser

    with joined() as ranks:
        for beside in (False, True):
            objective, state, optimiser = begun()
            checkpoints = Checkpoints(tmp_path / str(beside), 2, ranks, beside)
            for step in range(1, 5):
                for parameter in objective.parameters():
                    parameter.grad = torch.full_like(parameter, 0.1 * step)
                torch.manual_seed(step)
                optimiser.param_groups[0]["lr"] = 1e-3
                optimiser.step()
                checkpoints.save(step, state)
            checkpoints.finish()
            assert sorted(os.listdir(tmp_path / str(beside))) == ["step-3", "step-4"]
            other, loaded, optimiser = begun()
            assert checkpoints.newest() == 4
            checkpoints.load(4, loaded)
            states.append([objective.state_dict(), other.state_dict()])
            assert all(moments["step"] == 4 and moments["exp_avg"].any() for moments in optimiser.state.values())
    (first, loaded), (second, copied) = states
    for name, tensor in first.items():
        assert all(torch.equal(tensor, other[name]) for other in (loaded, second, copied))


@pytest.mark.parametrize("mode", ["selective", "full"])
def test_recomputing_changes_no_bit(tmp_path: Path, mode: Any) -> None:
    config = replace(CONFIG, steps=3, frozen=())
    plain = train(config, toy_variant(), ToySamples(), tmp_path / "none")
    again = train(replace(config, checkpointing=mode), toy_variant(), ToySamples(), tmp_path / mode)
    assert all(torch.equal(again[name], tensor) for name, tensor in plain.items())


def test_what_is_frozen_stays(tmp_path: Path) -> None:
    variant = toy_variant()
    before = {name: tensor.clone() for name, tensor in variant.state_dict().items()}
    after = train(replace(CONFIG, frozen=("vision_tower", "language_model"), steps=2), variant, ToySamples(), tmp_path)
    ids_bl = torch.tensor([[1, 5, 6]])
    assert variant(input_ids=ids_bl).logits.isfinite().all()  # it attends again as it did
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed and all(name.startswith("model.multi_modal_projector.") for name in changed)


def test_llavas_batches_are_of_one_kind(tmp_path: Path) -> None:
    config = replace(CONFIG, batching="llava", row_batch=4)
    train(config, toy_variant(), ToySamples(), tmp_path)
    assert max(row["padding"] for row in _log(tmp_path)) > 0.05
    with pytest.raises(UserError, match="multiple of row_batch"):
        train(replace(config, row_batch=3), toy_variant(), ToySamples(), tmp_path / "other")


def test_workers_make_the_same_batches() -> None:
    samples = ToySamples(untrainable=frozenset({3}), broken=frozenset({4}))
    order = Order(64, 8, partial(shuffled, 64, 0), 64)
    alone = Batches(samples, order, range(2, 6), 80)
    with batches_ahead(Batches(samples, order, range(2, 6), 80, workers=2), pin=False) as data:
        ahead = list(data)
    assert len(ahead) == 4
    for place, batch in enumerate(ahead):
        expected: Any = alone[place]
        assert batch.dropped == expected.dropped and batch.unread == expected.unread
        for ours, theirs in zip(batch.micros, expected.micros, strict=True):
            assert ours.names == theirs.names and torch.equal(ours.ids_bl, theirs.ids_bl)
            assert torch.equal(ours.pixels["pixel_values"], theirs.pixels["pixel_values"])


@pytest.mark.parametrize("library", ["trackio", "wandb"])
def test_a_tracker_hears_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    calls: list[Any] = []

    class Library:
        def init(self, **settings: Any) -> Any:
            calls.append(settings)
            return self

        def log(self, values: dict[str, float], step: int) -> None:
            calls.append((step, values))

        def finish(self) -> None:
            calls.append("finished")

    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(tracking.importlib, "import_module", lambda name: Library())
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for _ in range(2):
        log = Log(tmp_path / "paper/clip-seed0/instruct", 0, Tracker(library))
        log.write({"step": 1, "steps": 9, "loss": 2.0, "mfu": None, "skipped": [{"row": 3}], "accuracy": {"vsr": 0.5}})
        log.close()
    first, told, finished = calls[:3]
    assert (first["project"], first["name"], first["group"]) == ("blindspot", "paper/clip-seed0/instruct", "paper")
    assert (told, finished) == ((1, {"loss": 2.0, "accuracy/vsr": 0.5}), "finished")
    assert calls[3:] == calls[:3] and first["resume"] == "allow", "a run goes on under the same name and id"
    assert library == "trackio" or (first["mode"] == "offline" and first["id"]), "nothing leaves the machine by itself"


@pytest.mark.parametrize("lost", [False, True])
def test_tensorboard_goes_on_where_the_checkpoint_is(tmp_path: Path, lost: bool) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for begun, steps in ((0, (1, 2, 3)), (2, (3, 4))):  # killed after step 3, whose last checkpoint was of step 2
        log = Log(tmp_path, begun, Tracker("tensorboard"))
        for step in steps:
            log.write({"step": step, "loss": step + begun / 10})
        log.close()
        if lost and not begun:  # what was not flushed
            next((tmp_path / "tensorboard").glob("events.*")).unlink()
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload().Scalars("loss")
    assert {one.step: round(one.value, 3) for one in found} == {1: 1.0, 2: 2.0, 3: 3.2, 4: 4.2} and len(found) == 4


@pytest.mark.parametrize("command", [("train", "nowhere", "--json", "rows", "--images", "."), ("study", "miniature")])
@pytest.mark.parametrize(
    ("tracker", "said"),
    [("wandb", "the tracker wandb is not installed; pip install wandb"), ("wandbb", 'unknown tracker "wandbb"')],
)
def test_a_tracker_that_is_not_there_is_one_line_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], tracker: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    result = CliRunner().invoke(app, [*command, "--out", str(tmp_path / "run"), "--tracker", tracker])
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
