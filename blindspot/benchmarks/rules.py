"""Items and their scores, and the scoring rules that benchmarks share; what is a benchmark's own stands in its file.

VLMEvalKit's are those without a judge, as the paper's numbers were made (2025-09), and a year later (2026-08). They
are kept as they are, quirks included: lower-case letters do not count, a word such as "unopened" matches the option
"open", "25" is no count. What happens to a score file on the way through a spreadsheet ("None" becomes a blank) is not.
Where the specification leaves a rule open:

- Only the first 32 full stops of an answer are dropped before yes and no are looked for, as the harness passes a flag
  where its library takes a number of replacements.
- NLVR is no data set of VLMEvalKit; its yes and no are scored as all others there. So are rows of benchmarks that are
  not known here: by their kind, counts as TallyQA's and texts as GQA's.
"""

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import isfinite
from typing import Any

VLMEVALKIT = {"vlmevalkit-2025-09": False, "vlmevalkit-2026-08": True}
"""Its profiles; the later one accepts "the answer is B" anywhere."""

LMMS_EVAL, OFFICIAL, LIKELIHOOD = "lmms-eval-0.7.3", "official", "likelihood"
"""Names of the other profiles."""


@dataclass(frozen=True, slots=True)
class Item:
    """A row of an answers file that is well formed."""

    benchmark: str  # our name of it; another benchmark's as it stands in the row
    kind: str  # ``mcq``, ``yes_no``, ``count``, ``number``, ``text``, ``boxes``, ``points`` or ``circular``
    gold: str  # a letter, ``Yes`` or ``No``, decimal digits, or a text; of ``points`` the region; of ``circular`` empty
    raw: str  # the answer; of ``circular`` empty
    choices: Mapping[str, str] = field(default_factory=dict)
    """Option texts by letter; empty texts where a circular group came without them."""
    golds: tuple[str, ...] = ()
    """Accepted texts, where there are several (MMMU); of ``points`` the polygon, if there is one."""
    likelihood: Mapping[str, float] | None = None  # log-probability by label, if the row has it
    passes: tuple["Item", ...] = ()  # of ``circular``, the rotated questions
    seen: tuple[str, str] = ("", "")
    """Of ``boxes``, the convention of the answer and what the model saw of the picture; of ``points``, which parser is
    the official one for the model, and how it was asked."""
    where: str = "row"  # of the row, for messages


@dataclass(frozen=True, slots=True)
class Scored:
    """The score of one raw answer."""

    extracted: str | float | None
    """What the harness took for the answer: a letter, ``Yes``, a number, a text; where it found none, its own word for
    that (``Z``, ``Unknown``, ``other``, empty) or None."""
    score: float  # 0 to 1
    parsed: bool  # whether an answer of the form that the question asks for was found. False implies ``score == 0``
    partial: float | None = None  # partial match, where the benchmark has it (TopViewRS)
    guess: float = 0.0
    """What the harness would add on average by drawing a random option, having found none. Not in ``score``."""

    def numbers(self) -> dict[str, Any]:
        """What a study keeps of it beside the answer."""
        partial = {} if self.partial is None else {"partial": round(self.partial, 6)}
        return {"score": round(self.score, 6), "parsed": self.parsed, **partial}


Rule = Callable[[Item], Scored]

_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
UP_TO_TWENTY = {word: number for number, word in enumerate(_WORDS.split())}


def behind_cue(raw: str) -> str:
    """What stands behind the last "answer is" or "answer:", in lower case, as Cambrian-1's scripts cut it."""
    text = raw.lower().strip()
    for cue in ("answer is", "answer:"):
        text = text.rpartition(cue)[2]
    return text.strip()


def true_or_false(item: Item) -> Scored:
    """The first word must be true or yes, false or no."""
    words = item.raw.split(maxsplit=1)
    first = words[0].strip(".,;:!\"'").lower() if words else ""
    said = {"true": "Yes", "yes": "Yes", "false": "No", "no": "No"}.get(first)
    return Scored(said, float(said == item.gold), said is not None)


