"""Scoring rules against references written from the specification's prose: loops over characters and words."""

import re
from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from blindspot.benchmarks import mmmu_val
from blindspot.benchmarks.scoring import PROFILES, Scored, profile

FORK, UP, LMMS, OFFICIAL, *_ = PROFILES
REFUSAL, API_FAILED = "Cannot determine the answer", "Failed to obtain answer via API"
WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBERS = WORDS.split()
TEXTS = ["open", "closed", "left", "top left", "top right", "1", "3", "11", "a dog", "Yes", "A", "x y z"]
PIECES = [
    *"ABCDEZabcdez0123456789.,;:!?()[]{}*#/'\"-_+@ \n\t\0",
    *TEXTS,
    *("yes", "no", "No", "not", " answer is ", "correct answer is **", "Answer:", "option ", "(B)", "two", "Twelve"),
    *("20", "25", "1,000", "1.5", "2e3", "none", "the ", REFUSAL, API_FAILED, "\uff11", "猫", "é", "\u3000", "......"),
]

PLAIN = [*"AABBCZ", "(A)", "B.", "yes", "no", "No.", "open", "left", "3", "the", "of", "is", "answer", "option", "top"]

answers = st.lists(st.sampled_from(PIECES) | st.just(" "), max_size=14).map("".join) | st.lists(
    st.sampled_from(PLAIN), max_size=8
).map(" ".join)
options = st.lists(st.sampled_from(TEXTS), min_size=2, max_size=5, unique=True).map(
    lambda texts: dict(zip("ABCDE", texts, strict=False))
)
many = settings(max_examples=50)


def score(name: str, benchmark: str, kind: str, answer: str, raw: str, choices: object = None) -> Scored:
    row = {"benchmark": benchmark, "kind": kind, "answer": answer, "raw": raw}
    return profile(name).score(row if choices is None else {**row, "choices": choices})


def words_of(text: str, separators: str) -> list[str]:
    words, word = [], ""
    for character in text + " ":
        if character in separators or character.isspace():
            words += [word] if word else []
            word = ""
        else:
            word += character
    return words


def only(found: list[str]) -> str | None:
    return found[0] if len(found) == 1 else None


def option_texts_in(text: str, choices: Mapping[str, str]) -> list[str]:
    return [letter for letter in choices if choices[letter].lower() in text.lower()]


def letter_said(text: str) -> str | None:
    """The letter behind the first "answer is" that has one."""
    lowered = text.lower()
    for start in range(len(lowered)):
        if not lowered.startswith("answer", start):
            continue
        at = skip(lowered, start + 6, str.isspace)
        if at == start + 6 or not lowered.startswith("is", at):
            continue
        blank = skip(lowered, at + 2, str.isspace)
        letter = skip(lowered, blank, lambda character: character == "*")
        if blank > at + 2 and lowered[letter : letter + 1] in tuple("abcd"):
            return lowered[letter].upper()
    return None


def skip(text: str, at: int, belongs: object) -> int:
    while at < len(text) and belongs(text[at]):  # pyright: ignore[reportCallIssue]
        at += 1
    return at


def reference_option(raw: str, choices: Mapping[str, str], said: bool) -> str:
    if API_FAILED not in raw:
        if REFUSAL in raw:
            return "Z"
        words = words_of(raw, ".()[],:;!*#{}")
        letters = [letter for letter in choices if letter in words]
        if len(letters) == 1 and letters[0] in words[-4:] and letters[0] not in words[:-4]:
            return letters[0]
        if not letters and "Z" in words:
            return "Z"
        if said and letter_said(raw) in choices:
            return letter_said(raw) or ""
    if len(raw.lower()) > 2 * sum(len(text) for text in choices.values()):
        return "Z"
    return only(option_texts_in(raw, choices)) or "Z"


@many
@given(answers, options)
def test_options_of_vlmevalkit(raw: str, choices: dict[str, str]) -> None:
    for name, said in ((FORK, False), (UP, True)):
        expected = reference_option(raw, choices, said)
        for benchmark in ("mmvp", "cvbench_2d", "mmmu_val", "ccbench", "seedbench_img", "topviewrs"):
            scored = score(name, benchmark, "mcq", "B", raw, choices)
            assert (scored.extracted, scored.score, scored.parsed) == (expected, expected == "B", expected in choices)


