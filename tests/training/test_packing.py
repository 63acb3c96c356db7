"""Packing changes nothing: every turn gets the logits, loss and gradients of a sequence of its own."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from blindspot.connectors import ConnectorSpec
from blindspot.encoders import ENCODERS, TowerShape
from blindspot.model.build import build_variant
from blindspot.positions import EncoderPositions, LanguagePositions
from blindspot.positions.language import SCHEMES
from blindspot.training import turns as turns_module
from blindspot.training.loss import AnswerLoss, Way, seen_keys
from blindspot.training.packing import (
    PREFIX,
    Micro,
    Rows,
    join,
    join_rows,
    lay_out,
    pack,
    with_image_tokens,
)

PAD, BEGIN, IMAGE, VOCABULARY = 0, 1, 4, 24
TOWER = TowerShape(width=32, layers=1, heads=2, mlp_width=32, image_size=16, patch_size=8)
Turns = list[tuple[list[int], list[int]]]


class Row(NamedTuple):
    prefix: list[int]
    turns: Turns


ids = st.integers(IMAGE + 1, VOCABULARY - 1)
turns = st.lists(st.tuples(st.lists(ids, min_size=1, max_size=5), st.lists(ids, min_size=1, max_size=3)), max_size=4)
first_turns = st.tuples(st.lists(ids, max_size=3), st.lists(ids, min_size=1, max_size=3))
text_rows = st.builds(
    lambda prefix, first, more: Row([BEGIN, *prefix], [first, *more]), st.lists(ids, max_size=6), first_turns, turns
)
image_rows = st.builds(lambda first, more: Row([BEGIN] + [IMAGE] * TOWER.grid**2, [first, *more]), first_turns, turns)


def language_config() -> LlamaConfig:
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=256, pad_token_id=PAD, bos_token_id=BEGIN, eos_token_id=2,
    )  # fmt: skip
    config._attn_implementation = "eager"
    return config


def enlarge(model: nn.Module) -> Any:
    for parameter in model.parameters():  # small initial weights would hide what leaks between turns
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return enlarge(LlamaForCausalLM(language_config()))


@pytest.fixture(scope="module", params=["clip", "aimv2"])
def llava(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    positions = EncoderPositions("axial", table="replace") if request.param == "clip" else EncoderPositions()
    return enlarge(build_variant(ENCODERS[request.param], TOWER, positions, language_config(), IMAGE))


def rows_of(rows: list[Row]) -> Rows:
    return join([lay_out(row.prefix, row.turns) for row in rows])


def everything(rows: list[Row], images_bchw: Tensor | None = None) -> Micro:
    images = {} if images_bchw is None else {"pixel_values": images_bchw}
    return pack(rows_of(rows), np.arange(len(rows)), PAD, images)


def mask_of(batch: Micro) -> Tensor:
    return seen_keys(batch.document_bl, batch.turn_bl, torch.float32)


def pixels(count: int) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(2))


def packed_logits(model: Any, batch: Micro) -> Tensor:
    hidden_bld = model.model(
        input_ids=batch.ids_bl, position_ids=batch.positions_bl, attention_mask=mask_of(batch), **batch.pixels
    ).last_hidden_state
    return model.lm_head(hidden_bld)


def alone(model: Any, row: Row, turn: tuple[list[int], list[int]], image: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits (tokens, words) and summed answer loss of one turn as a plain sequence, without mask or positions."""
    sequence = torch.tensor([[*row.prefix, *turn[0], *turn[1]]])
    images = {} if image is None else {"pixel_values": image[None]}
    logits_lv = model(input_ids=sequence, **images).logits[0]
    length = len(turn[1])
    answer_lv = logits_lv[-length - 1 : -1].log_softmax(dim=-1)
    return logits_lv, -answer_lv.gather(1, sequence[0, -length:, None]).sum()


def check(model: Any, rows: list[Row], images_bchw: Tensor | None) -> None:
    batch = everything(rows, images_bchw)
    model.zero_grad()
    losses, answers = torch.zeros(()), 0
    with torch.no_grad():
        logits_blv = packed_logits(model, batch)
    for index, row in enumerate(rows):
        start, before = len(row.prefix), len(row.prefix)
        for turn in row.turns:
            image = None if images_bchw is None else images_bchw[index]
            wanted_lv, loss = alone(model, row, turn, image)
            length = len(turn[0]) + len(turn[1])
            got_lv = torch.cat([logits_blv[index, :before], logits_blv[index, start : start + length]])
            torch.testing.assert_close(got_lv, wanted_lv, rtol=1e-4, atol=5e-5)
            start += length
            losses, answers = losses + loss, answers + len(turn[1])
    (losses / answers).backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    for way in ("mask", "turns"):
        loss, got = loss_and_gradients(model, way, batch)
        torch.testing.assert_close(loss, losses / answers, rtol=1e-5, atol=1e-5)
        assert got.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-4, msg=f"{way} {name}".__add__)


def loss_and_gradients(model: Any, way: Way, batch: Micro) -> tuple[Tensor, dict[str, Tensor]]:
    model.zero_grad()
    loss = AnswerLoss(model, way, torch.float32)(batch)[0] / batch.supervised
    loss.backward()
    named = model.named_parameters()
    return loss.detach(), {name: weight.grad.clone() for name, weight in named if weight.grad is not None}


@settings(max_examples=20)
@given(rows=st.lists(text_rows, min_size=1, max_size=3))
def test_rows_of_text_equal_one_sequence_a_turn(llama: Any, rows: list[Row]) -> None:
    check(llama, rows, None)


