"""Gated cross-attention beside a tiny Llama: nothing changes at the start, and afterwards only what should."""

import copy
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM

from blindspot.connectors import ConnectorSpec
from blindspot.connectors.gated_cross_attention import last_image, look
from blindspot.errors import UserError

GRID, IMAGE = (2, 3), 3
SPEC = ConnectorSpec("gated_cross_attention", every=2)


class Pair(nn.Module):
    """A language model and the connector beside it."""

    def __init__(self, holder: Any) -> None:
        super().__init__()
        self.connector = holder.multi_modal_projector
        self.language = AutoModelForCausalLM.from_config(holder.config.text_config).eval()
        self.connector.attach(self.language.model)

    def forward(self, ids_bl: Tensor, features_bnd: Tensor | None, **kwargs: Any) -> Tensor:
        media = None if features_bnd is None else self.connector(features_bnd, GRID)
        self.connector.set_images(media, last_image(ids_bl == IMAGE))
        return self.language(ids_bl, **kwargs).logits

    def open_gates(self) -> "Pair":
        for block in self.connector.blocks:
            nn.init.constant_(block.attention_gate, 0.7)
            nn.init.constant_(block.mlp_gate, -0.4)
        for weight in self.connector.parameters():
            if weight.dim() > 1:
                nn.init.normal_(weight, std=0.3)
        return self


@pytest.fixture
def pair(held: Callable[[ConnectorSpec], Any]) -> Pair:
    return Pair(held(SPEC))


def _ids(*places: tuple[int, ...], length: int = 9) -> Tensor:
    """Rows of text with image placeholders at these places."""
    ids_bl = torch.randint(4, 40, (len(places), length), generator=torch.Generator().manual_seed(2))
    for row, columns in zip(ids_bl, places, strict=True):
        row[list(columns)] = IMAGE
    return ids_bl


def _features(images: int) -> Tensor:
    return torch.randn(images, 6, 32, generator=torch.Generator().manual_seed(3))


def test_the_language_model_is_unchanged_at_the_start(pair: Pair) -> None:
    ids_bl = _ids((2,), (1, 5))
    alone = copy.deepcopy(pair.language)
    pair.connector.set_images(None, None)
    for dtype in (torch.float32, torch.bfloat16):
        pair, alone = pair.to(dtype), alone.to(dtype)
        with torch.no_grad():
            logits_blv = pair(ids_bl, _features(3).to(dtype))
            assert torch.equal(logits_blv, alone(ids_bl).logits)
    assert len(pair.connector.blocks) == 2


@pytest.mark.parametrize("family", ["qwen2", "qwen3", "gemma", "gemma3_text", "smollm3"])
def test_other_language_models_are_unchanged_too(held: Callable[[ConnectorSpec], Any], family: str) -> None:
    sizes = held(SPEC).config.text_config.to_dict()
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = held(SPEC).config
    config.text_config = AutoConfig.for_model(
        family, head_dim=16, num_key_value_heads=2, pad_token_id=0, **{key: sizes[key] for key in kept}
    )
    pair = Pair(type(held(SPEC))(config).eval())
    ids_bl = _ids((2,))
    with torch.no_grad():
        closed = pair(ids_bl, _features(1))
        assert torch.equal(closed, pair(ids_bl, None))
        assert not torch.allclose(pair.open_gates()(ids_bl, _features(1)), closed)


def test_open_gates_change_tokens_behind_the_image_and_no_other(pair: Pair) -> None:
    ids_bl = _ids((3,), ())
    with torch.no_grad():
        plain = pair(ids_bl, _features(1))
        opened = pair.open_gates()(ids_bl, _features(1))
        other = pair(ids_bl, -_features(1))
    assert torch.equal(opened[0, :3], plain[0, :3])
    assert torch.equal(opened[1], plain[1])
    assert ((opened - plain)[0, 3:].abs().amax(-1) > 1e-3).all()
    assert ((opened - other)[0, 3:].abs().amax(-1) > 1e-3).all()


def test_without_images_nothing_changes_whatever_the_gates(pair: Pair) -> None:
    ids_bl = _ids((), ())
    with torch.no_grad():
        alone = pair(ids_bl, None)
        assert torch.equal(pair.open_gates()(ids_bl, None), alone)
        assert torch.equal(pair(ids_bl, _features(1)), alone)


