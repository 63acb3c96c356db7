"""The core of every diagnostic: roles are found, states read and changed where they should be, and nothing else."""

import re
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any

import numpy as np
import pytest
import torch

from blindspot.connectors import ConnectorSpec
from blindspot.diagnostics.core import stimuli as draw
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.core.hooks import Changes, Site
from blindspot.diagnostics.core.parts import cut_up, in_raster_order, raster_order
from blindspot.errors import UserError
from blindspot.positions import EncoderPositions
from blindspot.scenes.relations import RELATIONS, relation
from tests.diagnostics.known import image_span, random_subject, sites, weights

pytestmark = pytest.mark.usefixtures("one_thread")
FAMILIES = ["clip", "siglip", "aimv2", "dinov2"]


@pytest.fixture(scope="module")
def subject() -> HookedVLM:
    return random_subject()


@pytest.mark.parametrize("family", FAMILIES)
def test_roles_are_those_of_the_variant(family: str) -> None:
    found = random_subject(family=family)
    body = found.model.model
    assert list(found.roles.layers) == list(body.language_model.layers)
    assert found.roles.rotary == (body.language_model.rotary_emb,)
    assert found.tower is body.vision_tower
    assert len(found.roles.tower_blocks) == 2
    assert (found.patches.grid, found.image_grid) == ((4, 4), (4, 4))
    assert found.patches.patches.tolist() == list(range(found.patches.tokens - 16, found.patches.tokens))


def test_a_connector_deeper_than_the_encoder_is_not_taken_for_it() -> None:
    found = random_subject(connector=ConnectorSpec(name="qformer", tokens=4, depth=5))
    assert found.tower is found.model.model.vision_tower
    assert (len(found.roles.tower_blocks), found.patches.grid, found.image_grid) == (2, (4, 4), None)
    for name in ("gated_cross_attention", "resampler"):
        assert random_subject(connector=ConnectorSpec(name=name, tokens=4)).image_grid is None


def test_states_are_those_of_transformers(subject: HookedVLM) -> None:
    prepared = subject.prepare(draw.directions(8, 0, "words"))
    trace = subject.run(prepared, sites(subject))
    plain = subject.model(**prepared.inputs, output_hidden_states=True)
    for layer, hidden in enumerate(plain.hidden_states[:-1]):
        assert torch.equal(trace.states[Site("language", layer)], hidden)
    normed = subject.model.model.language_model.norm(trace.states[Site("language", 2)])
    assert torch.allclose(normed, plain.hidden_states[-1], atol=1e-6)
    assert torch.equal(trace.logits_bk, plain.logits[:, -1].gather(1, prepared.choice_ids_bk))
    images = plain.image_hidden_states.view(8, 16, -1)
    assert torch.equal(trace.states[Site("language", 0)][:, image_span(prepared)], images)


def test_one_site_is_read_without_what_follows(subject: HookedVLM) -> None:
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    trace, ran = subject.run(prepared, sites(subject)), []
    hooks = [block.register_forward_hook(lambda *_: ran.append(1)) for block in subject.roles.layers]
    for site in sites(subject):
        ran.clear()
        assert torch.equal(subject.state(prepared, site), trace.states[site])
        assert len(ran) == (site.layer if site.part == "language" else 0)
    for hook in hooks:
        hook.remove()


def test_logits_are_made_of_the_last_token_alone(subject: HookedVLM) -> None:
    seen: list[torch.Size] = []
    hook = subject.model.lm_head.register_forward_hook(lambda _, __, logits_btv: seen.append(logits_btv.shape))
    subject.run(subject.prepare(draw.directions(4, 0, "words")))
    hook.remove()
    assert seen == [(4, 1, subject.model.lm_head.out_features)]


def test_mentions_point_at_the_words(subject: HookedVLM) -> None:
    stimuli = draw.statements(16, 1, "words")
    prepared = subject.prepare(stimuli)
    for role, index_b in prepared.mentions.items():
        for row, stimulus, index in zip(prepared.inputs["input_ids"], stimuli, index_b.tolist(), strict=True):
            assert subject.tokenizer.decode([int(row[index])]).strip() == stimulus.mentions[role]


def test_an_edit_changes_its_site_and_what_follows_only(subject: HookedVLM) -> None:
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    plain = subject.run(prepared, sites(subject))
    for site in (Site("encoder", 1), Site("language", 1)):
        edited = subject.run(prepared, sites(subject), Changes([(site, lambda states: states + 1)]))
        order = sites(subject)
        for other in order[: order.index(site)]:
            assert torch.equal(edited.states[other], plain.states[other])
        for other in order[order.index(site) + 1 :]:
            assert not torch.equal(edited.states[other], plain.states[other])
    after = subject.run(prepared, sites(subject))
    assert all(torch.equal(after.states[site], plain.states[site]) for site in sites(subject))


