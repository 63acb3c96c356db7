"""The loop: the same bits after a kill as without one, and one line when training diverges."""

import json
import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from blindspot.encoders import ENCODERS, TowerShape, build_tower
from blindspot.errors import UserError
from blindspot.files import CHECKPOINTS, PROBES
from blindspot.positions import EncoderPositions
from blindspot.training.checkpoint import Checkpoints
from blindspot.training.fit import Probing, Recipe, Work, fit
from blindspot.training.log import LOG
from blindspot.training.objectives import OBJECTIVES
from blindspot.training.objectives.base import CaptionShape
from blindspot.training.order import Order, shuffled
from blindspot.training.parallel import ALONE

RECIPE = Recipe(steps=12, batch=4, lr=0.02, warmup=3, log_every=5, save_every=3)
Killed = type("Killed", (BaseException,), {})


pytestmark = pytest.mark.usefixtures("one_thread")


class Net(nn.Module):
    """Something with matrices, vectors, a frozen part, a buffer and randomness in its loss."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers: Any = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.average: Tensor
        self.register_buffer("average", torch.zeros(8, 4))

    def loss(self, step: int) -> Tensor:
        samples_bd = torch.randn(64, 4, generator=torch.Generator().manual_seed(3))[order_of(64, 4, 7)(step)]
        noisy_bd = samples_bd + 0.1 * torch.randn_like(samples_bd)
        return (self.layers(self.frozen(noisy_bd))[:, 0] - samples_bd.sum(dim=1)).square().mean()

    def follow(self, step: int) -> None:
        with torch.no_grad():
            self.average.lerp_(self.layers[0].weight, 0.1)


def order_of(samples: int, batch: int, seed: int) -> Order:
    return Order(samples, batch, partial(shuffled, samples, seed))


def kill_at(step: int | None) -> Callable[..., None]:
    def report(done: int, steps: int, loss: float | None = None, phase: str = "") -> None:
        if done == step:
            raise Killed

    return report


def train(folder: Path, kill: int | None = None, recipe: Recipe = RECIPE, probed: bool = True) -> Net:
    folder.mkdir(exist_ok=True)
    net = Net()

    def probe() -> dict[str, Any]:
        assert not net.training
        _ = torch.randn(3), random.random(), np.random.rand()  # a probe may draw numbers without changing the run
        return {"mean": round(float(net.average.mean()), 6)}

    measured = Probing(probe, (2, 4, 8, 9)) if probed else None
    fit(Work(net, net.loss, 5, net.follow), recipe, folder, kill_at(kill), probe=measured)
    return net


def state(module: nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], str, str]:
    folder = tmp_path_factory.mktemp("whole")
    return state(train(folder)), *written(folder)


def written(folder: Path) -> tuple[str, str]:
    return (folder / LOG).read_text(), (folder / PROBES).read_text()


@pytest.mark.parametrize("kills", [(1,), (3,), (4,), (9, 11), (10, 11, 12), (2, 2)])
def test_a_killed_run_ends_with_the_same_bits(tmp_path: Path, whole: Any, kills: tuple[int, ...]) -> None:
    for kill in kills:
        with pytest.raises(Killed):
            train(tmp_path, kill)
        assert (tmp_path / CHECKPOINTS).exists() == (max(kills[: kills.index(kill) + 1]) > RECIPE.save_every)
    assert (state(train(tmp_path)), *written(tmp_path)) == whole
    assert sorted(path.name for path in tmp_path.rglob("step-*")) == ["step-12"]


def test_probes_change_nothing_of_a_run(tmp_path: Path, whole: Any) -> None:
    assert state(train(tmp_path, probed=False)) == whole[0] and (tmp_path / LOG).read_text() == whole[1]
    assert not (tmp_path / PROBES).exists()


def test_a_resumed_run_does_not_repeat_what_the_checkpoint_holds(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, 11)
    net, seen = Net(), []
    fit(Work(net, lambda step: (seen.append(step), net.loss(step))[1], 5), RECIPE, tmp_path)
    assert seen == [9, 10, 11]


def test_the_run_learns_and_leaves_frozen_parts_alone(tmp_path: Path) -> None:
    before, net = state(Net()), train(tmp_path, recipe=Recipe(steps=150, batch=4, lr=0.02, warmup=3, log_every=50))
    after = state(net)
    assert before["frozen.weight"] == after["frozen.weight"] and before["layers.0.weight"] != after["layers.0.weight"]
    rows = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < 0.5 * losses[0]
    assert not net.training


def _flipped(content: bytes) -> bytes:
    """One bit of a weight is another; torch alone reads it as if nothing were amiss."""
    weight = Net().frozen.weight.detach().numpy().tobytes()
    flipped = content.replace(weight, bytes([weight[0] ^ 1]) + weight[1:])
    assert flipped != content
    return flipped


@pytest.mark.parametrize("damage", [_flipped, lambda content: b""], ids=["bit", "empty"])
def test_an_unreadable_checkpoint_is_as_good_as_none(tmp_path: Path, whole: Any, damage: Any) -> None:
    with pytest.raises(Killed):
        train(tmp_path, 11)
    (path,) = tmp_path.glob(f"{CHECKPOINTS}/step-9/*.distcp")
    content = path.read_bytes()
    path.write_bytes(damage(content))
    assert (state(train(tmp_path)), *written(tmp_path)) == whole


def test_a_loss_that_is_not_a_number_is_one_line_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    net = Net()

    def loss(step: int) -> Tensor:
        return net.loss(step) * (float("nan") if step == 7 else 1.0)

    with pytest.raises(UserError) as caught:
        fit(Work(net, loss, 5, net.follow), RECIPE, tmp_path)
    assert "\n" not in str(caught.value) and "the loss is nan at step 8, of no sample alone" in str(caught.value)
    checkpoints, kept = Checkpoints(tmp_path / CHECKPOINTS, 1, ALONE, beside=False), Net().state_dict()
    assert checkpoints.newest() == 7
    checkpoints.load(7, {"model": kept})
    assert all(torch.equal(kept[name], tensor) and tensor.isfinite().all() for name, tensor in net.state_dict().items())


def test_the_log_has_losses_rates_and_probes_at_their_steps(whole: Any) -> None:
    rows = {row["step"]: row for row in map(json.loads, whole[1].splitlines())}
    assert list(rows) == [5, 10, 12] and all("loss" in row for row in rows.values())
    probes = [json.loads(line) for line in whole[2].splitlines()]
    assert [row["step"] for row in probes] == [2, 4, 8, 9, 12] and all("mean" in row for row in probes)
    assert all(row["steps"] == 12 for row in rows.values())
    assert rows[10]["lr"] == RECIPE.rate(9)


@pytest.mark.parametrize("family", list(OBJECTIVES))
def test_every_objective_resumes_with_the_same_bits(tmp_path: Path, family: str) -> None:
    """Step 9 of 10 lies in SigLIP2's second phase, whose teacher must survive the checkpoint."""
    shape = TowerShape(width=16, layers=1, heads=2, mlp_width=16, image_size=16, patch_size=4)
    pixels = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    captions = torch.tensor([[5, 6 + index % 3, 2] for index in range(8)])
    recipe = Recipe(steps=10, batch=4, lr=3e-3, warmup=2, save_every=3)

    def run(folder: Path, kill: int | None) -> nn.Module:
        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        tower = build_tower(ENCODERS[family], shape, EncoderPositions("axial", table="replace"))
        objective = OBJECTIVES[family].load()(tower, ENCODERS[family], shape, CaptionShape(10, 3, 0, 2), recipe.steps)
        order = order_of(8, 4, 1)

        def loss(step: int) -> Tensor:
            return objective(pixels[order(step)], captions[order(step)], step)["loss"]

        fit(Work(objective, loss, 1, objective.after_step), recipe, folder, kill_at(kill))
        return objective

    whole = state(run(tmp_path / "whole", None))
    for kill in (4, 10):
        with pytest.raises(Killed):
            run(tmp_path / "killed", kill)
    assert state(run(tmp_path / "killed", None)) == whole