def count(item: Item) -> Scored:
    """The whole answer as digits: a number word up to twenty becomes digits, and "none" is 0."""
    word = item.raw.strip().lower()
    number = 0 if word == "none" else UP_TO_TWENTY.get(word)
    answer = word if number is None else str(number)
    return Scored(answer, float(answer == item.gold), answer.isdecimal())


def chose(item: Item, letter: str | None) -> Scored:
    """The score of a letter that was read, or of none."""
    return Scored(letter, float(letter == item.gold), letter in item.choices)


def leading_letter(item: Item) -> Scored:
    """lmms-eval's rule of CV-Bench: a letter at the beginning, of a word too."""
    match = re.match(r"[(\s]*([A-Z])", item.raw.strip(), re.IGNORECASE)
    return chose(item, match[1].upper() if match else "")


def likeliest(item: Item) -> Scored:
    """The option that the model finds likeliest: no generation, no parsing, so no answer is lost to its form.

    Labels are compared without regard to case; of equally likely ones the first in the row counts.
    """
    likelihood = item.likelihood or {}
    label = max(likelihood, key=likelihood.__getitem__)
    return Scored(label, float(label.strip().lower() == item.gold.strip().lower()), True)


API_FAILED = "Failed to obtain answer via API"
NOT_FOUND = "Z"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_BLANKED = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_NEAR_THE_END = 4
_SAID = re.compile(r"answer\s+is\s+\**([a-d])", re.IGNORECASE)
_COUNT = re.compile(rf"\b(?:1?[0-9]|20|{'|'.join(UP_TO_TWENTY)})\b")
_DIGIT_GROUPS = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32


def option(raw: str, choices: Mapping[str, str], said: bool = False) -> str | None:
    """The option letter that VLMEvalKit infers, ``Z`` for a refusal, None where it would ask a judge.

    A letter that stands alone, near the end; else the only option whose text occurs in an answer that is not long.

    Args:
        raw: the answer.
        choices: option texts by letter.
        said: accept "the answer is B" anywhere.
    """
    if API_FAILED not in raw:
        if any(refusal in raw for refusal in _REFUSALS):
            return NOT_FOUND
        words = raw.translate(_BLANKED).split()
        letters = choices.keys() & set(words)
        if len(letters) == 1:
            (letter,) = letters
            if words.index(letter) >= len(words) - _NEAR_THE_END:
                return letter
        elif not letters and NOT_FOUND in words:
            return NOT_FOUND
        match = _SAID.search(raw) if said else None
        if match and match[1].upper() in choices:
            return match[1].upper()
    lowered, longest = raw.lower(), 2 * sum(map(len, choices.values()))
    return by_text(lowered, choices) if len(lowered) <= longest else None


def by_text(lowered: str, choices: Mapping[str, str]) -> str | None:
    """The only option whose text occurs in an answer in lower case."""
    found = [letter for letter, text in choices.items() if text and text.lower() in lowered]
    return found[0] if len(found) == 1 else None


def both(rule: Callable[..., Scored]) -> dict[str, Rule]:
    """VLMEvalKit's rule by version, told whether "the answer is B" counts."""
    return {version: partial(rule, said=said) for version, said in VLMEVALKIT.items()}


def mcq(item: Item, said: bool) -> Scored:
    """VLMEvalKit's multiple choice."""
    return chose(item, option(item.raw, item.choices, said) or NOT_FOUND)


def _yes_no(item: Item) -> Scored:
    """By the VQA challenge's punctuation rule: a mark that touches a blank anywhere vanishes, any other separates."""
    lowered = item.raw.lower()
    text = lowered
    grouped = _DIGIT_GROUPS.search(lowered) is not None
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        if mark in lowered:
            vanishes = grouped or f"{mark} " in lowered or f" {mark}" in lowered
            text = text.replace(mark, "" if vanishes else " ")
    words = set(_STOP.sub("", text, count=_MOST_STOPS).split())
    found = [word for word in ("yes", "no") if word in words]
    said = found[0].capitalize() if len(found) == 1 else "Unknown"
    return Scored(said, float(said == item.gold), len(found) == 1)


