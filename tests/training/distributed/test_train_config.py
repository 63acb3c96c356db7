"""What a run is told: LLaVA's recipe, its schedule, and what is refused."""

import math

import pytest
import torch
from transformers import get_cosine_schedule_with_warmup

from blindspot.errors import UserError
from blindspot.training.config import TrainConfig, stage_config
from blindspot.training.optim import cosine


@pytest.mark.parametrize(
    ("stage", "samples", "steps", "lr"), [("connector", 558_128, 2_181, 1e-3), ("instruct", 665_298, 5_198, 2e-5)]
)
def test_the_recipe_is_llavas(stage: str, samples: int, steps: int, lr: float) -> None:
    config = stage_config(stage)  # pyright: ignore
    assert config.total_steps(samples) == steps
    assert (config.lr, config.warmup, config.clip) == (lr, 0.03, 1.0)


def test_the_rate_is_that_of_transformers() -> None:
    config = stage_config("instruct", steps=120)
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.lr)
    schedule = get_cosine_schedule_with_warmup(optimiser, math.ceil(120 * 0.03), 120)
    for step in range(120):
        assert cosine(step, 120, 4, config.lr) == pytest.approx(optimiser.param_groups[0]["lr"], abs=1e-12)
        optimiser.step()
        schedule.step()
    assert cosine(119, 120, 4, 1.0) < 1 / 1000


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"precision": "fp16"}, "precision: .*fp32. or .bf16., got .fp16"),
        ({"frozen": ("tower",)}, "frozen: .* got .tower"),
        ({"frozen": ("vision_tower", "multi_modal_projector", "language_model")}, "frozen: .* at most 2"),
        ({"batch": 0}, "batch: .*greater than 0"),
        ({"lr": -1.0}, "lr: .*greater than 0"),
        ({"encoder_lr": 0.0}, "encoder_lr: .*greater than 0"),
        ({"encoder_lr": 1e-4}, "encoder .* is frozen"),
        ({"loss": "llava_exact"}, "give batching llava too"),
        ({"shard_size": 0}, "shard_size: .*greater than 0"),
        ({"steps": 0}, "steps: .*greater than 0"),
        ({"warmup": 1.5}, "warmup"),
        ({"workers": -1}, "workers"),
        ({"seed": -1}, r"seed: .*greater than or equal to 0, got -1"),
        ({"seed": 2**32}, r"seed: .*less than 4294967296"),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        TrainConfig(**{"batch": 8, "lr": 1e-3, **wrong})  # pyright: ignore
    with pytest.raises(UserError, match="unknown stage"):
        stage_config("pretrain")  # pyright: ignore
