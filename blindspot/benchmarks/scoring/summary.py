"""Means per benchmark of scored answers. Sets of questions (pairs, images of MME) are the business of statistics."""

from collections import defaultdict
from collections.abc import Sequence
from statistics import fmean

from blindspot.benchmarks.scoring.base import Profile, Scored
from blindspot.benchmarks.scoring.rows import Item

Numbers = dict[str, float | None]


def score_items(profile: Profile, items: Sequence[Item]) -> list[Scored | None]:
    """Scores in order; None for rows of benchmarks that the harness does not have.

    Raises:
        UserError: if it has none of them, or a row lacks the likelihood that the profile reads.
    """
    if not any(item.benchmark in profile.rules for item in items):
        return [profile.judge(item) for item in items]  # says why not
    return [profile.judge(item) if item.benchmark in profile.rules else None for item in items]


def score_where_defined(profile: Profile, items: Sequence[Item]) -> list[Scored | None]:
    """Scores in order; None for all rows of a benchmark of which the profile cannot score every row."""
    undefined = {item.benchmark for item in items if profile.why_not(item)}
    return [None if item.benchmark in undefined else profile.judge(item) for item in items]


def summarise(items: Sequence[Item], scored: Sequence[Scored | None]) -> dict[str, Numbers]:
    """Numbers per benchmark, in order of appearance.

    Returns:
        ``n``; ``score``, the mean over rows (a circular group is one row); ``parse_failures``, a count; the last two
        None where the profile has no score. Where they apply ``partial``, the mean partial match, and ``guess``, what
        the harness's random draws would add to ``score`` on average.
    """
    by_benchmark: dict[str, list[Scored | None]] = defaultdict(list)
    for item, each in zip(items, scored, strict=True):
        by_benchmark[item.benchmark].append(each)
    return {benchmark: _numbers(group) for benchmark, group in by_benchmark.items()}


def _numbers(group: list[Scored | None]) -> Numbers:
    defined = [each for each in group if each is not None]
    if not defined:
        return {"n": len(group), "score": None, "parse_failures": None}
    numbers: Numbers = {
        "n": len(group),
        "score": fmean(each.score for each in defined),
        "parse_failures": sum(not each.parsed for each in defined),
    }
    partial = [each.partial for each in defined if each.partial is not None]
    if partial:
        numbers["partial"] = fmean(partial)
    guess = fmean(each.guess for each in defined)
    if guess:
        numbers["guess"] = guess
    return numbers
