"""Which questions go through a model together: those about one picture, beside others of like length."""

from collections.abc import Sequence
from itertools import pairwise

from blindspot.evaluation.base import Asked


def groups(asked: Sequence[Asked], share: bool = True) -> list[list[Asked]]:
    """The questions, those about the same pictures together, in the order in which pictures first appear.

    Args:
        asked: the questions.
        share: False: every question by itself.
    """
    found: dict[tuple[str, ...] | str, list[Asked]] = {}
    for one in asked:
        key = one.picture_keys if share and one.pictures and one.picture_keys else one.id
        found.setdefault(key, []).append(one)
    return list(found.values())


def batches(asked: Sequence[Asked], size: int, share: bool = True) -> list[list[Asked]]:
    """The questions in batches of whole groups, the longest first, so that what does not fit in memory shows early.

    A batch has at most ``size`` questions, or is one group that has more.

    Args:
        asked: the questions.
        size: of a batch.
        share: see `groups`.
    """
    made: list[list[Asked]] = []
    for group in sorted(groups(asked, share), key=_length, reverse=True):
        if made and len(made[-1]) + len(group) <= size:
            made[-1] += group
        else:
            made.append([*group])
    return made


def pieces(count: int, most: int) -> list[slice]:
    """``count`` things in as few pieces of at most ``most`` as it takes, of sizes that differ by one at most."""
    number = -(-count // most)
    edges = [count * piece // number for piece in range(number + 1)] if number else [0]
    return [slice(start, end) for start, end in pairwise(edges)]


def _length(group: Sequence[Asked]) -> tuple[int, int]:
    """Pictures, then characters of the longest prompt."""
    return len(group[0].pictures), max(_characters(one) for one in group)


def _characters(asked: Asked) -> int:
    prompt = asked.prompt
    return len(prompt.text) if prompt.text is not None else sum(map(len, prompt.content)) + len(prompt.system or "")