def test_places_of_the_language_model_are_position_ids() -> None:
    """Rotating image tokens as others are is what other position ids do, content and order untouched."""
    subject = random_subject(spread=0.4)
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    span, length = image_span(prepared), prepared.image_bt.shape[1]
    places = torch.arange(length).repeat(4, 1)
    places[:, span] = places[:, span].flip(1)
    changed = subject.run(prepared, changes=Changes(language_places=places))
    expected = subject.model(**prepared.inputs, position_ids=places).logits[:, -1].gather(1, prepared.choice_ids_bk)
    assert torch.allclose(changed.logits_bk, expected, atol=1e-5)
    assert not torch.allclose(changed.logits_bk, subject.run(prepared).logits_bk, atol=1e-3)


@pytest.mark.parametrize(
    "positions",
    [
        EncoderPositions(),
        EncoderPositions("axial", 100.0, "replace"),
        EncoderPositions("axial", 100.0, "keep"),
        EncoderPositions("mixed", 100.0, "replace"),
    ],
)
def test_moving_pictures_and_positions_together_changes_nothing_else(positions: EncoderPositions) -> None:
    """A permuted picture whose patches keep their own positions gives the permuted features."""
    subject = random_subject(positions)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    pictures = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), dtype=np.uint8)
    cells = pictures.reshape(2, 4, 8, 4, 8, 3).swapaxes(2, 3).reshape(2, 16, 8, 8, 3)[:, order.numpy()]
    moved = cells.reshape(2, 4, 4, 8, 8, 3).swapaxes(2, 3).reshape(2, 32, 32, 3)
    stimuli = draw.directions(2, 0, "words")
    last = Site("encoder", 2)
    plain = subject.run(subject.prepare(stimuli, list(pictures)), [last]).states[last]
    both = subject.run(subject.prepare(stimuli, list(moved)), [last], Changes(encoder_places=order)).states[last]
    alone = subject.run(subject.prepare(stimuli, list(moved)), [last]).states[last]
    assert torch.allclose(both, plain[:, order], atol=1e-5)
    assert not torch.allclose(alone, plain[:, order], atol=1e-3)


def test_zero_takes_positions_away() -> None:
    subject = random_subject(EncoderPositions("axial", 100.0, "keep"))
    bare = random_subject(EncoderPositions("learned", table="replace"))
    weights = {name: value for name, value in subject.model.state_dict().items() if "position_embedding" not in name}
    bare.model.load_state_dict(weights, strict=False)
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    assert torch.allclose(subject.run(prepared, changes=Changes(encoder_places="zero")).logits_bk,
                          bare.run(prepared).logits_bk, atol=1e-5)  # fmt: skip


def test_scores_can_hide_tokens_from_a_layer(subject: HookedVLM) -> None:
    prepared = subject.prepare(draw.directions(4, 0, "words"))
    length = prepared.image_bt.shape[1]
    hidden = torch.zeros(4, 1, length, length)
    hidden[:, :, -1, image_span(prepared)] = float("-inf")
    first, second = weights(subject, prepared, Changes(scores={1: hidden})).values()
    assert second[:, :, -1, image_span(prepared)].max() == 0
    assert first[:, :, -1, image_span(prepared)].min() > 0
    assert torch.allclose(second.sum(-1), torch.ones(4, 2, length))


def test_a_tower_whose_tokens_stand_for_no_place_is_refused() -> None:
    def mixed(pictures: list[np.ndarray]) -> torch.Tensor:
        return torch.tensor([[[picture.mean()]] * 16 for picture in pictures])

    with pytest.raises(UserError, match="one patch each"):
        raster_order(mixed, 32)
    with pytest.raises(UserError, match="no square grid"):
        raster_order(lambda pictures: torch.zeros(len(pictures), 48, 2), 32)


def test_shuffled_tokens_are_put_in_order() -> None:
    order = np.random.default_rng(0).permutation(16)

    def tower(pictures: list[np.ndarray]) -> torch.Tensor:
        means = np.stack([picture.reshape(4, 8, 4, 8, 3).mean((1, 3, 4)).ravel() for picture in pictures])
        return torch.from_numpy(means[:, order][..., None] + np.arange(16)[None, :, None])

    assert raster_order(tower, 32).patches.tolist() == np.argsort(order).tolist()