def _leftmost_count(item: Item) -> Scored:
    match = _COUNT.search(item.raw.lower())
    if match is None:
        return Scored(None, 0.0, False)
    number = UP_TO_TWENTY[match[0]] if match[0] in UP_TO_TWENTY else int(match[0])
    return Scored(number, float(number == int(item.gold)), True)


def _exact(item: Item) -> Scored:
    answer = item.raw.strip().lower()
    return Scored(answer, float(answer == item.gold.strip().lower()), bool(answer))


_EASI = "ABCDEF"
# ruff: noqa: RUF001 (answers hold full-width punctuation)
_MARKS = r"*_`>（）\[\]【】()"
ZERO_WIDTH = re.compile("[\u200b\u200c\u200d\ufeff]")
_ANY = rf"[(\[{{（【]?\s*([{_EASI}])\s*[)\]}}）】]?"
_OPENING, _BEHIND_TAG = (re.compile(text, re.IGNORECASE) for text in (r"<\s*answer\b", r">\s*([a-j])"))
_CLOSING = re.compile(r"<\s*/\s*answer\s*>", re.IGNORECASE)
_BEFORE_TAG = [re.compile(rf"(?<![A-Za-z]){_ANY}\s*</\s*{tag}\s*>", re.IGNORECASE) for tag in ("answer", "think")]
_OPTION_LINE = re.compile(r"^[*_>\-\s]*(?:option|选项)\s+[A-J]\s*[:：]", re.IGNORECASE)
_ALONE = re.compile(rf"[{_MARKS}]*\s*([A-F])\s*[{_MARKS.replace('>', '')}]*", re.IGNORECASE)
_LABEL = re.compile(r"([A-F])\s*[.．:：)\]】、-]\s+", re.IGNORECASE)
_TOKEN = re.compile(r"(?<![A-Za-z])([A-F])\s*[*_`）\]})]*(?=$|[\s.,:;!?)\]】》」』，。；、：）])")
_CONCLUDED = re.compile(
    "(?:final\\s*answer|the\\s*answer\\s*is|answer(?:\\s*is)?|correct\\s*answer|答案|最终答案|结论|所以|因此|我选择?|选择|选)"
    rf"\s*+[:：>＝=]?+\s*+[(\[{{（【]?+\s*+([{_EASI}])\s*[)\]}}）】]?(?:\b|[.)、。])",
    re.IGNORECASE,
)
_LONE = re.compile(rf"(?<![A-Za-z])([{_EASI}])(?![A-Za-z])")
_TAIL_LINES, _TAIL = 6, 800


def _last_letter(text: str) -> str | None:
    """The letter of the lowest of the last lines that says one: all of it, its label, or the only one in it."""
    lines = [line.strip() for line in text.splitlines()[-_TAIL_LINES:]]
    for line in filter(None, reversed(lines)):
        if _OPTION_LINE.search(line):
            continue
        if match := _ALONE.fullmatch(line) or _LABEL.match(line):
            return match[1].upper()
        if len(letters := set(_TOKEN.findall(line))) == 1:
            return letters.pop()
    return None


def in_tag(text: str, pattern: re.Pattern[str]) -> re.Match[str] | None:
    """What first matches where a tag ``<answer ...>`` ends, its last sign included; each character is seen once."""
    begin = 0
    for end in re.finditer(">", text):
        if _OPENING.search(text, begin, end.start()) and (match := pattern.match(text, end.start())):
            return match
        begin = end.end()
    return None


def behind_thought(text: str) -> str:
    """What follows the end of the last thought; without one what follows its beginning, or all."""
    for tag in (r"</\s*think\s*>", r"<\s*think\s*>"):
        if ends := [match.end() for match in re.finditer(tag, text, re.IGNORECASE)]:
            return text[ends[-1] :].strip()
    return text


