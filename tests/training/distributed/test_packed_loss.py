"""Packing, accumulation and ways of attending change nothing: loss and gradients are those of samples one by one."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from toy_training import IMAGE, ToySamples, toy_variant

from blindspot.connectors import ConnectorSpec
from blindspot.model.encoding import IGNORE
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.training.distributed import attention, loss
from blindspot.training.distributed.batches import deal_packs, deal_rows
from blindspot.training.distributed.loading import Batches, Layout
from blindspot.training.distributed.loss import Objective, token_losses
from blindspot.training.distributed.order import Order, Shuffled

SAMPLES = ToySamples(count=12)
ROWS = range(12)
VARIANTS = {
    "plain": {},
    "rotary encoder": {"positions": EncoderPositions("axial", 100.0, "replace")},
    "mixed, CLIP": {"positions": EncoderPositions("mixed", 10.0, "keep"), "family": "clip"},
    "mrope": {"language": LanguagePositions("mrope", sections=(4, 4, 4))},
    "row_break": {"language": LanguagePositions("row_break")},
    "mhrope": {"language": LanguagePositions("mhrope"), "attention": "eager"},
    "circle": {"language": LanguagePositions("circle")},
    "concentric": {"language": LanguagePositions("concentric")},
    "pooled": {"connector": ConnectorSpec("average_pooling")},
    "queries": {"connector": ConnectorSpec("resampler", tokens=3, depth=1)},
    "gated": {"connector": ConnectorSpec("gated_cross_attention", every=1)},
}
TOKENS = {"row_break": 6, "pooled": 1, "queries": 3, "gated": 1}


def _one_by_one(variant: Any, samples: ToySamples) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients from every sample alone, through the model's ordinary forward pass."""
    total, count = torch.zeros(()), 0
    for row in ROWS:
        sample = samples[row]
        pixels = [picture["pixel_values"] for picture in samples.pixels(sample)]
        ids_bl = torch.tensor([sample.ids])
        images = {"pixel_values": torch.stack(pixels)} if pixels else {}
        logits_blv = variant(input_ids=ids_bl, attention_mask=torch.ones_like(ids_bl), use_cache=False, **images).logits
        labels_l = torch.tensor(sample.labels)
        total = total + F.cross_entropy(logits_blv[0, :-1], labels_l[1:], ignore_index=IGNORE, reduction="sum")
        count += int((labels_l[1:] != IGNORE).sum())
    (total / count).backward()
    return (total / count).item(), _gradients(variant)


def _gradients(variant: Any) -> dict[str, Tensor]:
    found = {name: one.grad.clone() for name, one in variant.named_parameters() if one.grad is not None}
    variant.zero_grad()
    return found


def _in_micros(
    variant: Any, samples: ToySamples, layout: Layout, way: attention.Way | None, world: int = 1
) -> tuple[float, dict[str, Tensor], int]:
    """Loss and gradients from micro-batches, those of all ranks one after the other."""
    order = Order(len(samples), len(ROWS), len(ROWS), lambda epoch: torch.arange(len(samples)).numpy())
    parts = [Batches(samples, order, layout, range(1), rank, world, 0)[0] for rank in range(world)]
    micros = [micro for part in parts for micro in part.micros]  # pyright: ignore
    count = sum(micro.supervised for micro in micros)
    objective = Objective(variant, way, torch.float32)
    total = 0.0
    for micro in micros:
        value, _ = objective(micro)
        (value / count).backward()
        total += value.item()
    objective.release()
    return total / count, _gradients(variant), len(micros)