@given(samples=st.integers(1, 40), batch=st.integers(1, 50), seed=st.integers(0, 5), epochs=st.integers(1, 4))
def test_an_epoch_sees_every_sample_at_most_once(samples: int, batch: int, seed: int, epochs: int) -> None:
    order, size = order_of(samples, batch, seed), min(batch, samples)
    per_epoch = samples // size
    for epoch in range(epochs):
        drawn = [order(epoch * per_epoch + place) for place in range(per_epoch)]
        assert all(len(indices) == size for indices in drawn)
        counts = Counter(int(index) for index in np.concatenate(drawn))
        assert set(counts.values()) == {1} and counts.keys() <= set(range(samples))
        assert samples % size or len(counts) == samples


@given(seed=st.integers(0, 5), steps=st.lists(st.integers(0, 200), min_size=1, max_size=8))
def test_the_order_is_a_function_of_seed_and_step(seed: int, steps: list[int]) -> None:
    one = order_of(20, 3, seed)
    for step in steps:
        np.testing.assert_array_equal(one(step), order_of(20, 3, seed)(step))


def test_epochs_and_seeds_differ() -> None:
    drawn = [order_of(50, 50, 0)(0), order_of(50, 50, 0)(1), order_of(50, 50, 1)(0)]
    assert len({tuple(order) for order in drawn}) == 3


@given(steps=st.integers(2, 500), warmup=st.integers(1, 50), lr=st.floats(1e-5, 1.0))
def test_the_rate_warms_up_stays_and_falls_to_a_twentieth(steps: int, warmup: int, lr: float) -> None:
    recipe = Recipe(steps=steps, batch=1, lr=lr, warmup=warmup)
    rates = [recipe.rate(step) for step in range(steps + 1)]
    assert all(0 < rate <= lr for rate in rates)
    assert rates[0] == pytest.approx(lr / warmup)
    for step in range(steps):
        if step + 1 <= warmup and step < steps / 2:
            assert rates[step] == pytest.approx(lr * (step + 1) / warmup)
        elif step < steps / 2:
            assert rates[step] == lr
        elif step + 1 >= warmup:
            assert rates[step + 1] < rates[step]
    assert rates[steps] == pytest.approx(lr / 20 * min(1.0, (steps + 1) / warmup))
