"""Two processes over gloo against one, with everything trained: the same training, whatever is killed or resumed."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import toy_worker
from torch._C._distributed_c10d import HashStore
from toy_training import SMALL, ToySamples, toy_parts, write_rows
from toy_worker import BASE, DEADLY, FATAL, base_variant

import blindspot
from blindspot.rendezvous import agree
from blindspot.training.order import Order, shuffled
from blindspot.training.variant import train, train_arm

TOLERANCE = 2e-5
"""Largest difference of a weight after 20 steps of AdamW at 3e-3; sums of float32 come in another order."""


class Stop(Exception):
    pass


def _start(*checks: str) -> list[Any]:
    """Two processes, each in the environment that torchrun would give it, forked from one that has torch loaded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TOKENIZERS_PARALLELISM": "false",
    }
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["blindspot.training.variant"])
    ranks = [{**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    processes = [forks.Process(target=toy_worker.main, args=(environment, checks)) for environment in ranks]
    for process in processes:
        process.start()
    return processes


def _train(out: Path, stop: int = 0) -> dict[str, Any]:
    """The same run in this process alone."""

    def report(step: int, steps: int, loss: float | None = None, phase: str = "") -> None:
        if step == stop:
            raise Stop

    try:
        return train(BASE, base_variant(), ToySamples(), out, report)
    except Stop:
        return {}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of runs: what one process did, and what two did that were killed and started again."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("ranks")
    checks = ["killed", "lonely", "deadly", "half", "dying", "arm", "copies", "rounded"]
    for name in ("one", "two", "one_then_two", "two_then_one", *checks):
        (root / name).mkdir()
    first, second = _start(f"base={root / 'two'}", f"killed={root / 'killed'}")
    torch.save(_train(root / "one"), root / "one" / "state.pt")
    _train(root / "one_then_two", stop=12)
    second.join(120)
    assert second.exitcode == -signal.SIGKILL
    first.kill()
    first.join()
    # What a kill in the middle of a checkpoint leaves, and a copy that was broken off.
    (root / "killed" / "checkpoints" / "partial-999").mkdir()
    (root / "killed" / "checkpoints" / "step-999").mkdir()
    with (root / "killed" / "log.jsonl").open("a") as log:
        log.write('{"step": 11, "lo')
    (root / "stopped.json").write_text(json.dumps(sorted(os.listdir(root / "killed" / "checkpoints"))))
    for name in ("checkpoints", "run.json", "log.jsonl"):
        source, target = root / "two" / name, root / "two_then_one" / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    shutil.rmtree(root / "two_then_one" / "checkpoints" / "step-20")
    write_rows(root / "arm")
    arm = root / "arm"
    train_arm(toy_parts(), arm / "rows.json", arm / "images", arm / "alone", "instruct", **SMALL)
    both = _start(
        f"base={root / 'one_then_two'}", *[f"{name.replace('killed', 'base')}={root / name}" for name in checks]
    )
    torch.save(_train(root / "two_then_one"), root / "two_then_one" / "state.pt")
    for process in both:
        process.join(400)
        assert process.exitcode == 0, "its traceback is in the captured output"
    return root


def _state(root: Path, name: str) -> dict[str, torch.Tensor]:
    return torch.load(root / name / "state.pt")


def _log(root: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (root / name / "log.jsonl").read_text().splitlines()]


def _apart(root: Path, name: str, other: str) -> float:
    ours, theirs = _state(root, name), _state(root, other)
    assert set(ours) == set(theirs)
    return max((ours[key].float() - theirs[key].float()).abs().max().item() for key in ours)


def test_two_processes_train_as_one_does(runs: Path) -> None:
    for ours, theirs in zip(_log(runs, "one"), _log(runs, "two"), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["grad_norm"] == pytest.approx(theirs["grad_norm"], rel=1e-4)
        assert ours["supervised_tokens"] == theirs["supervised_tokens"]
        assert ours["tokens"] == theirs["tokens"]
    assert len(_log(runs, "one")) == 20
    assert _apart(runs, "one", "two") < TOLERANCE
    start = {name: tensor.detach() for name, tensor in base_variant().state_dict().items()}
    moved = max((tensor - start[name]).abs().max().item() for name, tensor in _state(runs, "two").items())
    assert moved > 1000 * TOLERANCE


def test_copies_of_the_weights_train_as_one_does(runs: Path) -> None:
    assert _apart(runs, "copies", "one") < TOLERANCE


def test_copies_whose_moments_are_rounded_stay_the_same(runs: Path) -> None:
    apart = _state(runs, "rounded")
    assert apart and not any(difference.any() for difference in apart.values())


def test_a_run_goes_on_with_another_number_of_processes(runs: Path) -> None:
    assert _apart(runs, "one_then_two", "one") < TOLERANCE
    assert _apart(runs, "two_then_one", "one") < TOLERANCE


def test_a_killed_run_ends_in_the_same_bits(runs: Path) -> None:
    left = json.loads((runs / "stopped.json").read_text())
    order = Order(64, BASE.batch, partial(shuffled, 64, BASE.seed), 64 * 20)
    fatal = next(step for step in range(20) if DEADLY in order(step))
    whole = [name for name in left if name.startswith("step-") and name != "step-999"]
    assert whole == [f"step-{fatal // 5 * 5}"] if fatal >= 5 else not whole
    assert _apart(runs, "killed", "two") == 0
    assert [row["step"] for row in _log(runs, "killed")] == list(range(1, 21))
    assert sorted(os.listdir(runs / "killed" / "checkpoints")) == ["step-15", "step-20", "step-999"]


def test_a_rank_without_pictures_does_not_hang(runs: Path) -> None:
    rows = _log(runs, "lonely")
    assert len(rows) == 8
    skipped = [one for row in rows for one in row.get("skipped", [])]
    assert skipped == [{"row": 5, "why": "picture 5 is broken", "id": "s5"}]
    assert all(torch.isfinite(tensor).all() for tensor in _state(runs, "lonely").values())


def test_a_loss_that_is_no_number_stops_every_rank(runs: Path) -> None:
    messages = [(runs / "deadly" / f"error{rank}.txt").read_text() for rank in range(2)]
    assert messages[0] == messages[1]
    assert f"of s{DEADLY} (row {DEADLY});" in messages[0]
    done = len(_log(runs, "deadly"))
    assert os.listdir(runs / "deadly" / "checkpoints") == [f"step-{done}"]
    assert f"at step {done + 1}," in messages[0]


def test_a_worker_that_dies_is_named(runs: Path) -> None:
    order = Order(64, BASE.batch, partial(shuffled, 64, BASE.seed), 64 * 20)
    step = next(step for step in range(20) if FATAL in order(step))
    message = (runs / "dying" / "error0.txt").read_text()
    assert re.search(rf"worker .* died \(process \d+ at step {step + 1}, row {FATAL}\)", message), message


def test_an_arm_trains_on_two_processes(runs: Path) -> None:
    alone, both = (blindspot.load(runs / "arm" / name / "model")[0].state_dict() for name in ("alone", "run"))
    assert max((alone[name] - both[name]).abs().max().item() for name in alone) < TOLERANCE
    skipped = [row.get("skipped") for row in _log(runs / "arm", "run")]
    assert skipped == [row.get("skipped") for row in _log(runs / "arm", "alone")] and any(skipped)


def test_attempts_on_an_old_store_are_told_apart() -> None:
    store = HashStore()
    store.set("ask/1", "of a process that died")
    store.set("ask/2", "of another")
    names = []
    for _ in range(2):
        with ThreadPoolExecutor(3) as threads:
            agreed = {part.result(20) for part in [threads.submit(agree, store, rank, 3) for rank in range(3)]}
        names += agreed
    assert len(names) == len(set(names)) == 2


def test_bfloat16_keeps_float32_weights_and_learns(runs: Path) -> None:
    state, rows = _state(runs, "half"), _log(runs, "half")
    trained = [
        name for name in state if name.startswith(("model.language_model", "lm_head")) and name.endswith("weight")
    ]
    assert all(state[name].dtype == torch.float32 for name in trained)
    frozen = [name for name in state if "vision_tower" in name]
    assert {state[name].dtype for name in frozen if "frequencies" not in name} == {torch.bfloat16}
    assert {state[name].dtype for name in frozen if "frequencies" in name} == {torch.float32}
    assert rows[0]["loss"] == pytest.approx(_log(runs, "one")[0]["loss"], rel=0.02)
    assert rows[-1]["loss"] < rows[0]["loss"]
