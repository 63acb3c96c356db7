"""Packing, accumulation and ways of attending change nothing: loss and gradients are those of samples one by one."""

import inspect
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import varlen
from toy_training import IMAGE, ToySamples, toy_variant
from transformers import MistralConfig, Qwen2Config

from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.model import body
from blindspot.model.encoding import IGNORE
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.training import attention, loss
from blindspot.training.flops import Counts
from blindspot.training.loading import Batches, Layout, deal_packs, deal_rows
from blindspot.training.loss import AnswerLoss, token_losses
from blindspot.training.order import Order, shuffled
from blindspot.training.packing import Micro, Sample, collate
from blindspot.training.variant import weights

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
DOCUMENTED = inspect.signature(varlen.varlen_attn)
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
    order = Order(len(samples), len(ROWS), lambda epoch: torch.arange(len(samples)).numpy(), len(ROWS))
    parts: Any = [Batches(samples, order, layout, range(1), rank, world, 0)[0] for rank in range(world)]
    micros = [micro for part in parts for micro in part.micros]
    counts = Counts(sum(micro.supervised for micro in micros), 0, 0, 0, len(micros))
    objective = AnswerLoss(variant, way, torch.float32)
    total = 0.0
    for micro, weight in zip(
        micros, [one for part in parts for one in weights("tokens", part.micros, counts)], strict=True
    ):
        value, _ = objective(micro)
        (value * weight).backward()
        total += value.item() * weight
    objective.release()
    return total, _gradients(variant), len(micros)


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
    order = Order(12, 12, partial(shuffled, 12, 0), 12)
    batch = Batches(SAMPLES, order, Layout(1000), range(1), 0, 1, 0)[0]
    [micro] = batch.micros  # pyright: ignore
    total, document_k = AnswerLoss(variant, "documents", torch.float32)(micro)
    assert document_k.sum().item() == pytest.approx(total.item(), rel=1e-6)
    alone = {}
    for row in ROWS:
        single = Batches(
            SAMPLES,
            Order(12, 1, lambda e, row=row: torch.tensor([row] * 12).numpy(), 12),
            Layout(1000),
            range(1),
            0,
            1,
            0,
        )
        [one] = single[0].micros  # pyright: ignore
        alone[one.names[0]] = AnswerLoss(variant, "documents", torch.float32)(one)[0].item()
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


