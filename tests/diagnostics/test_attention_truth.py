"""Attention known by construction: a head wired to look at what a word names, even attention, and the algebra."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from blindspot.connectors import ConnectorSpec
from blindspot.diagnostics.attention import run as measured
from blindspot.diagnostics.attention.run import FORMS, Form, growth, run, scaled, scaling
from blindspot.diagnostics.base import Budget, Findings
from blindspot.diagnostics.core import stimuli as draw
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import attending
from blindspot.diagnostics.core.parts import Layout
from blindspot.errors import UserError
from blindspot.scenes.render import RGB
from blindspot.scenes.world import CANVAS, CELL
from tests.diagnostics.known import random_subject, rows

pytestmark = pytest.mark.usefixtures("one_thread")
BUDGET = Budget(stimuli=32, batch=8)
SHARP = 60.0


def chroma(colour: str) -> Tensor:
    rgb = torch.tensor(RGB[colour], dtype=torch.float32)
    return nn.functional.normalize(rgb - rgb.mean(), dim=0)


def looking_subject() -> HookedVLM:
    """Head 0 of layer 0 looks from the word of a colour at that colour; all other attention is even.

    Patches carry their colour without grey through encoder and connector in channels 0 to 2, words of colours theirs in
    channels 3 to 5. Keys read the former, queries the latter; nothing rotates.
    """
    subject = random_subject(connector=ConnectorSpec(name="linear"), layers=2)
    model: Any = subject.model.model
    with torch.no_grad():
        for name, parameter in subject.model.named_parameters():
            if "norm" not in name:
                parameter.zero_()
        without_grey = 10 * (torch.eye(3) - 1 / 3) / CELL**2
        model.vision_tower.embeddings.patch_embedding.weight[:3] = without_grey[..., None, None].expand(
            3, 3, CELL, CELL
        )
        model.multi_modal_projector.linear.weight.copy_(torch.eye(32))
        for colour in RGB:
            [word] = subject.tokenizer.encode(colour, add_special_tokens=False)
            model.language_model.embed_tokens.weight[word, 3:6] = chroma(colour)
        attention = model.language_model.layers[0].self_attn
        attention.q_proj.weight[:3, 3:6] = SHARP * torch.eye(3)
        attention.k_proj.weight[:3, :3] = torch.eye(3)
        model.language_model.rotary_emb.inv_freq.zero_()
    return subject


@pytest.fixture(scope="module")
def found() -> Findings:
    return run(looking_subject(), BUDGET, lambda done, of: None)


@pytest.mark.parametrize("query", ["subject", "reference"])
def test_a_head_that_looks_at_the_object_has_all_there_is(found: Findings, query: str) -> None:
    wanted = {"mass": 1, "enrichment": 16, "auroc": 1}
    for measure, value in wanted.items():
        [best] = rows(found, "objects", query=query, object=query, measure=measure, layer=0, heads="best")
        assert best["head"] == 0
        assert best["value"] == pytest.approx(value, rel=1e-3)
    [other] = rows(found, "objects", query=query, object="other", measure="enrichment", layer=0, heads="best")
    assert (other["head"], other["value"]) == (1, pytest.approx(1))  # the even head is its best
    assert found.pictures["layers"].tolist()[1] == 0


def test_even_attention_knows_no_object(found: Findings) -> None:
    for row in rows(found, "objects", layer=1):
        assert row["value"] == pytest.approx({"mass": row["value"], "enrichment": 1, "auroc": 0.5}[row["measure"]])
    for row in rows(found, "shares", layer=1):
        assert row["value"] == pytest.approx(1 if row["even"] is None else row["even"], rel=1e-5)


def test_the_maps_show_where_the_word_looks(found: Findings) -> None:
    queries, layers = found.pictures["queries"].tolist(), found.pictures["layers"].tolist()
    maps = found.pictures["maps"][queries.index("subject"), layers.index(0)]
    assert maps.sum(axis=(1, 2)) == pytest.approx(np.ones(6), rel=1e-5)
    for shown, (cell, _) in zip(maps, found.pictures["cells"], strict=True):
        assert np.unravel_index(shown.argmax(), shown.shape) == tuple(cell)


def test_reports_reach_their_end_and_every_row_is_whole(found: Findings) -> None:
    told: list[tuple[int, int]] = []
    again = run(looking_subject(), BUDGET, lambda done, of: told.append((done, of)))
    assert told == [(k, 6) for k in range(1, 7)]
    for table, other in zip(found.tables, again.tables, strict=True):
        assert table.rows == other.rows
        for row in table.rows:
            assert row["low"] - 1e-9 <= row["value"] <= row["high"] + 1e-9 and row["n"] > 0


def test_an_object_lies_on_the_patches_that_it_covers() -> None:
    cases = (
        ((8, 16, 14, 22), (4, 4), [2 * 4 + 1]),
        ((8, 16, 16, 24), (8, 8), [34, 35, 42, 43]),
        ((9, 9, 15, 15), (2, 2), [0]),
    )
    for box, grid, patches in cases:
        assert Layout.raster(grid).on(np.array(box) / CANVAS).nonzero()[0].tolist() == patches


def attention(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double().softmax(dim=-1)


def test_measures_agree_with_their_definitions() -> None:
    image = attention(0, 2, 3, 1, 12).round(decimals=2)  # with ties
    on_object = torch.zeros(2, 1, 12, dtype=torch.bool)
    on_object[0, 0, :2], on_object[1, 0, 5:9] = True, True
    shares = measured.mass(image, on_object)
    for b in range(2):
        inside, outside = image[b, :, 0][:, on_object[b, 0]], image[b, :, 0][:, ~on_object[b, 0]]
        beaten = (inside[..., None] > outside[:, None]).double() + 0.5 * (inside[..., None] == outside[:, None])
        assert torch.allclose(measured.auroc(image, on_object)[b, :, 0].double(), beaten.mean(dim=(1, 2)))
        assert torch.allclose(shares[b, :, 0], inside.sum(-1) / (inside.sum(-1) + outside.sum(-1)))
    assert torch.allclose(measured.enrichment(shares, on_object)[:, 0, 0] * torch.tensor([2, 4]) / 12, shares[:, 0, 0])
    even = torch.full((1, 1, 1, 12), 0.01)
    assert measured.entropy(even).item() == pytest.approx(1)
    assert measured.entropy(even * nn.functional.one_hot(torch.tensor(3), 12)).item() == 0
    assert measured.auroc(even, on_object[:1]).item() == 0.5


@pytest.mark.parametrize("form", FORMS)
def test_the_derivative_of_the_share_is_that_of_autograd(form: Form) -> None:
    scores = torch.randn(2, 3, 10, generator=torch.Generator().manual_seed(1)).double()
    image = torch.zeros(2, 10, dtype=torch.bool)
    image[:, 2:7] = True
    change = growth(scores, image, form)
    alpha = torch.ones(2, 3, 1, dtype=torch.double, requires_grad=True)
    share = ((scores + (alpha - 1) * change).softmax(dim=-1) * image[:, None]).sum(dim=-1)
    [expected] = torch.autograd.grad(share.sum(), alpha)
    assert torch.allclose(measured.sensitivity(scores.softmax(dim=-1), image, change), expected[..., 0], atol=1e-12)


@settings(max_examples=30)
@given(st.floats(-20, 20), st.floats(0.3, 3), st.integers(0, 99))
def test_a_constant_on_all_scores_is_seen_by_the_published_form_alone(constant: float, alpha: float, seed: int) -> None:
    scores = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(seed)).double()
    image = torch.arange(8)[None] < 5

    def weights(scores: Tensor, form: Form) -> Tensor:
        return (scores + (alpha - 1) * growth(scores, image, form)).softmax(dim=-1)

    form: Form = "shift-invariant"
    assert torch.allclose(weights(scores + constant, form), weights(scores, form))
    if abs((alpha - 1) * constant) > 0.1:
        assert not torch.allclose(weights(scores + constant, "published"), weights(scores, "published"), atol=1e-3)


def test_rollout_of_one_layer_and_of_two() -> None:
    first, second = attention(2, 1, 2, 5, 5), attention(3, 1, 2, 5, 5)
    start = torch.eye(5).double()[None]
    half = [(layer.mean(dim=1) + torch.eye(5)) / 2 for layer in (first, second)]
    assert torch.allclose(measured.rolled(second.mean(1), measured.rolled(first.mean(1), start)), half[1] @ half[0])


def answers_under(subject: HookedVLM, alpha: float, form: Form) -> Tensor:
    prepared = subject.prepare(draw.directions(8, 0, "words"))
    with scaled(subject, prepared, torch.full((8,), alpha), form):
        return subject.run(prepared).logits_bk


@pytest.mark.parametrize("form", FORMS)
def test_alpha_one_changes_nothing_and_others_do(form: Form) -> None:
    subject = random_subject(spread=0.5)
    plain = subject.run(subject.prepare(draw.directions(8, 0, "words"))).logits_bk
    assert torch.equal(answers_under(subject, 1.0, form), plain)
    assert not torch.allclose(answers_under(subject, 1.5, form), plain, atol=1e-3)
    again = subject.run(subject.prepare(draw.directions(8, 0, "words"))).logits_bk
    assert torch.equal(again, plain)  # and nothing is left behind


def test_scaling_multiplies_the_last_row_on_the_picture_in_every_layer() -> None:
    """Against multiplied scores put together from the queries and keys of the first layer, and their softmax."""
    subject = random_subject(spread=0.5)
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    plain: dict[int, tuple[Tensor, Tensor]] = {}
    changed: dict[int, tuple[Tensor, Tensor]] = {}
    look: Callable[..., Any] = lambda store: lambda layer, weights, _, scores: store.update({layer: (weights, scores)})  # noqa: E731
    every_bt = torch.arange(prepared.image_bt.shape[1]).expand_as(prepared.image_bt)
    with attending(subject.roles.layers, every_bt, look(plain)):
        trace = subject.run(prepared)
    whole = subject.model(**prepared.inputs, output_attentions=True)
    assert torch.equal(trace.logits_bk, subject.run(prepared).logits_bk)
    for layer, (weights, scores) in plain.items():
        assert torch.equal(weights, whole.attentions[layer])
        assert torch.allclose(scores.softmax(dim=-1), weights[:, :, -1], atol=1e-5)

    def double(layer: int, scores_bhk: Tensor) -> Tensor:
        return growth(scores_bhk, prepared.image_bt, "published")

    with attending(subject.roles.layers, every_bt, look(changed), double):
        subject.run(prepared)
    for weights, scores in changed.values():
        twice = torch.where(prepared.image_bt[:, None], 2 * scores, scores)
        assert torch.allclose(weights[:, :, -1], twice.softmax(dim=-1), atol=1e-5)
    assert torch.equal(changed[0][0][:, :, :-1], plain[0][0][:, :, :-1])


def test_a_reader_without_a_grid_is_measured_without_objects() -> None:
    found = run(random_subject(connector=ConnectorSpec(name="resampler", tokens=4)), BUDGET, lambda done, of: None)
    assert not rows(found, "objects") and not rows(found, "rollout") and not found.pictures
    assert rows(found, "shares") and rows(found, "scaling")
    gated = run(random_subject(connector=ConnectorSpec(name="gated_cross_attention")), BUDGET, lambda done, of: None)
    assert not rows(gated, "shares")


def test_attention_of_a_models_own_is_refused() -> None:
    with pytest.raises(UserError, match="cannot be watched"), attending([nn.Linear(2, 2)]):
        pass


def test_adaptvis_turns_down_where_unsure_and_up_where_sure() -> None:
    subject = random_subject(spread=0.5)
    for times, alpha in ((1e-6, 0.5), (1e9, 1.5)):
        with torch.no_grad():
            subject.model.lm_head.weight *= times
        table = scaling(subject, Budget(stimuli=16), lambda: None).rows
        for row in table:
            if row["method"] == "AdaptVis":
                [same] = [
                    other
                    for other in table
                    if (other["task"], other["form"], other["alpha"]) == (row["task"], row["form"], alpha)
                    and other["method"] == "ScalingVis"
                ]
                assert {**row, "method": "ScalingVis"} == same
