"""How often studies without any effect find one, and how often intervals hold the truth.

    python perf/calibration.py [STUDIES]          4,000 by default: 10 minutes on an idle core

Prints a table of simulated studies of eight arms in four pairs, or of eight claims: the share with a false asterisk
(``family``), the worst single test (``one``), and the share of 95 % intervals that hold the truth (``holds``).
"""

import sys
from collections.abc import Callable, Iterator

import numpy as np

from blindspot.evaluation.statistics import (
    ALPHA,
    Difference,
    Noise,
    Sample,
    contrast,
    detectable,
    difference,
    run_noise,
)
from blindspot.evaluation.times import time_contrast
from blindspot.reporting.claims import counted, failure_p, unlearned
from blindspot.reporting.run import RunKey

PAIRS, CLUSTERS, SEEDS = 4, 200, (2, 3, 5, 8, 12)
RATIO = 6.0
NOISY = {"equal noise": (), "1 of 8 noisy": (0,), "2 of 8 noisy": (0, 2), "4 of 8 noisy": (0, 2, 4, 6)}
Found = tuple[float, float, float]


def _shares(p_st: np.ndarray, held_st: np.ndarray) -> Found:
    """Studies with an asterisk after Holm, the worst test's rejections at 5 %, and intervals that hold the truth."""
    return float((p_st.min(axis=1) < ALPHA / p_st.shape[1]).mean()), float((p_st < ALPHA).mean(axis=0).max()), float(
        held_st.mean())  # fmt: skip


def _question_error(rng: np.random.Generator, error: float) -> float:
    return error * float(np.sqrt(rng.chisquare(CLUSTERS - 1) / (CLUSTERS - 1)))


def _told(tests: list[Difference], truth: float = 0.0) -> tuple[list[float], list[bool]]:
    return [test.p if test.p is not None else 1.0 for test in tests], [
        test.low is not None and test.high is not None and test.low <= truth <= test.high for test in tests
    ]


def of_pairs(studies: int, seeds: int, noisy: tuple[int, ...], seed: int = 0) -> Found:
    """Four pairs of arms without a difference; some arms have ``RATIO`` times the noise of others."""
    rng, deviation_a = np.random.default_rng([seed, seeds, len(noisy)]), np.full(2 * PAIRS, 0.01)
    deviation_a[list(noisy)] *= RATIO
    told = []
    for _ in range(studies):
        runs_as = 0.8 + rng.normal(size=(2 * PAIRS, seeds)) * deviation_a[:, None]
        tests = []
        for a in range(0, 2 * PAIRS, 2):
            noises = run_noise([runs_as[a]]), run_noise([runs_as[a + 1]])
            value = float(runs_as[a].mean() - runs_as[a + 1].mean() + rng.normal(0, 0.003))
            tests.append(difference(value, _question_error(rng, 0.003), CLUSTERS, None, noises, (seeds, seeds)))
        told.append(_told(tests))
    return _shares(np.array([p for p, _ in told]), np.array([held for _, held in told]))


def of_failures(studies: int, seeds: int, share: float = 0.3, seed: int = 0) -> Found:
    """Four pairs of arms whose runs stay at chance alike, and are equal where they learn."""
    rng, told = np.random.default_rng([seed, seeds, 100]), []
    for _ in range(studies):
        learns_as = rng.random((2 * PAIRS, seeds)) >= share
        runs_as = np.where(learns_as, 0.9, 0.25) + rng.normal(0, 0.02, learns_as.shape)
        keys = [[RunKey(str(arm), "", one) for one in range(seeds)] for arm in range(2 * PAIRS)]
        score = {key: float(runs_as[int(key.arm), key.seed]) for own in keys for key in own}
        failed = unlearned({key: {"chance": 0.25, "score": one, "clusters": CLUSTERS} for key, one in score.items()})
        p, held = [], []
        for a in range(0, 2 * PAIRS, 2):
            kept = [[score[key] for key in counted(own, failed)] for own in keys[a : a + 2]]
            noises: tuple[Noise, Noise] = (run_noise([kept[0]]), run_noise([kept[1]]))
            value = float(np.mean(kept[0]) - np.mean(kept[1]) + rng.normal(0, 0.006))
            runs = len(kept[0]), len(kept[1])
            test = difference(value, _question_error(rng, 0.006), CLUSTERS, None, noises, runs)
            p_failed, by_failing = failure_p((keys[a], keys[a + 1]), failed)
            p.append(max(test.p or 0.0, p_failed if by_failing else 0.0))
            held += [] if by_failing else _told([test])[1]
        told.append((p, float(np.mean(held)) if held else 1.0))
    return _shares(np.array([p for p, _ in told]), np.array([held for _, held in told]))