@settings(max_examples=8)
@given(rows=st.lists(image_rows, min_size=1, max_size=3))
def test_rows_about_images_equal_one_sequence_a_turn(llava: Any, rows: list[Row]) -> None:
    check(llava, rows, pixels(len(rows)))


def test_three_images_a_row_equal_one_sequence_a_turn(llava: Any) -> None:
    prefix = [BEGIN] + [IMAGE] * (3 * TOWER.grid**2)
    rows = [Row(prefix, [([7, 8], [9]), ([10], [11, 12])]), Row(prefix, [([13], [14])])]
    with torch.no_grad():
        logits_blv = packed_logits(llava, everything(rows, pixels(6)))
        for index, row in enumerate(rows):
            single = everything([Row(prefix, row.turns[-1:])])
            wanted_lv = llava(input_ids=single.ids_bl, pixel_values=pixels(6)[3 * index : 3 * index + 3]).logits[0]
            length = sum(len(prompt) + len(answer) for prompt, answer in row.turns) + len(prefix)
            last = sum(map(len, row.turns[-1]))
            got_lv = logits_blv[index, length - last : length]
            torch.testing.assert_close(got_lv, wanted_lv[-last:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_gradients_without_computing_in_vain_are_those_of_the_mask(scheme: str) -> None:
    torch.manual_seed(0)
    positions = LanguagePositions(scheme)
    model: Any = enlarge(
        build_variant(
            ENCODERS["clip"], TOWER, EncoderPositions(), language_config(), IMAGE, language_positions=positions
        )
    )
    assert turns_module.takes(model.model.language_model) == (scheme not in ("mhrope", "concentric"))
    if not turns_module.takes(model.model.language_model):
        return
    prefix = [BEGIN] + [IMAGE] * model.tokens_per_image
    rows = [
        Row(prefix, [([7, 8], [9]), ([10], [11, 12, 13, 14])]),
        Row(prefix, [([13], [14]), ([7, 7, 7, 7, 7, 7], [8])]),
    ]
    batch = everything(rows, pixels(2))
    (plain, wanted), (ours, got) = (loss_and_gradients(model, way, batch) for way in ("mask", "turns"))
    torch.testing.assert_close(ours, plain, rtol=1e-6, atol=1e-6)
    assert got.keys() == wanted.keys()
    whole = torch.cat([gradient.flatten() for gradient in wanted.values()]).norm()
    for name, gradient in wanted.items():
        assert (got[name] - gradient).norm() <= 1e-5 * max(gradient.norm(), whole / 100), name


def test_what_reads_between_layers_is_computed_by_the_mask() -> None:
    gated = ConnectorSpec("gated_cross_attention")
    model: Any = build_variant(ENCODERS["clip"], TOWER, EncoderPositions(), language_config(), IMAGE, connector=gated)
    assert not turns_module.takes(model.model.language_model)


@given(rows=st.lists(text_rows, min_size=1, max_size=4))
def test_the_mask_shows_a_token_its_prefix_and_the_past_of_its_own_turn(rows: list[Row]) -> None:
    mask_b1ll = mask_of(everything(rows))
    for index, row in enumerate(rows):
        numbers = [PREFIX] * len(row.prefix)
        for number, (prompt, answer) in enumerate(row.turns):
            numbers += [number] * (len(prompt) + len(answer))
        for query, own in enumerate(numbers):
            visible = mask_b1ll[index, 0, query] == 0
            expected = [key <= query and numbers[key] in (PREFIX, own) for key in range(len(numbers))]
            assert visible.tolist() == expected + [False] * (visible.numel() - len(numbers))
    assert (mask_b1ll == 0).any(dim=-1).all()  # softmax of a row without a key would be NaN


@given(parts=st.lists(st.lists(text_rows, min_size=1, max_size=3), min_size=1, max_size=3))
def test_joined_collections_are_the_same_rows(parts: list[list[Row]]) -> None:
    joined, direct = join_rows([rows_of(part) for part in parts]), rows_of([row for part in parts for row in part])
    assert len(joined) == sum(map(len, parts))
    for name, values in vars(direct).items():
        np.testing.assert_array_equal(getattr(joined, name), values)
        assert getattr(joined, name).dtype == values.dtype


def test_rows_survive_a_file(tmp_path: Path) -> None:
    rows = rows_of([Row([BEGIN, 7], [([8], [9])]), Row([BEGIN], [([], [10, 2])])])
    rows.save(tmp_path / "rows.npz")
    loaded = Rows.load(tmp_path / "rows.npz")
    for name, values in vars(rows).items():
        np.testing.assert_array_equal(getattr(loaded, name), values)


@pytest.mark.parametrize(
    "row", [Row([], [([], [5])]), Row([BEGIN], [([6], [7]), ([], [5])])], ids=["nothing-before", "second-turn"]
)
def test_an_answer_that_nothing_predicts_is_refused(row: Row) -> None:
    with pytest.raises(ValueError, match="without a prompt"):
        lay_out(row.prefix, row.turns)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(1, 2), st.integers(1, 5), st.integers(1, 5))
def test_rows_laid_out_anew_are_those_laid_out_for_that_many_tokens(
    turns: list[int], images: int, stored: int, wanted: int
) -> None:
    image = 7

    def rows(tokens: int) -> Rows:
        prefix = [1, *[image] * (tokens * images)]
        return join([lay_out(prefix, [([2, 3 + turn], [4]) for turn in range(count)]) for count in turns])

    made, meant = with_image_tokens(rows(stored), image, stored, wanted), rows(wanted)
    for name, array in vars(meant).items():
        np.testing.assert_array_equal(getattr(made, name), array, err_msg=name)
        assert getattr(made, name).dtype == array.dtype
