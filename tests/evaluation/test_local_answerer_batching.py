"""What the local answerer puts together, and the cache that rows of a batch begin with."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

from blindspot.evaluation.base import Asked, Prompt
from blindspot.evaluation.models.prefix import GROWTH, Prefix, spread
from blindspot.evaluation.models.rows import batches, groups

few = settings(max_examples=50)
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
    apart = batches(questions, size, share=False)
    lengths = [(len(one.pictures), len(one.prompt.content[0])) for batch in apart for one in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in apart[:-1]] == [size] * (len(apart) - 1)
    made = batches(questions, size)
    assert sorted(one.id for batch in made for one in batch) == sorted(one.id for one in questions)
    home: dict[tuple[str, ...], int] = {}
    for number, batch in enumerate(made):
        assert len(batch) <= size or len(groups(batch)) == 1
        for one in batch:
            if one.picture_keys:
                assert home.setdefault(one.picture_keys, number) == number


def cache(seed: int, rows: int, length: int) -> DynamicCache:
    made, generator = DynamicCache(), torch.Generator().manual_seed(seed)
    for layer in range(2):
        keys, values = torch.randn(2, rows, 3, length, 4, generator=generator)
        made.update(keys, values, layer)
    return made


def prefix(of: DynamicCache, row: int) -> Prefix:
    return Prefix(of, row, of.get_seq_length(), torch.zeros(1))


def test_rows_begin_with_their_prefix_and_keep_it_where_an_update_is_padding() -> None:
    one, other = cache(0, 2, 5), cache(1, 1, 3)
    shared = prefix(one, 1)
    rows, ends = [shared, shared, prefix(other, 0), prefix(one, 0)], [5, 5, 6, 7]
    made = spread(rows, ends, length=5, room=8)
    assert made.get_seq_length() == 5
    made.keep(torch.tensor([[False, False], [False, False], [True, False], [True, True]]))
    new = torch.randn(4, 3, 2, 4)
    for layer in range(2):
        keys, values = made.update(new, -new, layer)
        assert keys.shape[2] == made.get_seq_length(layer) == 7
        for number, (row, end) in enumerate(zip(rows, ends, strict=True)):
            old: Any = row.cache.layers[layer]
            for got, before, fresh in ((keys, old.keys, new), (values, old.values, -new)):
                start = end - row.length
                assert not got[number, :, :start].any()
                assert torch.equal(got[number, :, start:end], before[row.row])
                assert torch.equal(got[number, :, end:], fresh[number, :, end - 5 :])


def test_a_full_cache_grows_and_keeps_what_it_holds() -> None:
    made = spread([prefix(cache(0, 1, 3), 0)] * 2, [3, 3], length=3, room=3)
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
        spread([prefix(sliding, 0)], [3], length=3, room=4)
