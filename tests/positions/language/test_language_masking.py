"""The mask of concentric positions, by hand and against a loop over pairs of tokens."""

import pytest
import torch
from torch import Tensor

from blindspot.positions.language import LanguagePositions
from blindspot.positions.language.position_ids import mask

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
