"""The optimiser: a rate of its own for the encoder, moments in bfloat16, and LLaVA's way of weighing micro-batches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from toy_training import ToySamples, toy_variant

from blindspot.training.config import TrainConfig
from blindspot.training.optim import HalfAdamW, round_at_random
from blindspot.training.order import llava_order
from blindspot.training.packing import collate
from blindspot.training.variant import train

CONFIG = TrainConfig(
    batch=8, lr=1e-3, steps=1, warmup=0.0, precision="fp32", pack_tokens=80, workers=0, frozen=(), clip=1e9
)


def test_the_encoder_has_a_rate_of_its_own(tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in toy_variant().state_dict().items()}
    after = train(replace(CONFIG, encoder_lr=1e-4), toy_variant(), ToySamples(), tmp_path)
    moved = {name: (tensor - before[name]).abs().max().item() for name, tensor in after.items() if tensor.ndim > 1}
    tower = {name: move for name, move in moved.items() if "vision_tower" in name and move}
    others = {name: move for name, move in moved.items() if "vision_tower" not in name and move}
    assert tower and others  # the first step of AdamW is as long as its rate
    assert all(move == pytest.approx(1e-4, rel=1e-2) for move in tower.values())
    assert all(move == pytest.approx(1e-3, rel=1e-2) for move in others.values())


@pytest.mark.parametrize("value", [1.0, -3.0e-7, 1.0039062, 2.0e5 / 3, 0.0])
def test_rounding_at_random_loses_nothing_on_average(value: float) -> None:
    torch.manual_seed(0)
    exact = torch.full((40_000,), value)
    rounded = round_at_random(exact)
    assert rounded.dtype == torch.bfloat16 and len(rounded.unique()) <= 2
    assert rounded.float().mean().item() == pytest.approx(exact[0].item(), rel=1e-4, abs=1e-12)


def test_moments_in_bfloat16_go_where_float32_goes() -> None:
    torch.manual_seed(0)
    start, scale = torch.randn(4000), torch.rand(4000) + 0.1
    ends = []
    for kind in (HalfAdamW, torch.optim.AdamW):
        weight = torch.nn.Parameter(start.clone())
        groups: Any = [{"params": [weight], "lr": 1e-2, "weight_decay": 0.0}]
        optimiser = kind(groups)
        for step in range(300):
            weight.grad = scale * weight.detach() * (10 if step < 20 else 1)  # a second moment that has to shrink
            optimiser.step()
        ends.append(weight.detach())
        assert {tensor.dtype for tensor in optimiser.state[weight].values() if tensor.ndim} == {
            torch.bfloat16 if kind is HalfAdamW else torch.float32
        }
    ours, theirs = ends
    assert (ours - theirs).norm() < 0.02 * (start - theirs).norm()


def test_llavas_loss_is_a_mean_of_means(tmp_path: Path) -> None:
    config = replace(CONFIG, batching="llava", row_batch=2, loss="llava_exact")
    samples, heard = ToySamples(), []
    train(config, toy_variant(), samples, tmp_path, lambda step, steps, loss=None, phase="": heard.append(loss))
    rows = llava_order(*samples.lengths(), 2, 4, config.seed)[:8].tolist()
    variant, means = toy_variant(), []
    for start in range(0, 8, 2):
        chosen = [samples[row] for row in rows[start : start + 2]]
        pictures = [picture for sample in chosen for picture in samples.pixels(sample)]
        filler = None if pictures else samples.filler
        micro = collate(
            [(sample.id, sample) for sample in chosen], pictures or samples.pixels(samples.filler), False, filler=filler
        )
        logits = variant(input_ids=micro.ids_bl, attention_mask=(micro.document_bl >= 0).long(), **micro.pixels).logits
        means.append(F.cross_entropy(logits.flatten(0, 1)[micro.predictor_n], micro.label_n))
    assert heard == [pytest.approx(torch.stack(means).mean().item(), rel=1e-5)]