def test_a_token_sees_the_last_image_before_it(pair: Pair) -> None:
    """Through one block alone: otherwise self-attention carries earlier images on."""
    block, x_bld = pair.open_gates().connector.blocks[0], torch.randn(2, 6, 48)
    last_bl = torch.tensor([[-1, 0, 0, 1, 1, 1], [-1, -1, -1, 2, 2, 2]])
    media_mnd = torch.randn(3, 5, 48)
    with torch.no_grad():
        together = block(x_bld, look(media_mnd, last_bl))
        for row, token in ((0, 1), (0, 4), (1, 3)):
            own = media_mnd[last_bl[row, token]][None]
            alone = block(x_bld[row, token][None, None], look(own, torch.zeros(1, 1, dtype=torch.long)))
            assert torch.allclose(together[row, token], alone[0, 0], atol=1e-5)
    assert torch.equal(together[last_bl < 0], x_bld[last_bl < 0])


def test_one_block_by_hand(pair: Pair) -> None:
    block = pair.open_gates().connector.blocks[0]
    x_ld, media_nd = torch.randn(4, 48), torch.randn(5, 48)
    query_lc, key_nc, value_nc = block.query(block.attention_norm(x_ld)), block.key(media_nd), block.value(media_nd)
    heads = []
    for head in range(4):
        part = slice(12 * head, 12 * (head + 1))
        weights_ln = (query_lc[:, part] @ key_nc[:, part].T / 12**0.5).softmax(-1)
        heads.append(weights_ln @ value_nc[:, part])
    y_ld = x_ld + torch.tanh(torch.tensor(0.7)) * block.output(torch.cat(heads, dim=-1))
    z_ld = y_ld + torch.tanh(torch.tensor(-0.4)) * block.mlp(y_ld)
    got = block(x_ld[None], look(media_nd[None], torch.zeros(1, 4, dtype=torch.long)))
    assert torch.allclose(got[0], z_ld, atol=1e-5)


def test_patches_have_no_order(pair: Pair) -> None:
    ids_bl, features_bnd = _ids((2,)), _features(1)
    pair.open_gates()
    with torch.no_grad():
        before, after = (pair(ids_bl, tokens) for tokens in (features_bnd, features_bnd.flip(1)))
    assert (before - after).abs().max() < 1e-5


def test_images_may_differ_in_tokens(pair: Pair) -> None:
    ids_bl, media = _ids((1, 4), (2,)), [torch.randn(tokens, 48) for tokens in (6, 2, 4)]
    pair.open_gates().connector.set_images(media, last_image(ids_bl == IMAGE))
    with torch.no_grad():
        together = pair.language(ids_bl).logits
        pair.connector.set_images(media[2][None], last_image(ids_bl[1:] == IMAGE))
        alone = pair.language(ids_bl[1:]).logits
    assert torch.allclose(together[1:], alone, atol=1e-5)


def test_at_the_start_gradients_reach_the_gates_and_stop_there(pair: Pair) -> None:
    pair(_ids((1,)), _features(1)).square().sum().backward()
    for name, weight in pair.connector.named_parameters():
        assert weight.grad is not None
        assert bool(weight.grad.abs().max() > 0) == name.endswith("gate"), name


@pytest.mark.parametrize("tokens", [None, 4])
def test_open_gates_pass_gradients_to_every_weight(held: Callable[[ConnectorSpec], Any], tokens: int | None) -> None:
    pair = Pair(held(ConnectorSpec("gated_cross_attention", tokens=tokens, every=2))).open_gates()
    features_bnd = _features(1).requires_grad_()
    pair(_ids((1,)), features_bnd).square().sum().backward()
    assert features_bnd.grad is not None and bool((features_bnd.grad != 0).any(-1).all())
    for name, weight in pair.connector.named_parameters():
        assert weight.grad is not None and bool(weight.grad.abs().max() > 0), name