def of_claims(studies: int, seeds: int, between: float, effect: float = 0.0, seed: int = 0) -> Found:
    """Eight claims; noise between seeds is ``between`` times the error from questions.

    With an ``effect``, in units of what is `detectable`, the worst test's share is its power at Holm's first step.
    """
    rng, claims = np.random.default_rng([seed, seeds, int(10 * between)]), 8
    parts = (between**2 / seeds * 1e-4, seeds - 1.0), (1e-4, CLUSTERS - 1.0)
    truth = effect * (detectable(parts, claims) or 0.0) if effect else 0.0
    told = []
    for _ in range(studies):
        value_cs = truth + 0.01 * between * rng.normal(size=(claims, seeds)) + 0.01 * rng.normal(size=(claims, 1))
        tests = [contrast(one_s.tolist(), _question_error(rng, 0.01), CLUSTERS, 1000.0) for one_s in value_cs]
        told.append(_told(tests, truth))
    p_st, held_st = np.array([p for p, _ in told]), np.array([held for _, held in told])
    if effect:
        power = float((p_st < ALPHA / claims).mean())
        return power, power, float(held_st.mean())
    return _shares(p_st, held_st)


def of_times(studies: int, seeds: int, fails: float, ratio: float = 1.0, seed: int = 0) -> Found:
    """A pair's steps to learn, log-normal and alike, seen at every 40th of 1,280 steps; some runs never learn."""
    rng, told = np.random.default_rng([seed, seeds, int(100 * fails), int(ratio)]), []
    for _ in range(studies):
        shared, sides = rng.normal(0, 0.5, seeds), []
        for one in shared:
            own = {}
            for arm, deviation in (("a", 0.6 * ratio**0.5), ("b", 0.6 / ratio**0.5)):
                time = np.inf if rng.random() < fails else np.exp(np.log(200) + one + rng.normal(0, deviation))
                probe = np.ceil(time / 40) * 40
                own[arm] = (probe - 40, probe) if probe <= 1280 else (1280.0, np.inf)
            sides.append(own)
        found = time_contrast({"a": 1.0, "b": -1.0}, sides)
        if found.p is not None and found.low is not None and found.high is not None:
            told.append((found.p, found.low <= 0 <= found.high))
    return _shares(np.array([[p] for p, _ in told]), np.array([held for _, held in told]))


def of_clusters(studies: int, clusters: int, share: float = 0.85, alike: float = 0.4, seed: int = 0) -> Found:
    """A score of clusters of four questions, whose answers correlate, and its difference to an equal one."""
    rng, told = np.random.default_rng([seed, clusters]), []
    shape = share * (1 / alike - 1), (1 - share) * (1 / alike - 1)
    for _ in range(studies):
        right_mci = rng.random((2, clusters, 4)) < rng.beta(*shape, size=(clusters, 1))
        samples = [Sample.of(one.ravel().astype(float), np.arange(4 * clusters) // 4) for one in right_mci]
        interval = samples[0].estimate().interval
        change = Sample.combined(samples, [1.0, -1.0])
        test = difference(change.value, change.difference_error(), clusters, None)
        assert interval.low is not None and interval.high is not None and test.low is not None and test.high is not None
        told.append((interval.low <= share <= interval.high, test.low <= 0 <= test.high))
    return 1 - float(np.mean([held for _, held in told])), 0.0, float(np.mean([held for held, _ in told]))


def table(studies: int) -> Iterator[tuple[str, Callable[[], Found]]]:
    """Every row of the table, and what computes it."""
    for seeds in SEEDS:
        for name, noisy in NOISY.items():
            yield f"differences, {name}, {seeds} seeds", lambda s=seeds, n=noisy: of_pairs(studies, s, n)
        yield f"differences, 30 % of runs fail, {seeds} seeds", lambda s=seeds: of_failures(studies, s)
    for seeds in SEEDS:
        for between in (1.0, 3.0, 20.0):
            yield f"claims, noise {between:g}, {seeds} seeds", lambda s=seeds, b=between: of_claims(studies, s, b)
        yield f"claims, what is detectable, {seeds} seeds", lambda s=seeds: of_claims(studies // 4, s, 3.0, 1.0)
    for seeds in SEEDS[1:]:
        for name, fails, ratio in (("equal", 0.0, 1.0), ("ratio 6", 0.0, 6.0), ("10 % fail", 0.1, 1.0)):
            yield f"times, {name}, {seeds} seeds", lambda s=seeds, f=fails, r=ratio: of_times(studies // 4, s, f, r)
    for clusters in (30, 64, 200):
        yield f"{clusters} clusters of questions", lambda c=clusters: of_clusters(studies, c)


if __name__ == "__main__":
    STUDIES = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    print(f"{'':44} family    one  holds")
    for NAME, COMPUTE in table(STUDIES):
        print(f"{NAME:44} " + "  ".join(f"{one:5.3f}" for one in COMPUTE()), flush=True)
