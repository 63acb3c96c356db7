"""VLMEvalKit without a judge, as the paper's numbers were made (2025-09), and a year later (2026-08).

Kept as they are, quirks included: lower-case letters do not count, a word such as "unopened" matches the option
"open", "25" is no count. What happens to a score file on the way through a spreadsheet ("None" becomes a blank) is not.
Where the specification leaves a rule open:

- Only the first 32 full stops of an answer are dropped before yes and no are looked for, as the harness passes a flag
  where its library takes a number of replacements.
- NLVR is no data set of VLMEvalKit; its yes and no are scored as all others there. So are rows of benchmarks that are
  not known here: by their kind, counts as TallyQA's and texts as GQA's.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial

from blindspot.benchmarks.rules.common import API_FAILED, UP_TO_TWENTY, Item, Rule, Scored

VERSIONS = {"vlmevalkit-2025-09": False, "vlmevalkit-2026-08": True}
"""Its profiles; the later one accepts "the answer is B" anywhere."""

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

_VQA_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_GROUPS = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32

_COUNT = re.compile(rf"\b(?:1?[0-9]|20|{'|'.join(UP_TO_TWENTY)})\b")


def _letter(raw: str, choices: Mapping[str, str], said: bool) -> str | None:
    """A letter that stands alone, or ``Z`` for a refusal. ``said``: accept "the answer is B" anywhere (2026)."""
    if API_FAILED in raw:
        return None
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
    return match[1].upper() if match and match[1].upper() in choices else None


def by_text(lowered: str, choices: Mapping[str, str]) -> str | None:
    """The only option whose text occurs in an answer in lower case."""
    found = [letter for letter, text in choices.items() if text and text.lower() in lowered]
    return found[0] if len(found) == 1 else None


def option(raw: str, choices: Mapping[str, str], said: bool = False) -> str | None:
    """The option letter that VLMEvalKit infers, ``Z`` for a refusal, None where it would ask a judge."""
    lowered, longest = raw.lower(), 2 * sum(map(len, choices.values()))
    return _letter(raw, choices, said) or (by_text(lowered, choices) if len(lowered) <= longest else None)


def both(rule: Callable[..., Scored]) -> dict[str, Rule]:
    """A rule by version, told whether "the answer is B" counts."""
    return {version: partial(rule, said=said) for version, said in VERSIONS.items()}


def mcq(item: Item, said: bool) -> Scored:
    """Multiple choice."""
    letter = option(item.raw, item.choices, said) or NOT_FOUND
    return Scored(letter, float(letter == item.gold), letter in item.choices)


def _yes_no(item: Item) -> Scored:
    words = set(_vqa_words(item.raw))
    found = [word for word in ("yes", "no") if word in words]
    said = found[0].capitalize() if len(found) == 1 else "Unknown"
    return Scored(said, float(said == item.gold), len(found) == 1)


def _vqa_words(raw: str) -> list[str]:
    """The VQA challenge's punctuation rule: a mark that touches a blank anywhere vanishes, any other separates."""
    lowered = raw.lower()
    text = lowered
    grouped = _DIGIT_GROUPS.search(lowered) is not None
    for mark in _VQA_PUNCTUATION:
        if mark in lowered:
            vanishes = grouped or f"{mark} " in lowered or f" {mark}" in lowered
            text = text.replace(mark, "" if vanishes else " ")
    return _STOP.sub("", text, count=_MOST_STOPS).split()


def _leftmost_count(item: Item) -> Scored:
    match = _COUNT.search(item.raw.lower())
    if match is None:
        return Scored(None, 0.0, False)
    count = UP_TO_TWENTY.get(match[0])
    count = int(match[0]) if count is None else count
    return Scored(count, float(count == int(item.gold)), True)


def _exact(item: Item) -> Scored:
    answer = item.raw.strip().lower()
    return Scored(answer, float(answer == item.gold.strip().lower()), bool(answer))


MCQ = both(mcq)
YES_NO: dict[str, Rule] = dict.fromkeys(VERSIONS, _yes_no)
COUNT: dict[str, Rule] = dict.fromkeys(VERSIONS, _leftmost_count)
TEXT: dict[str, Rule] = dict.fromkeys(VERSIONS, _exact)