def test_checkpointing_gives_the_same_gradients_even_after_another_forward_pass(pair: Pair) -> None:
    pair.open_gates().train()
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            again = partial(checkpoint, use_reentrant=False)
            for layer in (*pair.language.model.layers, *pair.connector.blocks):
                layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, again
        pair.zero_grad()
        loss = pair(_ids((1,)), _features(1), use_cache=False).square().mean()
        pair(_ids((), ()), None, use_cache=False)
        loss.backward()
        found.append([weight.grad.clone() for weight in pair.connector.parameters() if weight.grad is not None])
    assert len(found[0]) == len(list(pair.connector.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_cached_decoding_and_beams_agree_with_one_pass(pair: Pair) -> None:
    ids_bl = _ids((0, 4), (2,))
    last_bl = last_image(ids_bl == IMAGE)
    with torch.no_grad():
        whole = pair.open_gates()(ids_bl, _features(3))
        media = pair.connector(_features(3), GRID)
        beams = [1, 1, 0]  # rows in another order, and one twice, as beam search does
        pair.connector.set_images(media, last_bl[:, :6])
        cache = pair.language(ids_bl[:, :6], use_cache=True).past_key_values
        cache.batch_select_indices(torch.tensor(beams))
        for token in range(6, 9):
            pair.connector.set_images(media, last_bl[beams, token : token + 1])
            assert pair.connector._seen.kept, "keys and values of the media are computed once"
            step = pair.language(ids_bl[beams, token : token + 1], past_key_values=cache).logits
            assert torch.allclose(step[:, 0], whole[beams, token], atol=1e-5)


def test_kept_keys_follow_the_weights(pair: Pair) -> None:
    ids_bl, media = _ids((0,)), torch.randn(1, 6, 48)
    with torch.no_grad():
        pair.open_gates().connector.set_images(media, last_image(ids_bl == IMAGE))
        before = pair.language(ids_bl).logits
        pair.connector.blocks[0].value.weight.mul_(2)
        pair.connector.set_images(media, last_image(ids_bl == IMAGE))
        assert not torch.allclose(pair.language(ids_bl).logits, before)


def test_keys_kept_in_inference_do_not_cut_gradients(pair: Pair) -> None:
    ids_bl = _ids((0,))
    pair.open_gates().connector.set_images(torch.randn(1, 6, 48), last_image(ids_bl == IMAGE))
    with torch.no_grad():
        pair.language(ids_bl)
    pair.language(ids_bl).logits.square().sum().backward()
    assert all(block.key.weight.grad is not None for block in pair.connector.blocks)


def test_a_row_is_given_its_own_images_only() -> None:
    last_bl = torch.tensor([[0, 0, 0], [-1, 1, 2], [-1, -1, -1], [3, 3, 3]])
    seen = look(torch.randn(4, 5, 48), last_bl)
    assert seen.images_br[:2].tolist() == [[0, 1], [1, 2]]
    assert seen.mask_b1lk is not None and seen.mask_b1lk.shape == (4, 1, 3, 10)
    one_each = look(torch.randn(4, 5, 48), last_bl[[0, 3]])
    assert one_each.mask_b1lk is None and one_each.images_br.tolist() == [[0], [3]]


def test_attaching_again_does_not_double_the_blocks(pair: Pair) -> None:
    ids_bl = _ids((2,))
    with torch.no_grad():
        once = pair.open_gates()(ids_bl, _features(1))
        pair.connector.attach(pair.language.model)
        assert torch.equal(pair(ids_bl, _features(1)), once)


def test_a_deep_copy_has_blocks_of_its_own(pair: Pair) -> None:
    ids_bl = _ids((2,))
    pair.open_gates()(ids_bl, _features(1))  # leaves media of autograd's graph behind
    twin = copy.deepcopy(pair)
    with torch.no_grad():
        before = pair(ids_bl, _features(1))
        for block in twin.connector.blocks:
            block.attention_gate.zero_()
            block.mlp_gate.zero_()
        closed = twin(ids_bl, _features(1))
        assert torch.equal(pair(ids_bl, _features(1)), before)
        assert not torch.allclose(closed, before)
        twin.connector.attach(twin.language.model)
        assert torch.equal(twin(ids_bl, _features(1)), closed)
    assert pickle.loads(pickle.dumps(twin.connector))._seen is None


@settings(max_examples=25)
@given(st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=4))
def test_last_image_counts_in_reading_order(rows: list[list[bool]]) -> None:
    count, expected = 0, []
    for row in rows:
        last = -1
        for is_image in row:
            if is_image:
                last, count = count, count + 1
            expected.append(last)
    assert last_image(torch.tensor(rows)).flatten().tolist() == expected


def test_media_of_another_shape_are_refused(pair: Pair) -> None:
    pair.connector.set_images(torch.randn(1, 6, 48), torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(ValueError, match=r"spoke of .*\(1, 4\), the language model reads \(1, 9\)"):
        pair.language(_ids((0,)))


def test_a_language_model_of_another_shape_is_refused(pair: Pair) -> None:
    with pytest.raises(UserError, match="Linear has none"):
        pair.connector.attach(nn.Linear(2, 2))
    with pytest.raises(UserError, match="built for 2 places, ModuleDict has 4"):
        pair.connector.attach(nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(2, 2) for _ in range(8))}))