@pytest.mark.parametrize("make", [draw.directions, draw.statements, draw.counts, draw.existence])
def test_stimuli_tell_the_truth_and_balance_their_answers(make: Callable[..., list[draw.Stimulus]]) -> None:
    for speech in ("words", "english"):
        stimuli = make(64, 5, speech)
        assert stimuli == make(64, 5, speech)
        answers = draw.answers(stimuli)
        assert np.bincount(answers).tolist() == [64 // len(stimuli[0].choices)] * len(stimuli[0].choices)
        for stimulus in stimuli:
            if stimulus.choices == RELATIONS:
                assert stimulus.answer == relation(stimulus.subject.cell, stimulus.reference.cell)
            for words in stimulus.mentions.values():
                assert words in stimulus.prompt


def test_tokens_that_have_looked_around_are_still_recognised() -> None:
    def after_the_encoder(pictures: list[np.ndarray]) -> torch.Tensor:
        means = np.stack([picture.reshape(8, 8, 8, 8, 3).mean((1, 3, 4)).ravel() for picture in pictures])
        return torch.from_numpy(means + 0.3 * means.mean(axis=1, keepdims=True))[..., None]

    assert in_raster_order(after_the_encoder, (64, 64)) == (8, 8)
    assert in_raster_order(lambda pictures: after_the_encoder(pictures).flip(1), (64, 64)) is None
    assert in_raster_order(lambda pictures: after_the_encoder(pictures)[:, :40], (64, 64)) is None


@pytest.mark.parametrize("whole", [(0, 0), (4, 4), (3, None)])
@pytest.mark.parametrize("tiles", [(1, 2), (2, 3), (3, 2)])
@pytest.mark.parametrize("first", [True, False])
def test_places_of_tokens_on_tiles_are_found(
    whole: tuple[int, int | None], tiles: tuple[int, int], first: bool
) -> None:
    """Tiles of 4 x 4 tokens in raster order each, a token between them that sees nothing, all looking around."""
    size, (rows, columns) = (96 * tiles[0], 96 * tiles[1]), tiles
    ends = lambda start, stop, count: np.linspace(start, stop, count + 1).round().astype(int)  # noqa: E731

    def cells(y: tuple[int, int], x: tuple[int, int], grid: tuple[int, int]) -> list[tuple[int, ...]]:
        down, across = ends(*y, grid[0]), ends(*x, grid[1])
        return [(*down[r : r + 2], *across[c : c + 2]) for r in range(grid[0]) for c in range(grid[1])]

    near = round(whole[0] * columns / rows) if whole[1] is None else whole[1]
    places: list[tuple[int, ...] | None] = []
    for row, column in np.ndindex(rows, columns):
        places += [*cells((96 * row, 96 * row + 96), (96 * column, 96 * column + 96), (4, 4)), None]
    shown = cells((0, size[0]), (0, size[1]), (whole[0], near)) if whole[0] else []
    places = [*shown, *places] if first else [*places, *shown]

    def states(pictures: Sequence[np.ndarray]) -> torch.Tensor:
        means = [[0 if at is None else p[at[0] : at[1], at[2] : at[3]].mean() for at in places] for p in pictures]
        looked = np.array(means) + 0.3 * np.mean(means, axis=1, keepdims=True)
        return torch.from_numpy(looked * [at is not None for at in places])[..., None]

    found = cut_up(states, size)
    assert found is not None and found.grid == (4 * rows, 4 * columns)
    for place, rect in zip(places, found.rects_n4 * (size[1], size[0], size[1], size[0]), strict=True):
        assert np.isnan(rect).all() if place is None else np.abs(rect[[1, 3, 0, 2]] - place).max() < 1
    on_grid = found.rects_n4[found.tokens]
    assert np.lexsort((on_grid[:, 0], on_grid[:, 1])).tolist() == list(range(16 * rows * columns))
    shuffled = torch.randperm(len(places), generator=torch.Generator().manual_seed(0))
    assert cut_up(lambda pictures: states(pictures)[:, shuffled], size) is None


def test_an_answer_begins_behind_a_space_only_where_the_prompt_ends_in_a_word(subject: HookedVLM) -> None:
    """As `evaluation` says it: Qwen's and Gemma's prompts end in a line break, LLaVA's in ``ASSISTANT:``."""

    class Words:
        all_special_tokens = ("<|end|>",)

        def encode(self, text: str, add_special_tokens: bool) -> list[str]:
            return re.findall(r" ?\w+|\s", text)

        def decode(self, ids: list[str]) -> str:
            return "".join(ids)

    holder: Any = copy(subject)
    holder.tokenizer = Words()
    assert holder._first_token("USER: where? ASSISTANT:", "left") == " left"
    assert holder._first_token("<|im_start|>assistant\n", "left") == "left"
    assert holder._first_token("where?<|end|>", "left") == "left"


def test_how_sure_a_model_is_follows_from_the_logits_that_it_gives() -> None:
    """Not from those of its head, which some models cap."""

    def cap(_: Any, __: Any, output: Any) -> Any:
        output.logits = output.logits * 0
        return output

    capped = random_subject(spread=0.5)
    prepared = capped.prepare(draw.directions(4, 0, "words"))
    assert (capped.run(prepared).sure_b > 2 / len(capped.tokenizer)).all()
    capped.model.register_forward_hook(cap)
    assert torch.allclose(capped.run(prepared).sure_b, torch.tensor(1 / capped.model.lm_head.out_features))