def _same(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    scale = max(one.abs().max().item() for one in reference.values())
    for name, expected in reference.items():
        assert (ours[name] - expected).abs().max().item() < 1e-6 * max(1, scale), name
    for name in set(ours) - set(reference):
        assert not ours[name].any(), name


@pytest.mark.parametrize("name", VARIANTS)
def test_packed_is_the_sum_over_samples(name: str) -> None:
    variant = toy_variant(**VARIANTS[name])
    samples = ToySamples(count=12, tokens=TOKENS.get(name, 4))
    if name == "gated":
        for block in variant.model.multi_modal_projector.blocks:
            block.attention_gate.data.fill_(0.5)
            block.mlp_gate.data.fill_(0.5)
    value, reference = _one_by_one(variant, samples)
    device = torch.device("cpu")
    packed = name != "gated"
    ways: list[attention.Way | None] = [None]
    if packed:
        ways = list({attention.choose(variant, wish, device, torch.float32, False) for wish in ("auto", "mask")})
    for way in ways:
        for tokens in (1000, 100):
            ours, gradients, _ = _in_micros(variant, samples, Layout(tokens, packed=packed), way)
            assert abs(ours - value) < 1e-6 * value
            _same(gradients, reference)


@pytest.mark.parametrize(
    ("tokens", "world", "micros"), [(1000, 1, 1), (200, 1, 2), (200, 2, 2), (42, 1, 8), (42, 2, 8)]
)
def test_accumulation_and_ranks_change_nothing(tokens: int, world: int, micros: int) -> None:
    variant = toy_variant()
    value, reference = _one_by_one(variant, SAMPLES)
    ours, gradients, count = _in_micros(variant, SAMPLES, Layout(tokens), "documents", world)
    assert count == micros
    assert abs(ours - value) < 1e-6 * value
    _same(gradients, reference)


def test_rows_padded_as_llava_does_are_the_same_too() -> None:
    variant = toy_variant(language=LanguagePositions("mrope", sections=(4, 4, 4)))
    value, reference = _one_by_one(variant, SAMPLES)
    ours, gradients, count = _in_micros(variant, SAMPLES, Layout(1000, row_batch=5, packed=False), None, world=2)
    assert count == 4  # three with samples, one to keep the ranks together
    assert abs(ours - value) < 1e-6 * value
    _same(gradients, reference)


def test_filling_up_packs_changes_nothing() -> None:
    variant = toy_variant()
    value, reference = _one_by_one(variant, SAMPLES)
    ours, gradients, _ = _in_micros(variant, SAMPLES, Layout(200, multiple=64), "mask")
    assert abs(ours - value) < 1e-6 * value
    _same(gradients, reference)


def test_losses_of_documents_are_told_apart() -> None:
    variant = toy_variant()
    order = Order(12, 12, 12, Shuffled(12, 0))
    batch = Batches(SAMPLES, order, Layout(1000), range(1), 0, 1, 0)[0]
    [micro] = batch.micros  # pyright: ignore
    total, document_k = Objective(variant, "documents", torch.float32)(micro)
    assert document_k.sum().item() == pytest.approx(total.item(), rel=1e-6)
    alone = {}
    for row in ROWS:
        single = Batches(
            SAMPLES,
            Order(12, 1, 12, lambda e, row=row: torch.tensor([row] * 12).numpy()),
            Layout(1000),
            range(1),
            0,
            1,
            0,
        )
        [one] = single[0].micros  # pyright: ignore
        alone[one.names[0]] = Objective(variant, "documents", torch.float32)(one)[0].item()
    for name, value in zip(micro.names, document_k.tolist(), strict=True):
        assert value == pytest.approx(alone[name], rel=1e-5)


def test_chunks_give_the_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden_nd, head_vd = torch.randn(37, 8, generator=generator), torch.randn(40, 8, generator=generator)
    label_n = torch.randint(0, 40, (37,), generator=generator)

    def run() -> list[Tensor]:
        hidden, head = hidden_nd.clone().requires_grad_(), head_vd.clone().requires_grad_()
        loss_n = token_losses(hidden, head, label_n)
        (loss_n * torch.arange(37)).sum().backward()
        return [loss_n.detach(), hidden.grad, head.grad]  # pyright: ignore

    whole = run()
    monkeypatch.setattr(loss, "CHUNK", 5)
    for ours, expected in zip(run(), whole, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)


def test_the_mask_hides_other_documents_and_the_future() -> None:
    mask_b1ll = attention.document_mask(torch.tensor([[0, 0, 1, 1, 1]]), None)
    assert mask_b1ll[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 1, 1, 1],
    ]


@given(
    st.lists(st.integers(1, 60), max_size=40),
    st.integers(60, 200),
    st.integers(1, 5),
    st.integers(1, 7),
)
@settings(max_examples=25, deadline=None)
def test_dealing_is_whole_and_even(lengths: list[int], capacity: int, world: int, row_batch: int) -> None:
    for dealt in (
        [deal_packs(lengths, capacity, rank, world) for rank in range(world)],
        [deal_rows(len(lengths), row_batch, rank, world) for rank in range(world)],
    ):
        assert len({len(part) for part in dealt}) == 1 and dealt[0]
        assert sorted(place for part in dealt for pack in part for place in pack) == list(range(len(lengths)))
    packs = [pack for rank in range(world) for pack in deal_packs(lengths, capacity, rank, world)]
    assert all(sum(lengths[place] for place in pack) <= capacity for pack in packs)


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_every_epoch_has_every_sample_once(samples: int, batch: int, epochs: int) -> None:
    order = Order(samples, batch, samples * epochs, Shuffled(samples, 3))
    steps = -(-samples * epochs // batch)
    seen = [row for step in range(steps) for row in order(step)]
    for epoch in range(epochs):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples]) == list(range(samples))
    assert Order(samples, batch, samples * epochs, Shuffled(samples, 3))(steps - 1) == order(steps - 1)


def test_what_a_way_cannot_do_is_refused() -> None:
    ringed = toy_variant(language=LanguagePositions("concentric"))
    cpu = torch.device("cpu")
    assert attention.choose(ringed, "auto", cpu, torch.float32, False) == "mask"
    with pytest.raises(Exception, match="choose mask"):
        attention.choose(ringed, "documents", cpu, torch.float32, False)
    with pytest.raises(Exception, match="bf16"):
        attention.choose(toy_variant(), "varlen", cpu, torch.float32, False)
    assert attention.choose(toy_variant(), "auto", torch.device("cuda"), torch.bfloat16, True) == "varlen"
    assert IMAGE in SAMPLES.filler.ids
