"""Placing batches: text alone, several images, padding, packed rows."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blindspot.errors import UserError
from blindspot.positions.language import LanguagePositions
from blindspot.positions.language.position_ids import place, tokens_per_image

SCHEMES = [
    LanguagePositions(),
    LanguagePositions("row_break"),
    LanguagePositions("mrope"),
    LanguagePositions("mrope", spatial_reset=True),
    LanguagePositions("mhrope"),
    LanguagePositions("rope_tie"),
    LanguagePositions("rope_tv"),
    LanguagePositions("v2pe"),
    LanguagePositions("bapa"),
    LanguagePositions("concentric"),
    LanguagePositions("circle"),
]
every = pytest.mark.parametrize("positions", SCHEMES, ids=lambda positions: positions.scheme)
Grids = list[tuple[int, int]]


def one_by_one(positions: LanguagePositions, parts: list[Any]) -> tuple[Tensor, float]:
    """Ids of a row, part after part: a number is that many text tokens, a pair an image. Returns the next id too."""
    ids, start = [], 0.0
    axes = place(positions, torch.zeros(1, 1).long(), torch.zeros(1, 1).bool(), []).ids_abl.shape[0]
    for part in parts:
        if isinstance(part, int):
            ids.append((start + torch.arange(part).double()).expand(axes, -1))
            start += part
        else:
            count = tokens_per_image(positions, part)
            image_bl = torch.arange(count + 2)[None] < count
            alone = place(positions, torch.arange(count + 2)[None], image_bl, [part]).ids_abl.double()
            from_zero = [1, 2] if positions.spatial_reset else []
            shift = torch.tensor([0.0 if axis in from_zero else start for axis in range(axes)], dtype=torch.float64)
            ids.append(alone[:, 0, :count] + shift[:, None])
            start += alone[0, 0, count].item()
    return torch.cat(ids, dim=1), start


def row_of(positions: LanguagePositions, parts: list[Any]) -> tuple[list[bool], Grids]:
    image = []
    for part in parts:
        image += [False] * part if isinstance(part, int) else [True] * tokens_per_image(positions, part)
    return image, [part for part in parts if not isinstance(part, int)]


parts = st.lists(st.one_of(st.integers(0, 5), st.tuples(st.integers(1, 4), st.integers(1, 4))), min_size=1, max_size=6)


@given(st.sampled_from(SCHEMES), st.lists(parts, min_size=1, max_size=4), st.booleans())
@settings(max_examples=40)
def test_batches_equal_rows_placed_part_by_part(
    positions: LanguagePositions, batch: list[list[Any]], left: bool
) -> None:
    """Several images, adjacent images, rows without any, text of no length, and padding on either side."""
    rows = [row_of(positions, parts) for parts in batch]
    longest = max(1, *(len(image) for image, _ in rows))
    mask_bl, image_bl = torch.zeros(2, len(rows), longest).bool()
    for mask_l, image_l, (image, _) in zip(mask_bl, image_bl, rows, strict=True):
        where = slice(longest - len(image), None) if left else slice(len(image))
        mask_l[where], image_l[where] = True, torch.tensor(image, dtype=torch.bool)
    logical_bl = (mask_bl.long().cumsum(dim=1) - 1).masked_fill(~mask_bl, 0)
    placement = place(positions, logical_bl, image_bl, [grid for _, grids in rows for grid in grids])
    for index, parts in enumerate(batch):
        if not rows[index][0]:
            continue
        expected_al, next_position = one_by_one(positions, parts)
        torch.testing.assert_close(placement.ids_abl[:, index, mask_bl[index]].double(), expected_al)
        following = len(rows[index][0]) + placement.delta_b[index].item()
        assert following == pytest.approx(next_position)


@given(st.sampled_from(SCHEMES), st.integers(1, 4), st.integers(1, 30))
@settings(max_examples=25)
def test_text_alone_keeps_its_positions_exactly(positions: LanguagePositions, batch: int, length: int) -> None:
    logical_bl = torch.arange(length).expand(batch, -1)
    placement = place(positions, logical_bl, torch.zeros(batch, length).bool(), [])
    for ids_bl in placement.ids_abl:
        assert torch.equal(ids_bl, logical_bl.to(ids_bl.dtype))
    assert not placement.delta_b.any()


@every
def test_turns_of_a_packed_row_continue_behind_the_shared_image(positions: LanguagePositions) -> None:
    """As training/packing.py lays them out: a prefix with the image, then turns that restart behind it."""
    image, _ = row_of(positions, [2, (3, 2)])
    prefix = len(image)
    turns = [torch.arange(prefix, prefix + length) for length in (4, 1, 6)]
    logical_bl = torch.cat([torch.arange(prefix), *turns])[None]
    image_bl = torch.tensor([image + [False] * 11])
    packed_al = place(positions, logical_bl, image_bl, [(3, 2)]).ids_abl[:, 0]
    alone_al, _ = one_by_one(positions, [2, (3, 2), 6])
    start = prefix
    for turn in turns:
        expected_al = torch.cat([alone_al[:, :prefix], alone_al[:, prefix : prefix + len(turn)]], dim=1)
        found_al = torch.cat([packed_al[:, :prefix], packed_al[:, start : start + len(turn)]], dim=1)
        torch.testing.assert_close(found_al.double(), expected_al)
        start += len(turn)


@every
def test_documents_packed_into_one_row_do_not_move_each_other(positions: LanguagePositions) -> None:
    documents = [[1, (2, 3), 4], [9], [(1, 2), (2, 2), 3], [20]]
    rows = [row_of(positions, parts) for parts in documents]
    logical_bl = torch.cat([torch.arange(len(image)) for image, _ in rows])[None]
    image_bl = torch.tensor([[flag for image, _ in rows for flag in image]])
    packed_al = place(positions, logical_bl, image_bl, [grid for _, grids in rows for grid in grids]).ids_abl[:, 0]
    expected_al = torch.cat([one_by_one(positions, parts)[0] for parts in documents], dim=1)
    torch.testing.assert_close(packed_al.double(), expected_al)


@every
def test_a_second_image_behind_a_cache(positions: LanguagePositions) -> None:
    """Placing the rest of a row, with the delta of its beginning added, is placing the whole row."""
    first, second = row_of(positions, [2, (2, 3), 3]), row_of(positions, [1, (3, 3), 4])
    image_bl = torch.tensor([first[0] + second[0]])
    logical_bl, cut = torch.arange(image_bl.shape[1])[None], len(first[0])
    whole = place(positions, logical_bl, image_bl, first[1] + second[1])
    before = place(positions, logical_bl[:, :cut], image_bl[:, :cut], first[1])
    after = place(positions, logical_bl[:, cut:] + before.delta_b[:, None], image_bl[:, cut:], second[1])
    torch.testing.assert_close(torch.cat([before.ids_abl, after.ids_abl], dim=2), whole.ids_abl)
    torch.testing.assert_close(before.delta_b + after.delta_b, whole.delta_b)


def test_whole_numbers_stay_whole() -> None:
    for positions in SCHEMES:
        between = positions.scheme in ("rope_tv", "v2pe", "circle")
        image_bl = torch.ones(1, tokens_per_image(positions, (2, 2))).bool()
        placement = place(positions, torch.arange(image_bl.shape[1])[None], image_bl, [(2, 2)])
        assert placement.ids_abl.is_floating_point() == placement.delta_b.is_floating_point() == between


def test_inputs_are_left_alone() -> None:
    logical_bl, image_bl = torch.arange(8)[None], (torch.arange(8) < 4)[None]
    before = logical_bl.clone(), image_bl.clone()
    place(LanguagePositions("bapa"), logical_bl, image_bl, [(2, 2)]).ids_abl.zero_()
    place(LanguagePositions(), logical_bl, image_bl, [(2, 2)]).ids_abl.zero_()
    assert torch.equal(logical_bl, before[0]) and torch.equal(image_bl, before[1])


@pytest.mark.parametrize(
    ("image", "grids", "message"),
    [
        ([0, 1, 1, 1, 1, 0], [(2, 3)], "1 images need 6 image tokens .* the text has 4; expand"),
        ([0, 1, 1, 1, 1, 0], [], "0 images need 0 image tokens"),
        ([1, 1, 0, 1, 1, 0], [(2, 2)], "image 1 of the batch has a grid of 2x2, .* don't lie side by side"),
        ([1, 1, 0, 1, 1, 1], [(1, 3), (1, 2)], "image 1 of the batch"),
    ],
)
def test_images_that_do_not_fit_the_text(image: list[int], grids: Grids, message: str) -> None:
    with pytest.raises(UserError, match=message):
        place(LanguagePositions("mrope"), torch.arange(6)[None], torch.tensor([image]).bool(), grids)


def test_an_image_across_two_rows_is_refused() -> None:
    image_bl = torch.tensor([[0, 0, 1, 1], [1, 1, 0, 0]]).bool()
    with pytest.raises(UserError, match="side by side in one row"):
        place(LanguagePositions(), torch.arange(4).expand(2, -1), image_bl, [(2, 2)])