def easi_letter(raw: str) -> str | None:
    """The letter, A to F whatever the question has, that EASI's rule in VLMEvalKit finds.

    In a tag ``<answer>``; right before the end of an answer or a thought; in the last lines, of what follows a thought
    first; behind words of conclusion; the only capital letter that stands alone.
    """
    text = ZERO_WIDTH.sub("", raw.strip())
    closed = text[: max((match.start() for match in _CLOSING.finditer(text)), default=0)]
    if match := in_tag(closed, _BEHIND_TAG):
        return match[1].upper()
    for pattern in _BEFORE_TAG:
        if match := pattern.search(text[-_TAIL:]):
            return match[1].upper()
    if letter := _last_letter(behind_thought(text)) or _last_letter(text[-_TAIL:]):
        return letter
    if match := _CONCLUDED.search(text):
        return match[1].upper()
    kept = "\n".join(line for line in text.splitlines() if not _OPTION_LINE.search(line))
    letters = set(_LONE.findall(kept))
    return letters.pop() if len(letters) == 1 else None


def _easi(item: Item) -> Scored:
    """A gold letter behind F is not read either, and the harness finds every unreadable answer equal to it."""
    letter = easi_letter(item.raw)
    gold = item.gold if item.gold in _EASI else None
    return Scored(letter, float(letter == gold), letter in item.choices or letter == gold)


_NUMBER = r"[-+]?(?:\d*\.\d+|\d+)(?:[eE][-+]?\d+)?"
_TAGGED_NUMBER = re.compile(rf">\s*({_NUMBER})(?:[^\d<][^<]*)?<\s*/\s*answer\s*>", re.IGNORECASE)
_WORD = re.compile(rf"\b(?:{'|'.join(UP_TO_TWENTY)})\b", re.IGNORECASE)
ReadNumber = Callable[[str], float | None]
"""From a raw answer to the number in it."""


def mean_relative_accuracy(said: Any, gold: Any) -> Any:
    """The share of ten tolerances that an error keeps, the first of them 50 % (Yang et al. 2024, equation 1).

    In the floating-point numbers of the published code: an error of exactly a tolerance may fall on either side. Of
    arrays, number by number.
    """
    import numpy as np

    tolerances = 1 - np.linspace(0.5, 0.95, int((0.95 - 0.5) / 0.05 + 2))
    off = np.abs(np.subtract(said, gold)) / np.where(np.equal(gold, 0), 1.0, np.abs(gold))
    return (off[..., None] <= tolerances).mean(axis=-1)


def last_number(raw: str) -> float | None:
    """EASI's: of a list the first, within a tag, or the last behind a thought; words up to twenty are numbers."""
    text = raw
    if text.strip().startswith("[") and text.strip().endswith("]"):
        try:
            listed_ = ast.literal_eval(text)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
        text = str(listed_[0]) if isinstance(listed_, list) and listed_ else text
    text = ZERO_WIDTH.sub("", text.strip())
    text = _WORD.sub(lambda match: str(UP_TO_TWENTY[match[0].lower()]), text)
    if match := in_tag(text, _TAGGED_NUMBER):
        return float(match[1])
    found = re.findall(_NUMBER, behind_thought(text)) or re.findall(_NUMBER, text)
    return float(found[-1]) if found else None


def number(item: Item, read: ReadNumber = last_number) -> Scored:
    """Mean relative accuracy of the number that is read."""
    said = read(item.raw)
    if said is None or not isfinite(said):
        return Scored(None if said is None else str(said), 0.0, False)
    return Scored(said, float(mean_relative_accuracy(said, float(item.gold))), True)


MCQ = both(mcq)
LATER, REPAIRED = "vlmevalkit-2026-08", "vlmevalkit-2026-08-repaired"
"""The profile of VLMEvalKit that has the benchmarks of 2026; and what its rules were meant to do where they fail."""
LATER_MCQ: dict[str, Rule] = {LATER: MCQ[LATER]}
EASI: dict[str, Rule] = {LATER: _easi}
"""Rules of multiple choice in it: its own, and EASI's."""
YES_NO: dict[str, Rule] = dict.fromkeys(VLMEVALKIT, _yes_no)
COUNT: dict[str, Rule] = dict.fromkeys(VLMEVALKIT, _leftmost_count)
TEXT: dict[str, Rule] = dict.fromkeys(VLMEVALKIT, _exact)