@many
@given(answers, st.sampled_from(["24", "open", "a dog"]))
def test_open_questions_of_vlmevalkit_are_a_choice_of_two(raw: str, gold: str) -> None:
    expected = reference_option(raw, {"A": gold, "B": "Other Answers"}, said=False)
    for kind in ("text", "open_as_mcq"):
        assert score(FORK, "mmmu_val", kind, gold, raw).score == (expected == "A")


@many
@given(answers)
def test_yes_and_no_of_vlmevalkit(raw: str) -> None:
    lowered = raw.lower()
    triples = zip(lowered, lowered[1:], lowered[2:], strict=False)
    grouped = any(a.isdecimal() and mark == "," and b.isdecimal() for a, mark, b in triples)
    kept, stops = "", 0
    for character in lowered:
        if character in ';/[]"{}()=+\\_-><@`,?!':
            vanishes = grouped or character + " " in lowered or " " + character in lowered
            kept += "" if vanishes else " "
        else:
            kept += character
    lowered, kept = kept, ""
    for at, character in enumerate(lowered):
        if character == "." and stops < 32 and not lowered[at + 1 : at + 2].isdecimal():
            stops += 1
        else:
            kept += character
    words = kept.split()
    expected = "Unknown"
    if "yes" in words or "no" in words:
        expected = "Unknown" if "yes" in words and "no" in words else "Yes" if "yes" in words else "No"
    for benchmark in ("vsr", "mme", "nlvr"):
        scored = score(UP, benchmark, "yes_no", "No", raw)
        assert (scored.extracted, scored.score) == (expected, expected == "No")


@many
@given(answers)
def test_counts_of_vlmevalkit_are_the_leftmost_number_up_to_twenty(raw: str) -> None:
    names = {str(number): number for number in range(21)} | {word: number for number, word in enumerate(NUMBERS)}
    spaced = "".join(character if character.isalnum() or character == "_" else " " for character in raw.lower())
    expected = next((names[word] for word in spaced.split(" ") if word in names), None)
    scored = score(FORK, "tallyqa", "count", "3", raw)
    assert (scored.extracted, scored.score) == (expected, expected == 3)


@many
@given(answers)
def test_strings_are_compared_as_each_harness_does(raw: str) -> None:
    assert score(FORK, "gqa", "text", "left", raw).score == (raw.strip().lower() == "left")
    assert score(FORK, "countbenchqa", "count", "1", raw).score == ("1" in raw)
    ascii_marks = {chr(code) for code in range(33, 127) if not chr(code).isalnum()}
    bare = "".join(character for character in raw.lower() if character not in ascii_marks)
    assert score(LMMS, "gqa", "text", "left", raw).score == (bare.rstrip("\0") == "left")
    stripped = raw.strip()
    while stripped.endswith("."):
        stripped = stripped[:-1]
    assert score(OFFICIAL, "gqa", "text", "left", raw).score == (stripped.lower() == "left")
    word = raw.strip().lower()
    digits = "0" if word == "none" else str(NUMBERS.index(word)) if word in NUMBERS else word
    for name, benchmark in ((LMMS, "countbenchqa"), (OFFICIAL, "countbenchqa"), (OFFICIAL, "tallyqa")):
        assert score(name, benchmark, "count", "2", raw).score == (digits == "2")


def reference_a_or_b(text: str) -> str:
    """Lmms-eval's cascade on MMVP: at the start, behind "answer is", behind "option", at the end of a word, first."""
    text = text.strip().lower()

    def ends(at: int) -> bool:
        return at >= len(text) or text[at].isspace()

    def past(at: int, mark: str) -> int:
        return at + text.startswith(mark, at)

    def a_or_b(at: int) -> bool:
        return text[at : at + 1] in ("a", "b")

    start = past(0, "(")
    close = past(start + 1, ")")
    if a_or_b(start) and (ends(close) or text[close] == "."):
        return text[start].upper()
    for cue in ("answer", "option"):
        for at in range(len(text)):
            if text.startswith(cue, at):
                behind = skip(text, at + 6, str.isspace)
                if cue == "answer":
                    if behind == at + 6 or not text.startswith("is", behind):
                        continue
                    at, behind = behind - 4, skip(text, behind + 2, str.isspace)
                if behind > at + 6 and a_or_b(past(behind, "(")):
                    return text[past(behind, "(")].upper()
    for at in range(len(text)):
        if a_or_b(at) and (ends(at + 1) or (text[at + 1] == ")" and ends(at + 2))):
            return text[at].upper()
    return text[0].upper() if a_or_b(0) else ""


