"""Where each scheme puts image tokens and what these see: by hand on small grids, in batches, packed and padded."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blindspot.errors import UserError
from blindspot.positions.language import SCHEMES, LanguagePositions
from blindspot.positions.language.position_ids import mask, place, tokens_per_image
from blindspot.positions.language.schemes import circle_angles

EVERY = [
    LanguagePositions(),
    LanguagePositions("row_break"),
    LanguagePositions("mrope"),
    LanguagePositions("mrope", interleaved=True),
    LanguagePositions("mrope", spatial_reset=True),
    LanguagePositions("mrope_film"),
    LanguagePositions("videorope"),
    LanguagePositions("mhrope"),
    LanguagePositions("mhrope", spatial_reset=True),
    LanguagePositions("rope_tie"),
    LanguagePositions("rope_tv"),
    LanguagePositions("v2pe", delta=1.0),
    LanguagePositions("v2pe", delta=0.25),
    LanguagePositions("bapa"),
    LanguagePositions("concentric"),
    LanguagePositions("circle"),
]
ALONE = [positions for positions in EVERY if SCHEMES[positions.scheme].film is None]
"""Those that lay out each picture by itself."""
schemes = st.sampled_from(EVERY)
sizes = st.integers(1, 7)


def around(positions: LanguagePositions, grid: tuple[int, int], start: int = 10) -> tuple[Tensor, Tensor, float]:
    """Positions of one image behind ``start`` text tokens, of the text token behind it, and the delta."""
    tokens = tokens_per_image(positions, grid)
    logical_bl = torch.arange(start + tokens + 1)[None]
    image_bl = (logical_bl >= start) & (logical_bl < start + tokens)
    placement = place(positions, logical_bl, image_bl, [grid])
    assert torch.equal(placement.ids_abl[:, 0, :start], torch.arange(start).expand(len(placement.ids_abl), -1))
    next_a = placement.ids_abl[:, 0, -1]
    assert (next_a == next_a[0]).all()
    return placement.ids_abl[:, 0, start:-1], next_a[0], placement.delta_b.item()


@pytest.mark.parametrize(
    ("positions", "expected", "following"),
    [
        (LanguagePositions(), [[10, 11, 12, 13, 14, 15]], 16),
        (LanguagePositions("row_break"), [[10, 11, 12, 13, 14, 15, 16, 17]], 18),
        (
            LanguagePositions("mrope"),
            [[10, 10, 10, 10, 10, 10], [10, 10, 10, 11, 11, 11], [10, 11, 12, 10, 11, 12]],
            13,
        ),
        (
            LanguagePositions("mrope", spatial_reset=True),
            [[10, 10, 10, 10, 10, 10], [0, 0, 0, 1, 1, 1], [0, 1, 2, 0, 1, 2]],
            13,
        ),
        (
            LanguagePositions("mhrope"),
            [[10, 10, 10, 10, 10, 10], [10, 10, 10, 11, 11, 11], [10, 11, 12, 10, 11, 12]],
            13,
        ),
        (
            LanguagePositions("mrope_film"),
            [[10, 10, 10, 10, 10, 10], [10, 10, 10, 11, 11, 11], [10, 11, 12, 10, 11, 12]],
            13,
        ),
        # rows at 10 - 1 + i, columns at 10 - 1.5 + j, next 10 + 2
        (
            LanguagePositions("videorope"),
            [[10, 10, 10, 10, 10, 10], [9, 9, 9, 10, 10, 10], [8.5, 9.5, 10.5, 8.5, 9.5, 10.5]],
            12,
        ),
        # L = 9: rows at 9 + i 4, columns at 9 + j 3, next 9 + 3 * 4
        (LanguagePositions("rope_tie"), [[13, 13, 13, 17, 17, 17], [12, 15, 18, 12, 15, 18]], 21),
        # L = 9: rows at 9 + (6 - 2) / 2 + i, columns at 9 + (6 - 3) / 2 + j, next 9 + 7
        (LanguagePositions("rope_tv"), [[12, 12, 12, 13, 13, 13], [11.5, 12.5, 13.5, 11.5, 12.5, 13.5]], 16),
        (LanguagePositions("v2pe", delta=1.0), [[10, 11, 12, 13, 14, 15]], 16),
        (LanguagePositions("v2pe", delta=0.25), [[9.25, 9.5, 9.75, 10, 10.25, 10.5]], 12),
        (LanguagePositions("bapa"), [[10, 10, 10, 10, 10, 10]], 11),
        (LanguagePositions("concentric"), [[10, 10, 10, 10, 10, 10]], 11),
    ],
)
def test_ids_of_two_rows_and_three_columns(positions: LanguagePositions, expected: Any, following: float) -> None:
    ids_an, next_position, delta = around(positions, (2, 3))
    assert ids_an.tolist() == expected
    assert next_position == following
    assert delta == following - 10 - len(expected[0])


def test_rings_of_a_larger_grid() -> None:
    ids_an, next_position, _ = around(LanguagePositions("concentric"), (4, 5), start=3)
    assert ids_an.view(4, 5).tolist() == [[3, 3, 3, 3, 3], [3, 4, 4, 4, 3], [3, 4, 4, 4, 3], [3, 3, 3, 3, 3]]
    assert next_position == 5
    assert around(LanguagePositions("concentric"), (5, 5), start=3)[1] == 6
    assert around(LanguagePositions("concentric"), (24, 24), start=3)[1] == 3 + 12


@given(st.integers(2, 9), st.integers(2, 9), st.floats(0.0, 1.0), st.floats(0.5, 50.0))
@settings(max_examples=25)
def test_circle_is_equally_far_from_every_text_position(height: int, width: int, alpha: float, radius: float) -> None:
    ids_an, next_position, _ = around(LanguagePositions("circle", alpha=alpha, radius=radius), (height, width))
    offsets_an = ids_an - 10
    torch.testing.assert_close(offsets_an.sum(dim=0), torch.zeros(height * width).double(), rtol=0, atol=1e-12)
    for text in (0.0, 7.0, 100.0):
        distance_n = (ids_an - text).norm(dim=0)
        assert distance_n.max() - distance_n.min() < 1e-10
    torch.testing.assert_close(offsets_an.norm(dim=0), torch.full((height * width,), radius).double())
    assert next_position == pytest.approx(ids_an.max().item() + 1)


def test_circle_by_hand() -> None:
    """Two by two, reading order alone: quarters of the circle, u and v written out; (x, y, z) are column, row, time."""
    ids_an, next_position, _ = around(LanguagePositions("circle", alpha=0.0, radius=2.0), (2, 2), start=1)
    a, b = 2 / math.sqrt(2), 2 / math.sqrt(6)
    expected = [[0, 2 * b, 0, -2 * b], [a, -b, -a, b], [-a, -b, a, b]]
    torch.testing.assert_close(ids_an - 1, torch.tensor(expected, dtype=torch.float64))
    assert next_position == pytest.approx(1 + 2 * b + 1)
    # Directions from the centre of a 3 x 3 grid: -3/4, -1/2, -1/4; pi, 0, 0; 3/4, 1/2, 1/4 of pi, stretched.
    directions = [-0.75, -0.5, -0.25, 1, 0, 0, 0.75, 0.5, 0.25]
    stretched = [(direction + 0.75) / 1.75 * 2 * math.pi for direction in directions]
    torch.testing.assert_close(circle_angles(3, 3, 1.0), torch.tensor(stretched, dtype=torch.float64))


def distinct(positions: LanguagePositions, grid: tuple[int, int]) -> int:
    return around(positions, grid)[0].double().round(decimals=9).unique(dim=1).shape[1]


def test_the_direction_alone_does_not_tell_patches_apart() -> None:
    assert distinct(LanguagePositions("circle", alpha=1.0), (6, 6)) == 27
    assert distinct(LanguagePositions("circle", alpha=0.5), (6, 6)) == 36


@given(schemes, sizes, sizes)
@settings(max_examples=40)
def test_no_two_tokens_share_a_position_unless_that_is_the_scheme(
    positions: LanguagePositions, height: int, width: int
) -> None:
    tokens = tokens_per_image(positions, (height, width))
    shared = {"bapa": 1, "concentric": (min(height, width) + 1) // 2}
    if positions.scheme == "circle" and (height, width) == (7, 3):
        shared["circle"] = 20  # the mix of direction and reading order meets itself once
    assert distinct(positions, (height, width)) == shared.get(positions.scheme, tokens)


@pytest.mark.parametrize("positions", EVERY, ids=str)
def test_an_image_of_one_patch_is_a_text_token_where_claimed(positions: LanguagePositions) -> None:
    ids_an, next_position, _ = around(positions, (1, 1))
    as_text = bool((ids_an == torch.arange(10, 10 + ids_an.shape[1])).all()) and next_position == 10 + ids_an.shape[1]
    otherwise = positions.scheme in ("rope_tie", "circle", "videorope")
    differs = positions.spatial_reset or otherwise or positions == LanguagePositions("v2pe", delta=0.25)
    assert as_text is not differs


@given(schemes, sizes, sizes)
@settings(max_examples=40)
def test_later_text_is_behind_the_image(positions: LanguagePositions, height: int, width: int) -> None:
    ids_an, next_position, _ = around(positions, (height, width))
    if positions.scheme == "videorope":  # a frame is centred on its place, so that a wide one reaches over it
        ids_an = ids_an[:1]
    assert next_position > ids_an.max()
    if positions.scheme in ("mrope", "mhrope"):
        assert next_position == 10 + max(height, width)


def test_every_scheme_is_tested() -> None:
    assert {positions.scheme for positions in EVERY} == set(SCHEMES)


def _film(positions: LanguagePositions, image: str, grids: list[tuple[int, int]]) -> list[list[float]]:
    """Positions by axis of a row that ``image`` spells: an i is an image token, anything else text."""
    image_bl = torch.tensor([[letter == "i" for letter in image]])
    return place(positions, torch.arange(len(image))[None], image_bl, grids).ids_abl[:, 0].double().tolist()


def test_frames_of_a_film_step_in_time_and_keep_their_places() -> None:
    found = _film(LanguagePositions("mrope_film"), "tiiiiiit", [(1, 2)] * 3)
    assert found[0] == [0, 1, 1, 2, 2, 3, 3, 4], "time: one step a frame; text behind max(F, H, W) = 3"
    assert found[1] == [0, 1, 1, 1, 1, 1, 1, 4] and found[2] == [0, 1, 2, 1, 2, 1, 2, 4]


def test_frames_of_videorope_lie_on_the_diagonal() -> None:
    found = _film(LanguagePositions("videorope", spacing=2), "tiiiit", [(1, 2)] * 2)
    assert found[0] == [0, 1, 1, 3, 3, 5]
    assert found[1] == [0, 0.5, 0.5, 2.5, 2.5, 5] and found[2] == [0, 0, 1, 2, 3, 5]


@pytest.mark.parametrize(
    ("image", "grids"),
    [("iitii", [(1, 2), (1, 2)]), ("iiiii", [(1, 2), (1, 3)])],
    ids=["a word between", "other sizes"],
)
def test_what_is_no_film_is_laid_out_picture_by_picture(image: str, grids: list[tuple[int, int]]) -> None:
    assert _film(LanguagePositions("mrope_film"), image, grids) == _film(LanguagePositions("mrope"), image, grids)


def test_a_film_ends_with_its_row() -> None:
    image_bl = torch.ones(2, 2, dtype=torch.bool)
    placed = place(LanguagePositions("mrope_film"), torch.arange(2).expand(2, 2), image_bl, [(1, 2), (1, 2)])
    assert placed.ids_abl[0].tolist() == [[0, 0], [0, 0]] and placed.delta_b.tolist() == [0, 0]


def test_time_turns_the_slowest_pairs_of_videorope() -> None:
    axes = SCHEMES["videorope"].axes_of(64, LanguagePositions("videorope"))
    assert axes[:4] == (2, 1, 2, 1) and axes[-16:] == (0,) * 16 and axes.count(1) == axes.count(2) == 24
    with pytest.raises(UserError, match=r"sections \[16, 20, 28\] must have as many pairs for rows as for columns"):
        SCHEMES["videorope"].axes_of(64, LanguagePositions("videorope", sections=(16, 20, 28)))


CONCENTRIC = LanguagePositions("concentric")


def by_loop(image: list[int], ring: list[int], kept: list[int]) -> Tensor:
    """``image`` is a token's image number or -1 for text."""
    length = len(image)
    seen = torch.zeros(length, length).bool()
    for query in range(length):
        for key in range(length):
            if image[query] >= 0 and image[query] == image[key]:
                seen[query, key] = ring[key] <= ring[query]
            else:
                seen[query, key] = key <= query and bool(kept[key])
    return seen


