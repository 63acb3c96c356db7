"""LLaVA's sampler, packing, and the padding that they leave."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.training.llava.check import packed_share, padded_share
from blindspot.training.order import balanced_packs, llava_order

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=90)


@given(
    LENGTHS, st.lists(st.booleans(), min_size=90, max_size=90), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9)
)
@settings(max_examples=25)
def test_llava_orders_every_row_once_in_batches_of_one_kind(
    words: list[int], kinds: list[bool], batch: int, ranks: int, seed: int
) -> None:
    words_r, pictured_r = np.array(words), np.array(kinds[: len(words)])
    order = llava_order(words_r, pictured_r, batch, ranks, seed)
    assert sorted(order) == list(range(len(words)))
    size = batch * ranks
    whole = sum(np.count_nonzero(pictured_r == kind) // size for kind in (True, False))
    for number in range(whole):
        rows = order[number * size : (number + 1) * size]
        assert len(set(pictured_r[rows])) == 1
        assert _dealt_as_llava_does(words_r[rows], batch, ranks)
    assert list(order[whole * size :]) == sorted(order[whole * size :])


def _dealt_as_llava_does(words_r: np.ndarray, batch: int, ranks: int) -> bool:
    """Whether dealing the lengths once more, by looking for the smallest sum each time, gives the same hands."""
    hands: list[list[int]] = [[] for _ in range(ranks)]
    for words in sorted(words_r, reverse=True):
        open_hands = [hand for hand in hands if len(hand) < batch]
        min(open_hands, key=sum).append(int(words))
    return hands == words_r.reshape(ranks, batch).tolist()


def test_llava_order_is_a_function_of_the_seed() -> None:
    words_r, pictured_r = np.arange(200) % 17, np.arange(200) % 5 > 0
    orders = [llava_order(words_r, pictured_r, 4, 2, seed).tolist() for seed in (1, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert orders[0] != orders[2] != orders[3]


@given(LENGTHS, st.integers(1, 120), st.integers(1, 4))
@settings(max_examples=25)
def test_packs_hold_each_row_once_within_their_capacity(lengths: list[int], capacity: int, ranks: int) -> None:
    packs = balanced_packs(lengths, capacity, ranks)
    assert sorted(place for pack in packs for place in pack) == list(range(len(lengths)))
    assert len(packs) % ranks == 0
    assert max(sum(lengths[place] for place in pack) for pack in packs) <= max(capacity, *lengths)
    fewest = -(-sum(lengths) // max(capacity, *lengths))
    assert len(packs) <= ranks * -(-2 * fewest // ranks)


def test_shares_of_padding_are_those_counted_by_hand() -> None:
    tokens_r, order = np.array([4, 1, 2, 3, 5]), np.array([4, 1, 0, 2, 3])
    assert padded_share(tokens_r, order, 2) == 1 - 15 / (5 + 5 + 4 + 4 + 3)
    assert padded_share(tokens_r, order, 5) == 1 - 15 / 25
    assert padded_share(tokens_r, order, 1) == 0
    # global batches of four: 5 1 | 4 2 are even; then 3 alone, and the other rank waits for it
    assert packed_share(tokens_r, order, 2, 2, capacity=6) == 1 - 15 / (2 * 6 + 2 * 3)


def test_packing_removes_what_llavas_grouping_leaves() -> None:
    generator = np.random.default_rng(0)
    words_r = generator.lognormal(4.5, 1, 4000).astype(int).clip(5, 1300)
    pictured_r = generator.random(4000) < 0.9
    tokens_r = np.minimum((words_r * 1.3).astype(int) + 256 * pictured_r, 2048)
    shuffled = generator.permutation(4000)
    random = padded_share(tokens_r, shuffled, 16)
    llava = padded_share(tokens_r, llava_order(words_r, pictured_r, 16, 8, 0), 16)
    assert random > 0.3 and llava > 0.3
    assert packed_share(tokens_r, shuffled, 16, 8, 4096) < 0.03
