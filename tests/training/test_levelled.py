"""A stage before stage 2 is long enough if its loss is level at the end: noted, or else an error of one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blindspot.errors import UserError
from blindspot.files import CHECKPOINTS, LEVELLED
from blindspot.training.fit import Recipe, silent
from blindspot.training.log import LEVEL, last_fall
from blindspot.training.stages import Run


def test_a_fall_is_told_as_a_share_of_the_whole() -> None:
    assert last_fall([10.0] + [9.0] * 5 + [2.0] * 2 + [1.0] * 2) == pytest.approx((2 - 1) * 2 / 2 / 9)
    assert last_fall(list(np.linspace(5, 4, 50))) == pytest.approx(0.2, abs=0.01)
    assert last_fall(list(np.exp(-np.arange(60) / 5))) < LEVEL
    assert last_fall([3.0, *[1.0] * 9]) == 0


@pytest.mark.parametrize("losses", [[], [2.0, 1.0], list(np.linspace(5, 1, 9)), [1.0] * 30, [1.0] * 20 + [2.0] * 10])
def test_what_is_too_short_or_never_fell_is_not_level(losses: list[float]) -> None:
    assert last_fall(losses) > LEVEL


def train(folder: Path, losses: Any, if_falling: Any, steps: int = 250) -> None:
    module = nn.Linear(2, 2)

    def loss(step: int, chosen: np.ndarray) -> Tensor:
        return module(torch.ones(1, 2)).sum() * 0 + losses(step)

    folder.mkdir(exist_ok=True)
    Run(Recipe(steps, 2, 1e-3, save_every=100), 0, folder, silent, if_falling=if_falling).train(module, 8, loss)


def test_a_loss_that_still_falls_is_noted_or_stops_in_one_line_that_comes_again(tmp_path: Path) -> None:
    def falls(step: int) -> float:
        return 3 - step / 100

    train(tmp_path / "noted", falls, "note")
    assert json.loads((tmp_path / "noted" / LEVELLED).read_text()) == {
        "fell": pytest.approx(0.222, abs=0.01),
        "level": False,
    }
    train(tmp_path / "budget", falls, None)
    assert not (tmp_path / "budget" / LEVELLED).exists()
    for _ in range(2):  # the second goes on from the end of the first
        with pytest.raises(UserError, match=r"after 250 steps the loss still falls.*raise the stage's steps") as error:
            train(tmp_path / "stopped", falls, "stop")
        assert "\n" not in str(error.value) and (tmp_path / "stopped" / CHECKPOINTS).is_dir()


def test_a_level_loss_goes_on(tmp_path: Path) -> None:
    train(tmp_path / "run", lambda step: 1 + 2 * 0.95**step, "stop")
    assert json.loads((tmp_path / "run" / LEVELLED).read_text())["level"]
    assert not (tmp_path / "run" / CHECKPOINTS).exists()
