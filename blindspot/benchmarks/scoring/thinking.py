"""Thoughts in answers, `<think>...</think>`: found, and taken off before anything is read of an answer."""

from typing import Literal

Thoughts = Literal["keep", "closed", "strip"]
"""What is done with them: nothing; those that end are taken off, as lmms-eval does by default; or all of them."""

HARNESS, STRIP, KEEP = "harness", "strip", "keep"
THINKING = (HARNESS, STRIP, KEEP)
"""What a user may ask for: as the profile's harness does it, without thoughts, with them."""

_TAGS = (("<think>", "</think>"), ("<analysis>", "</analysis>"))


def has_thought(answer: str) -> bool:
    """Whether a tag of a thought is in the answer; a template may have opened it, so that only its end is there."""
    return any(tag in answer for pair in _TAGS for tag in pair)


def is_cut_off(answer: str) -> bool:
    """Whether the answer opens a thought and never closes it."""
    return any(opening in without_thoughts(answer, "closed") for opening, _ in _TAGS)


def without_thoughts(answer: str, which: Thoughts = "strip") -> str:
    """What an answer says besides its thoughts, without blanks around it; an answer without thoughts as it stands.

    Of an end without a beginning, what follows the last one. Tags are compared as they stand, case included.
    """
    if which == "keep" or not has_thought(answer):
        return answer
    for opening, closing in _TAGS:
        parts, place = [], 0
        while (start := answer.find(opening, place)) >= 0 and (end := answer.find(closing, start)) >= 0:
            parts.append(answer[place:start])
            place = end + len(closing)
        answer = "".join((*parts, answer[place:]))
        if which == "strip":
            answer = answer.partition(opening)[0]
        if opening not in answer:
            answer = answer.rpartition(closing)[2]
    return answer.strip()
