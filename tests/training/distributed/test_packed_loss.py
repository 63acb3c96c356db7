"""Packing, accumulation and ways of attending change nothing: loss and gradients are those of samples one by one."""

import inspect
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
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
from blindspot.model.encoding import IGNORE
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.training import loss
from blindspot.training.loading import Batches, deal
from blindspot.training.log import BatchCounts
from blindspot.training.loss import AnswerLoss, Way, attention_arguments, choose_attention, seen_keys, token_losses
from blindspot.training.order import Order, shuffled
from blindspot.training.packing import Micro, TrainingSample, collate
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


def _micros(samples: ToySamples, tokens: int, rows: Any = ROWS, world: int = 1, **layout: Any) -> list[list[Micro]]:
    """The micro-batches of each rank."""
    order = Order(len(samples), len(rows), lambda epoch: np.resize(rows, len(samples)), len(rows))
    parts: Any = [
        Batches(samples, order, range(1), tokens, rank=rank, world=world, **layout)[0] for rank in range(world)
    ]
    return [part.micros for part in parts]


def _in_micros(
    variant: Any, samples: ToySamples, tokens: int, way: Way | None, **layout: Any
) -> tuple[float, dict[str, Tensor], int]:
    """Loss and gradients from micro-batches, those of all ranks one after the other."""
    parts = _micros(samples, tokens, **layout)
    micros = [micro for part in parts for micro in part]
    counts = BatchCounts(sum(micro.supervised for micro in micros), 0, 0, 0, len(micros), 0)
    weighed = [one for part in parts for one in weights("tokens", part, counts)]
    objective = AnswerLoss(variant, way, torch.float32)
    total = 0.0
    for micro, weight in zip(micros, weighed, strict=True):
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
    ways: list[Way | None] = [None]
    if packed:
        ways = list({choose_attention(variant, wish, device, torch.float32, False) for wish in ("auto", "mask")})
    for way in ways:
        for tokens in (1000, 100):
            ours, gradients, _ = _in_micros(variant, samples, tokens, way, packed=packed)
            assert abs(ours - value) < 1e-6 * value
            _same(gradients, reference)


@pytest.mark.parametrize(
    ("tokens", "way", "layout", "micros"),
    [
        (1000, "documents", {}, 1),
        (200, "documents", {}, 2),
        (200, "documents", {"world": 2}, 2),
        (42, "documents", {}, 8),
        (42, "documents", {"world": 2}, 8),
        (200, "mask", {"multiple": 64}, 2),
        (1000, None, {"world": 2, "row_batch": 5, "packed": False}, 4),  # one of them to keep the ranks together
    ],
)
def test_accumulation_and_ranks_change_nothing(tokens: int, way: Any, layout: dict[str, Any], micros: int) -> None:
    variant = toy_variant(language=LanguagePositions("mrope", sections=(4, 4, 4)))
    value, reference = _one_by_one(variant, SAMPLES)
    ours, gradients, count = _in_micros(variant, SAMPLES, tokens, way, **layout)
    assert count == micros
    assert abs(ours - value) < 1e-6 * value
    _same(gradients, reference)


def test_losses_of_documents_are_told_apart() -> None:
    objective = AnswerLoss(toy_variant(), "documents", torch.float32)
    [[micro]] = _micros(SAMPLES, 1000)
    total, document_k = objective(micro)
    assert document_k.sum().item() == pytest.approx(total.item(), rel=1e-6)
    for name, value in zip(micro.names, document_k.tolist(), strict=True):
        [[alone]] = _micros(SAMPLES, 1000, [int(name.partition(" ")[0][1:])])
        assert alone.names[0] == name
        assert value == pytest.approx(objective(alone)[0].item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_are_as_exact_as_one(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    # Small whole numbers, so that bfloat16 has the logits without rounding.
    hidden_nd = torch.randint(-2, 3, (37, 8), generator=generator).to(dtype)
    head_vd = torch.randint(-2, 3, (40, 8), generator=generator).to(dtype)
    label_n = torch.randint(0, 40, (37,), generator=generator)
    weight_n = torch.rand(37, generator=generator)
    exact_n = F.cross_entropy(hidden_nd.double() @ head_vd.double().T, label_n, reduction="none")
    gradients: list[list[Any]] = []
    for chunk in (37, 5):
        monkeypatch.setattr(loss, "CHUNK", chunk)
        hidden, head = hidden_nd.clone().requires_grad_(), head_vd.clone().requires_grad_()
        loss_n = token_losses(hidden, head, label_n)
        (loss_n * weight_n).sum().backward()
        torch.testing.assert_close(loss_n.double(), exact_n, rtol=1e-6, atol=1e-6)
        gradients.append([hidden.grad, head.grad])
    for ours, whole in list(zip(*gradients, strict=True))[: 1 if dtype == torch.bfloat16 else 2]:
        torch.testing.assert_close(ours, whole, rtol=1e-6, atol=1e-5)


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
    ours, gradients, _ = _in_micros(variant, SAMPLES, 200, "varlen", multiple=64)
    assert abs(ours - value) < 1e-6 * value
    _same(gradients, reference)


@pytest.mark.parametrize("way", ["documents", "varlen", "mask"])
@pytest.mark.parametrize("name", ["plain", "rotary encoder", "mixed, CLIP", "pooled"])
def test_whatever_a_step_makes_is_on_the_device_of_the_weights(name: str, way: Any) -> None:
    samples, device = ToySamples(count=12, tokens=TOKENS.get(name, 4)), torch.device("meta")
    micro = _micros(samples, 200, multiple=128)[0][0].to(device)
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
        samples = [(str(length), TrainingSample(str(length), [1] * length, [1] * length)) for length in lengths]
        return collate(samples, [], packed=True)

    for way in ("documents", "mask"):
        attention_arguments(way, config, micro(8, 4), torch.float32)
        with pytest.raises(UserError, match="9 tokens is longer than the window of 8"):
            attention_arguments(way, config, micro(9, 3), torch.float32)


def test_the_mask_hides_other_documents_and_the_future() -> None:
    mask_b1ll = seen_keys(torch.tensor([[0, 0, 1, 1, 1]]), None, None)
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
@settings(max_examples=25)
def test_dealing_is_whole_and_even(lengths: list[int], capacity: int, world: int, row_batch: int) -> None:
    for rows in (None, row_batch):
        dealt = deal(lengths, capacity, rows, world)
        assert dealt and len(dealt) % world == 0
        assert sorted(place for pack in dealt for place in pack) == list(range(len(lengths)))
    assert all(sum(lengths[place] for place in pack) <= capacity for pack in deal(lengths, capacity, None, world))


@given(st.integers(1, 30), st.integers(1, 12), st.integers(1, 3))
@settings(max_examples=25)
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
    assert choose_attention(ringed, "auto", cpu, torch.float32, False) == "mask"
    with pytest.raises(Exception, match="choose mask"):
        choose_attention(ringed, "documents", cpu, torch.float32, False)
    with pytest.raises(Exception, match="bf16"):
        choose_attention(toy_variant(), "varlen", cpu, torch.float32, False)
    assert choose_attention(toy_variant(), "auto", torch.device("cuda"), torch.bfloat16, True) == "varlen"
    assert IMAGE in SAMPLES.filler.ids