def test_chunks_in_bfloat16_are_as_exact_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    # Small whole numbers, so that bfloat16 has the logits without rounding.
    hidden_nd = torch.randint(-2, 3, (37, 8), generator=generator).bfloat16()
    head_vd = torch.randint(-2, 3, (40, 8), generator=generator).bfloat16()
    label_n = torch.randint(0, 40, (37,), generator=generator)
    weight_n = torch.rand(37, generator=generator)
    found = []
    for chunk in (37, 5):
        monkeypatch.setattr(loss, "CHUNK", chunk)
        hidden = hidden_nd.clone().requires_grad_()
        loss_n = token_losses(hidden, head_vd, label_n)
        (loss_n * weight_n).sum().backward()
        found.append((loss_n.detach(), hidden.grad))
    (whole_n, gradient_nd), (ours_n, ours_nd) = found
    exact_n = F.cross_entropy(hidden_nd.double() @ head_vd.double().T, label_n, reduction="none")
    for loss_n in (whole_n, ours_n):
        torch.testing.assert_close(loss_n.double(), exact_n, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(ours_nd, gradient_nd, rtol=1e-6, atol=1e-6)


def _flash(query: Tensor, key: Tensor, value: Tensor, *given: Any, **named: Any) -> Tensor:
    """What torch documents of `varlen_attn`, in plain arithmetic: causal where the window is (-1, 0)."""
    bound = DOCUMENTED.bind(query, key, value, *given, **named).arguments
    starts, longest = bound["cu_seq_q"], bound["max_q"]
    assert bound["window_size"] == (-1, 0) and starts.dtype == torch.int32
    assert torch.equal(bound["cu_seq_k"], starts) and bound["max_k"] == longest == starts.diff().max()
    assert bound.get("enable_gqa", False) == (key.shape[1] != query.shape[1])
    key, value = (states.repeat_interleave(query.shape[1] // states.shape[1], dim=1) for states in (key, value))
    parts = []
    for start, end in pairwise(starts.tolist()):
        scores_hqk = torch.einsum("qhd,khd->hqk", query[start:end], key[start:end]) * bound["scale"]
        future_qk = torch.ones(end - start, end - start).triu(1).bool()
        weights_hqk = scores_hqk.masked_fill(future_qk, float("-inf")).softmax(dim=-1)
        parts.append(torch.einsum("hqk,khd->qhd", weights_hqk, value[start:end]))
    return torch.cat(parts)


@pytest.mark.parametrize("grouped", [False, True])
def test_flash_attention_is_called_as_it_is_documented(grouped: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    variant = toy_variant()
    for layer in variant.model.language_model.layers if grouped else ():
        layer.self_attn.num_key_value_groups = 2
        for projection in (layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.weight = torch.nn.Parameter(projection.weight[: len(projection.weight) // 2].detach())
    value, reference = _one_by_one(variant, SAMPLES)
    monkeypatch.setattr(varlen, "varlen_attn", _flash)
    ours, gradients, _ = _in_micros(variant, SAMPLES, Layout(200, multiple=64), "varlen")
    assert abs(ours - value) < 1e-6 * value
    _same(gradients, reference)


@pytest.mark.parametrize("way", ["documents", "varlen", "mask"])
@pytest.mark.parametrize("name", ["plain", "rotary encoder", "mixed, CLIP", "pooled"])
def test_whatever_a_step_makes_is_on_the_device_of_the_weights(name: str, way: Any, monkeypatch: Any) -> None:
    def insert(embeds_bld: Tensor, is_image_bl: Tensor, tokens: list[Tensor]) -> Tensor:
        return embeds_bld.masked_scatter(is_image_bl[..., None], torch.cat(tokens))

    monkeypatch.setattr(body, "_insert", insert)  # without the count, which the device meta does not have
    samples, device = ToySamples(count=12, tokens=TOKENS.get(name, 4)), torch.device("meta")
    batch = Batches(samples, Order(12, 12, partial(shuffled, 12, 0), 12), Layout(200, multiple=128), range(1), 0, 1, 0)[
        0
    ]
    micro = batch.micros[0].to(device)  # pyright: ignore
    objective = AnswerLoss(toy_variant(**VARIANTS[name]).to(device), way, torch.float32)
    total, document_k = objective(micro)  # the CPU's tensors and this device's do not go together
    total.backward()
    assert total.device == document_k.device == device


@pytest.mark.parametrize(
    "config",
    [MistralConfig(sliding_window=8), Qwen2Config(use_sliding_window=True, sliding_window=8, max_window_layers=0)],
)
def test_what_a_layer_would_not_see_is_refused(config: Any) -> None:
    config._attn_implementation = "sdpa"

    def micro(*lengths: int) -> Micro:
        samples = [(str(length), Sample(str(length), [1] * length, [1] * length)) for length in lengths]
        return collate(samples, [], packed=True)

    for way in ("documents", "mask"):
        attention.arguments(way, config, micro(8, 4), torch.float32)
        with pytest.raises(UserError, match="9 tokens is longer than the window of 8"):
            attention.arguments(way, config, micro(9, 3), torch.float32)


def test_the_mask_hides_other_documents_and_the_future() -> None:
    mask_b1ll = attention.seen_keys(torch.tensor([[0, 0, 1, 1, 1]]), None, None)
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
    permute = partial(shuffled, samples, 3)
    order = Order(samples, batch, permute, samples * epochs)
    steps = -(-samples * epochs // batch)
    seen = [row for step in range(steps) for row in order(step)]
    for epoch in range(epochs):
        assert sorted(seen[epoch * samples : (epoch + 1) * samples]) == list(range(samples))
    again = Order(samples, batch, permute, samples * epochs)(steps - 1)
    assert again.tolist() == order(steps - 1).tolist()


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
