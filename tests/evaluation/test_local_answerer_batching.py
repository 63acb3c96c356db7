"""What the local answerer puts together, and the cache that rows of a batch begin with."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from blindspot.evaluation.base import Asked, Prompt
from blindspot.evaluation.models.prefix import GROWTH, Placed, spread
from blindspot.evaluation.models.rows import batches, groups, pieces

few = settings(max_examples=50, deadline=None)
askings = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30)), max_size=40)


def asked(pairs: list[tuple[int, int]]) -> list[Asked]:
    """Questions about a picture each, or, of picture 0, about none; with a number of characters."""
    return [
        Asked(str(number), Prompt(("x" * length,)), (b"",) * bool(picture), (f"p{picture}",) * bool(picture))
        for number, (picture, length) in enumerate(pairs)
    ]


@few
@given(askings, st.integers(1, 9))
def test_batches_hold_every_question_once_and_no_picture_twice(pairs: list[tuple[int, int]], size: int) -> None:
    questions = asked(pairs)
    made = batches(questions, size)
    assert sorted(one.id for batch in made for one in batch) == sorted(one.id for one in questions)
    home: dict[tuple[str, ...], int] = {}
    for number, batch in enumerate(made):
        assert len(batch) <= size or len(groups(batch)) == 1
        for one in batch:
            if one.picture_keys:
                assert home.setdefault(one.picture_keys, number) == number


@few
@given(askings, st.integers(1, 9))
def test_without_sharing_batches_are_full_and_sorted_by_length(pairs: list[tuple[int, int]], size: int) -> None:
    made = batches(asked(pairs), size, share=False)
    assert [len(batch) for batch in made[:-1]] == [size] * (len(made) - 1)
    lengths = [(len(one.pictures), len(one.prompt.content[0])) for batch in made for one in batch]
    assert lengths == sorted(lengths, reverse=True)


@few
@given(st.integers(0, 100), st.integers(1, 20))
def test_pieces_are_even(count: int, most: int) -> None:
    cut = pieces(count, most)
    assert [number for piece in cut for number in range(count)[piece]] == list(range(count))
    sizes = [piece.stop - piece.start for piece in cut]
    assert len(sizes) == -(-count // most)
    assert not sizes or (max(sizes) <= most and max(sizes) - min(sizes) <= 1)


def cache(seed: int, rows: int, length: int) -> DynamicCache:
    made, generator = DynamicCache(), torch.Generator().manual_seed(seed)
    for layer in range(2):
        keys, values = torch.randn(2, rows, 3, length, 4, generator=generator)
        made.update(keys, values, layer)
    return made


def test_rows_begin_with_their_prefix_and_keep_it_where_an_update_is_padding() -> None:
    prefixes = [cache(0, 2, 5), cache(1, 1, 3)]
    rows = [Placed(0, 1, 5), Placed(0, 1, 5), Placed(1, 0, 6), Placed(0, 0, 7)]
    made = spread(prefixes, rows, length=5, room=8)
    assert made.get_seq_length() == 5
    kept_bn = torch.tensor([[False, False], [False, False], [True, False], [True, True]])
    made.keep(kept_bn)
    new = torch.randn(4, 3, 2, 4)
    for layer in range(2):
        keys, values = made.update(new, -new, layer)
        assert keys.shape[2] == made.get_seq_length(layer) == 7
        for number, (source, row, end) in enumerate(rows):
            old: Any = prefixes[source].layers[layer]
            for got, prefix, fresh in ((keys, old.keys, new), (values, old.values, -new)):
                start = end - prefix.shape[2]
                assert not got[number, :, :start].any()
                assert torch.equal(got[number, :, start:end], prefix[row])
                assert torch.equal(got[number, :, end:], fresh[number, :, end - 5 :])


def test_a_full_cache_grows_and_keeps_what_it_holds() -> None:
    made = spread([cache(0, 1, 3)], [Placed(0, 0, 3)] * 2, length=3, room=3)
    layer: Any = made.layers[0]
    held = [layer.keys[:, :, :3].clone()]
    for _ in range(GROWTH + 2):
        step = torch.randn(2, 3, 1, 4)
        held.append(step)
        keys, _ = made.update(step, step, 0)
    assert torch.equal(keys, torch.cat(held, dim=2))
    made.batch_select_indices(torch.tensor([1]))
    keys, _ = made.update(step[:1], step[:1], 0)
    assert torch.equal(keys, torch.cat([*held, step[:1].expand(2, -1, -1, -1)], dim=2)[1:])


def test_caches_of_other_kinds_are_refused() -> None:
    sliding = DynamicCache()
    sliding.layers.append(DynamicSlidingWindowLayer(sliding_window=4))
    sliding.update(torch.randn(1, 1, 3, 2), torch.randn(1, 1, 3, 2), 0)
    with pytest.raises(TypeError, match="DynamicSlidingWindowLayer"):
        spread([sliding], [Placed(0, 0, 3)], length=3, room=4)