@many
@given(answers)
def test_letters_of_lmms_eval(raw: str) -> None:
    assert score(LMMS, "mmvp", "mcq", "A", raw, ["open", "closed"]).extracted == reference_a_or_b(raw)
    first = raw.strip()
    while first[:1] == "(" or first[:1].isspace():
        first = first[1:]
    letter = first[:1].upper() if first[:1].isascii() and first[:1].isalpha() else ""
    assert score(LMMS, "cvbench_2d", "mcq", "A", raw, ["left", "right"]).extracted == letter
    assert score(LMMS, "seedbench_img", "mcq", "A", raw, ["x", "y"]).score == (raw.strip()[:1] in ("A", "a"))


@many
@given(answers)
def test_yes_and_no_of_mme(raw: str) -> None:
    for name, text in ((LMMS, raw.strip().replace(".", "").lower()), (OFFICIAL, raw.lower())):
        expected = "other"
        for word in ("no", "yes"):
            if word in text[:4] or (name == LMMS and text == word[0]):
                expected = word
        assert score(name, "mme", "yes_no", "No", raw).extracted == expected


def reference_mmmu(raw: str, choices: Mapping[str, str], marks: list[tuple[str, str]]) -> str | None:
    """The last named option; ``marks`` stand before and behind a letter."""
    text = raw
    for mark in ",.!?;:'":
        while text.startswith(mark):
            text = text[1:]
        while text.endswith(mark):
            text = text[:-1]
    text = f" {text} "
    for before, behind in marks:
        found = [letter for letter in choices if before + letter + behind in text]
        order = (before, behind) if before == "(" else (" ", " ")
        if found:
            return last(text, {letter: order[0] + letter + order[1] for letter in found})
    if len(text.split()) > 5:
        found = option_texts_in(text, choices)
        return last(text.lower(), {letter: choices[letter].lower() for letter in found}) if found else None
    return None


def last(text: str, wanted: Mapping[str, str]) -> str:
    best, place = next(iter(wanted)), -1
    for at in range(len(text)):
        for letter, sought in wanted.items():
            if text.startswith(sought, at) and at > place:
                best, place = letter, at
    return best


@many
@given(answers, options)
def test_options_of_mmmu(raw: str, choices: dict[str, str]) -> None:
    harnesses = {OFFICIAL: [("(", ")"), (" ", " ")], LMMS: [("(", ")"), ("", " "), ("", ".")]}
    for name, marks in harnesses.items():
        expected = reference_mmmu(raw, choices, marks)
        scored = score(name, "mmmu_val", "mcq", "B", raw, choices)
        assert (scored.extracted or None, scored.score) == (expected, expected == "B")


@many
@given(st.text(alphabet="0123456789\uff11.,-eE+ x", max_size=40))
def test_numbers_of_open_answers_are_those_of_the_plain_patterns(text: str) -> None:
    plain = [
        r"-?\b\d{1,3}(?:,\d{3})+\b",
        r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
        r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
    ]
    ours = [pattern.findall(text) for pattern in mmmu_val._NUMBERS]
    assert ours == [re.findall(pattern, text) for pattern in plain]


@many
@given(st.integers(-(10**9), 10**9), st.sampled_from(["so {}", "The answer is {}.", "x = {}", "it must be\nfinal {}"]))
def test_numbers_of_open_answers_are_compared_as_numbers(number: int, sentence: str) -> None:
    for name in (LMMS, OFFICIAL):
        for written in (f"{number:,}", f"{number}", f"{number}.00"):
            assert score(name, "mmmu_val", "text", f"{number}.001", sentence.format(written)).score == 1
            assert score(name, "mmmu_val", "text", str(number + 1), sentence.format(written)).score == 0