def test_a_square_of_nine_between_text() -> None:
    image = [-1] + [0] * 9 + [-1]
    ring = [0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    image_bl = torch.tensor([image]) >= 0
    visible = mask(CONCENTRIC, image_bl, [(3, 3)], None)
    assert visible is not None and visible.shape == (1, 1, 11, 11)
    seen = visible[0, 0] == 0
    assert torch.equal(seen, by_loop(image, ring, [1] * 11))
    assert seen[1].tolist() == [True, True, True, True, True, False, True, True, True, True, False]  # a corner
    assert seen[5].tolist() == [True] * 10 + [False]  # the centre
    assert seen[0].tolist() == [True] + [False] * 10 and seen[10].all()


@pytest.mark.parametrize("form", ["padding", "additive", "boolean"])
def test_two_images_padding_and_every_form_of_mask(form: str) -> None:
    kept = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], [1] * 18])
    image = [[-1] * 3 + [0] * 9 + [1] * 4 + [-1] * 2, [-1] * 7 + [2] * 9 + [-1] * 2]
    nine = [0, 0, 0, 0, 1, 0, 0, 0, 0]
    ring = [[0] * 3 + nine + [0] * 4 + [0] * 2, [0] * 7 + nine + [0] * 2]
    expected = torch.stack([by_loop(*row) for row in zip(image, ring, kept.tolist(), strict=True)])[:, None]
    if form == "padding":  # padding that sees nothing may see anything, as long as softmax has something
        expected[0, 0, :2] = True
    causal = (torch.ones(18, 18).bool().tril() & kept.bool()[:, None])[:, None]
    low = torch.finfo(torch.float32).min
    given = {"padding": kept, "additive": torch.where(causal, 0.0, low), "boolean": causal}[form]
    before = given.clone()
    visible = mask(CONCENTRIC, torch.tensor(image) >= 0, [(3, 3), (2, 2), (3, 3)], given)
    assert visible is not None
    assert torch.equal(visible if form == "boolean" else visible == 0, expected)
    assert form == "boolean" or ((visible == 0) | (visible == low)).all()
    assert torch.equal(given, before)


