"""Cluster bootstrap and sign flips whose cost does not grow with the number of questions.

Clusters with the same numbers are interchangeable: what a resample needs to know of them is how often their kind was
drawn, which is multinomial. So the draws are made over kinds of clusters, and their order in the file cannot matter.

Suffixes: ``c`` clusters, ``k`` kinds of clusters, ``j`` columns, ``r`` replicates.
"""

from collections.abc import Iterator

import numpy as np

from blindspot.evaluation.statistics import PERMUTATIONS, RESAMPLES

_ENTRIES = 4_000_000
"""Most numbers in one block of draws."""


def kinds(table_cj: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of a table in ascending order, shape ``(kinds, columns)``, and how often each occurs."""
    code_c = np.zeros(len(table_cj), dtype=np.int64)
    for column_c in table_cj.T:
        values, own_c = np.unique(column_c, return_inverse=True)
        if len(values) > 1:
            code_c = np.unique(code_c * len(values) + own_c, return_inverse=True)[1]
    _, first_k, count_k = np.unique(code_c, return_index=True, return_counts=True)
    return table_cj[first_k], count_k


def resampled_sums(table_cj: np.ndarray) -> np.ndarray:
    """Column sums of ``RESAMPLES`` tables, each of as many rows drawn with replacement, shape ``(RESAMPLES, j)``."""
    rows_kj, count_k = kinds(table_cj)
    rng = np.random.default_rng([0, 0])
    share_k = count_k / count_k.sum()
    blocks = [rng.multinomial(len(table_cj), share_k, size=size) @ rows_kj for size in _blocks(RESAMPLES, len(count_k))]
    return np.concatenate(blocks)


def sign_flip_p(difference_c: np.ndarray) -> float | None:
    """Two-sided p value of the sum of differences when the two runs are swapped at random in whole clusters.

    Monte Carlo with ``PERMUTATIONS`` draws, the observed one counted (Phipson and Smyth 2010). None for fewer than two
    clusters.
    """
    if len(difference_c) < 2:
        return None
    digits_c = np.round(np.abs(difference_c), 15)
    size_k, count_k = np.unique(digits_c[digits_c > 0], return_counts=True)
    if len(size_k) == 0:
        return 1.0
    observed = abs(float(difference_c.sum())) - 1e-9 * float(size_k @ count_k)
    rng = np.random.default_rng([0, 1])
    extreme = 0
    for size in _blocks(PERMUTATIONS, len(count_k)):
        kept_rk = rng.binomial(count_k, 0.5, size=(size, len(count_k)))
        extreme += int((np.abs((2 * kept_rk - count_k) @ size_k) >= observed).sum())
    return (extreme + 1) / (PERMUTATIONS + 1)


def _blocks(total: int, width: int) -> Iterator[int]:
    """Sizes of blocks that together have ``total`` rows of ``width`` numbers."""
    size = max(1, min(total, _ENTRIES // max(width, 1)))
    yield from (min(size, total - start) for start in range(0, total, size))
