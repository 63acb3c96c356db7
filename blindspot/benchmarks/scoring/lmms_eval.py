"""lmms-eval 0.7.3. It has no VSR, TallyQA, TopViewRS and NLVR.

Where the specification leaves a rule open:

- Of its two tasks on CountBenchQA, ``countbench`` is scored; ``countbenchqa`` shows the model a caption that states
  the count.
- SEED-Bench: one task over images and videos; its rule is applied to the images.
- CCBench is ``mmbench_cn_cc`` without a key for its judge; see `Scored.guess` for the draw that follows then. An answer
  of "E" ("none of them") counts as found. Option texts may be matched in answers of any length.
- MMMU golds that are lists are compared as one text, as the harness gets them.
- Thoughts that end are taken off, as its command line does by default; an answer without any is left as it stands.
- Comparison of GQA answers goes through numpy, which drops trailing NUL characters.
"""

import re
import string
from collections.abc import Mapping

from blindspot.benchmarks.scoring import mmmu
from blindspot.benchmarks.scoring.base import Profile, Scored
from blindspot.benchmarks.scoring.rows import Item
from blindspot.benchmarks.scoring.words import as_numeral

_LEADING = re.compile(r"\(?([ab])\)?(?:[.\s]|\Z)", re.IGNORECASE)
_ANYWHERE = (
    re.compile(r"answer\s+is\s+\(?([ab])", re.IGNORECASE),
    re.compile(r"option\s+\(?([ab])", re.IGNORECASE),
    re.compile(r"([ab])\)?(?:\s|\Z)", re.IGNORECASE),
)
_FIRST_LETTER = re.compile(r"[(\s]*([A-Z])", re.IGNORECASE)
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MMMU_MARKS = (mmmu.BRACKETS, "{} ", "{}.")
_CC_LETTERS = "ABCDE"
_CC_MARKS = ("{}", "{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
_API_FAILED = "Failed to obtain answer via API"


def _mmvp(item: Item) -> Scored:
    letter = _a_or_b(item.raw.strip())
    return Scored(letter, float(letter == item.gold), bool(letter))


def _a_or_b(text: str) -> str:
    match = _LEADING.match(text)
    for pattern in _ANYWHERE:
        match = match or pattern.search(text)
    if match:
        return match[1].upper()
    return text[:1].upper() if text[:1] in ("A", "B", "a", "b") else ""


def _first_letter(item: Item) -> Scored:
    match = _FIRST_LETTER.match(item.raw.strip())
    letter = match[1].upper() if match else ""
    return Scored(letter, float(letter == item.gold), letter in item.choices)


def _first_character(item: Item) -> Scored:
    character = item.raw.strip()[:1]
    letter = character.lower().strip()
    return Scored(character, float(letter == item.gold.lower()), character.upper() in item.choices)


def _gqa(item: Item) -> Scored:
    answer = _bare(item.raw)
    return Scored(answer, float(answer == _bare(item.gold)), bool(answer.strip()))


def _bare(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION).rstrip("\0")


def _countbench(item: Item) -> Scored:
    answer = as_numeral(item.raw)
    return Scored(answer, float(answer == item.gold), answer.isdecimal())


def _mme(item: Item) -> Scored:
    said = _yes_or_no(item.raw.lower().strip().replace(".", ""))
    return Scored(said, float(said == item.gold.lower()), said != "other")


def _yes_or_no(text: str) -> str:
    if len(text) == 1:
        return {"y": "yes", "n": "no"}.get(text, "other")
    start = text[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def _mmmu(item: Item) -> Scored:
    if item.kind == "text":
        return mmmu.open_answer(item, (str(list(item.golds)) if item.golds else item.gold,))
    letter = mmmu.choose(item.raw, item.choices, _MMMU_MARKS)
    if letter is None:
        return Scored("", 0.0, False, guess=1 / len(item.choices))
    return Scored(letter, float(letter == item.gold), True)


def _ccbench(item: Item) -> Scored:
    letter = _cc_letter(item.raw) or _cc_by_text(item.raw, item.choices)
    if letter is None:
        return Scored("", 0.0, False, guess=1 / (len(item.choices) + 1))
    return Scored(letter, float(letter == item.gold), True)


def _cc_letter(raw: str) -> str | None:
    if _API_FAILED in raw:
        return None
    words = raw.split()
    present = set(words)
    for mark in _CC_MARKS:
        found = [letter for letter in _CC_LETTERS if mark.format(letter) in present]
        # A bare letter beside an "A" in more than three words may be an article.
        if len(found) == 1 and not (mark == "{}" and "A" in present and len(words) > 3):
            return found[0]
    return None


def _cc_by_text(raw: str, choices: Mapping[str, str]) -> str | None:
    lowered = raw.strip().lower()
    found = [letter for letter, text in choices.items() if text and text.lower() in lowered]
    return found[0] if len(found) == 1 else None


LMMS_EVAL = Profile(
    "lmms-eval-0.7.3",
    {
        "mmvp": _mmvp,
        "cvbench_2d": _first_letter,
        "gqa": _gqa,
        "countbenchqa": _countbench,
        "mmmu_val": _mmmu,
        "mme": _mme,
        "ccbench": _ccbench,
        "seedbench_img": _first_character,
    },
    thoughts="closed",
)