def test_images_behind_a_cache_leave_the_cached_keys_alone() -> None:
    image_bl = torch.tensor([[False] + [True] * 4])
    visible = mask(CONCENTRIC, image_bl, [(2, 2)], torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1]]))
    assert visible is not None
    assert (visible[0, 0] == 0).int().tolist() == [[0, 1, 1, 1, 0, 0, 0, 0]] + [[0, 1, 1, 1, 1, 1, 1, 1]] * 4


def test_the_mask_has_the_dtype_of_the_model() -> None:
    visible = mask(CONCENTRIC, torch.ones(1, 9).bool(), [(3, 3)], None, torch.bfloat16)
    assert visible is not None
    assert visible.dtype == torch.bfloat16
    assert visible.isfinite().all()


@pytest.mark.parametrize("positions", [LanguagePositions(), LanguagePositions("mrope"), LanguagePositions("bapa")])
def test_other_schemes_and_text_alone_keep_their_mask(positions: LanguagePositions) -> None:
    given = torch.ones(1, 4)
    image_bl = torch.ones(1, 4).bool()
    assert mask(positions, image_bl, [(2, 2)], given) is given
    assert mask(positions, image_bl, [(2, 2)], None) is None
    assert mask(CONCENTRIC, ~image_bl, [], given) is given


every = pytest.mark.parametrize("positions", EVERY, ids=lambda positions: positions.scheme)
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


@given(st.sampled_from(ALONE), st.lists(parts, min_size=1, max_size=4), st.booleans())
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


@given(st.sampled_from(EVERY), st.integers(1, 4), st.integers(1, 30))
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
    for positions in EVERY:
        between = positions.scheme in ("rope_tv", "v2pe", "circle", "videorope")
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
