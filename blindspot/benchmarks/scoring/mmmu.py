"""MMMU's own parsing of free text, which lmms-eval took over with changes.

Its authors split open answers into sentences at capital letters, but after lower-casing: only lines are split. Where
no option is found their parser draws one at random (seeded once for a whole file, so that it depends on the order of
the rows). Nothing is drawn here: such a row scores 0 and `Scored.guess` says what drawing would add on average.

Parsing takes time in proportion to the length of the answer: the patterns of numbers are possessive and start at the
first digit of a run, which finds the same numbers as the authors' and does not go over a run once per digit.
"""

import ast
import re
from collections.abc import Mapping, Sequence

from blindspot.benchmarks.scoring.base import Scored
from blindspot.benchmarks.scoring.rows import Item

BRACKETS = "({})"
WORD = " {} "

_TRIMMED = tuple(",.!?;:'")
_FEWEST_WORDS = 6
_CUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d++(?:\.\d++)?[eE][+-]?\d++"),
    re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])"),
)


def choose(raw: str, choices: Mapping[str, str], marks: Sequence[str]) -> str | None:
    """The option that an answer names last: by letter, as the first of ``marks`` that occurs; else, in more than five
    words, by its text. None if there is none.

    Args:
        raw: the answer.
        choices: option texts by letter.
        marks: what a letter may stand in, e.g. `BRACKETS`, in order of trust.
    """
    text = raw
    for mark in _TRIMMED:
        text = text.strip(mark)
    text = f" {text} "
    for mark in marks:
        found = [letter for letter in choices if mark.format(letter) in text]
        if found:
            # Letters found by "A " or "A." are put in order by " A ", absent or not: as the harness does it.
            places = [text.rfind((BRACKETS if mark == BRACKETS else WORD).format(letter)) for letter in found]
            return found[places.index(max(places))]
    if len(text.split()) < _FEWEST_WORDS:
        return None
    lowered = text.lower()
    found = [letter for letter, option in choices.items() if option.lower() in lowered]
    return max(found, key=lambda letter: lowered.rfind(choices[letter].lower()), default=None)


def open_answer(item: Item, golds: Sequence[str]) -> Scored:
    """An open question: right if any key phrase contains a gold text, or any number in it equals a gold number."""
    phrases = _key_phrases(item.raw)
    numbers = [number for phrase in phrases for pattern in _NUMBERS for number in pattern.findall(phrase)]
    given = {form for text in (*phrases, *numbers) for form in _forms(text)}
    wanted = {form for gold in golds for form in _forms(gold)}
    return Scored(phrases[-1], float(any(_match(form, wanted) for form in given)), bool(item.raw.strip()))


def golds(item: Item) -> tuple[str, ...]:
    """The accepted answers of an open question, also of one that holds them as the text of a Python list."""
    if item.golds:
        return item.golds
    if item.gold.startswith("["):
        try:
            return tuple(map(str, ast.literal_eval(item.gold)))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            pass
    return (item.gold,)


def _match(form: str | float, wanted: set[str | float]) -> bool:
    if isinstance(form, str):
        return any(isinstance(text, str) and text in form for text in wanted)
    return form in wanted


def _key_phrases(raw: str) -> list[str]:
    """Of each line the shortest end behind a cue word, in the last line also behind "="; else the whole answer."""
    text = raw.strip().strip(".").lower()
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        cues = (*_CUES, "=") if number == len(lines) else _CUES
        shortest = ""
        for cue in cues:
            if cue in line:
                end = line.rpartition(cue)[2].strip()
                if not shortest or len(end) < len(shortest):
                    shortest = end
        if shortest and shortest not in _TRIMMED:
            found.append(shortest)
    return found or [text]


def _forms(text: str) -> list[str | float]:
    """What is compared: a number rounded to two decimals, a text in lower case, a single character with a blank."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]
