"""Where each scheme puts image tokens, by hand on small grids."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blindspot.errors import UserError
from blindspot.positions.language import SCHEMES, LanguagePositions
from blindspot.positions.language.position_ids import place, tokens_per_image
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
