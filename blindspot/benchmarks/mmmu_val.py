"""MMMU, its validation split: questions of university courses in thirty subjects, some with several pictures.

``<image 1>`` and the like stay in the texts; pictures are in the order of their numbers. Open questions are of kind
``text``; an answer that is a list of accepted ones stays written as a list.

Its authors' parser (the rule ``official``; lmms-eval took it over with changes) splits open answers into sentences at
capital letters, but after lower-casing: only lines are split. Where no option is found it draws one at random (seeded
once for a whole file, so that it depends on the order of the rows). Nothing is drawn here: such a row scores 0 and
`Scored.guess` says what drawing would add on average. In lmms-eval golds that are lists are compared as one text, as
the harness gets them. The published predictions (``total_val_output.json``, with ``answer_dict_val.json``) are parsed
already; as rows they are ``{"benchmark": "mmmu_val", "kind": "mcq", "choices": [...], "answer": ground_truth, "raw":
prediction}``, or ``"kind": "text"`` where ``question_type`` is ``short-answer``.

Parsing takes time in proportion to the length of the answer: the patterns of numbers are possessive and start at the
first digit of a run, which finds the same numbers as the authors' and does not go over a run once per digit.

Groups: ``subject``, ``discipline``, ``question_type`` (multiple-choice, open), ``cluster``.
"""

import ast
import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.rules import LMMS_EVAL, NOT_FOUND, OFFICIAL, Item, Scored, both, mcq, option
from blindspot.benchmarks.sources.forms import hub, tsv
from blindspot.question import Question

_SUBJECTS = {
    "art_and_design": "Art, Art_Theory, Design, Music",
    "business": "Accounting, Economics, Finance, Manage, Marketing",
    "science": "Biology, Chemistry, Geography, Math, Physics",
    "health_and_medicine": (
        "Basic_Medical_Science, Clinical_Medicine, Diagnostics_and_Laboratory_Medicine, Pharmacy, Public_Health"
    ),
    "humanities_and_social_science": "History, Literature, Psychology, Sociology",
    "tech_and_engineering": (
        "Agriculture, Architecture_and_Engineering, Computer_Science, Electronics, Energy_and_Power, Materials, "
        "Mechanical_Engineering"
    ),
}
SUBJECTS = {discipline: tuple(subjects.split(", ")) for discipline, subjects in _SUBJECTS.items()}
COUNTS = {"questions": 900} | {f"discipline={name}": 30 * len(subjects) for name, subjects in SUBJECTS.items()}
RANDOM_CHOICE = 0.221
"""What the authors report for random choice on the validation split."""

_DISCIPLINE = {slug(subject): discipline for discipline, subjects in SUBJECTS.items() for subject in subjects}
_BRACKETS, _WORD = "({})", " {} "
_TRIMMED = tuple(",.!?;:'")
_FEWEST_WORDS = 6
_CUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?(?<!\d)\d++(?:\.\d++)?[eE][+-]?\d++"),
    re.compile(r"-?(?:(?<!\d)\d++\.\d++|\.\d++|(?<!\d)\d++\b)(?![eE][+-]?\d)(?![,\d])"),
)
_IMAGES = tuple(f"image_{number}" for number in range(1, 8))


def _question(row: Row) -> Question:
    if "index" in row.cells:  # VLMEvalKit's TSV
        identifier, subject = row.find("id") or row.text("index"), row.text("category")
        options = row.lettered() if row.find("A") else ()
    else:
        identifier = row.text("id")  # validation_SUBJECT_NUMBER
        subject = identifier.partition("_")[2].rpartition("_")[0]
        options = tuple(row.strings("options")) if row.text("question_type") == "multiple-choice" else ()
    groups: dict[str, Any] = {
        "subject": slug(subject),
        "discipline": _DISCIPLINE.get(slug(subject), "other"),
        "question_type": "multiple-choice" if options else "open",
        "cluster": row.cluster,
    }
    kind, gold = ("mcq", row.letter("answer")) if options else ("text", row.text("answer"))
    return Question(identifier, "mmmu_val", kind, row.asked, gold, options, row.images, groups)


def _vlmevalkit(item: Item, said: bool) -> Scored:
    if item.kind == "mcq":
        return mcq(item, said)
    letter = option(item.raw, {"A": item.gold, "B": "Other Answers"}, said) or NOT_FOUND
    return Scored(letter, float(letter == "A"), letter in "AB")


def _lmms_eval(item: Item) -> Scored:
    if item.kind == "text":
        return _open_answer(item.raw, (str(list(item.golds)) if item.golds else item.gold,))
    return _chosen(item, (_BRACKETS, "{} ", "{}."), "")


def _official(item: Item) -> Scored:
    if item.kind != "text":
        return _chosen(item, (_BRACKETS, _WORD), None)
    golds = item.golds or (item.gold,)
    if not item.golds and item.gold.startswith("["):  # the accepted answers as the text of a Python list
        with suppress(ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            golds = tuple(map(str, ast.literal_eval(item.gold)))
    return _open_answer(item.raw, golds)


def _chosen(item: Item, marks: Sequence[str], none: str | None) -> Scored:
    """The option that an answer names last: by letter, as the first of ``marks`` that occurs; else, in more than five
    words, by its text."""
    text, letter = item.raw, None
    for mark in _TRIMMED:
        text = text.strip(mark)
    text = f" {text} "
    lowered = text.lower()
    for mark in marks:
        if found := [letter for letter in item.choices if mark.format(letter) in text]:
            # Letters found by "A " or "A." are put in order by " A ", absent or not: as the harness does it.
            order = _BRACKETS if mark == _BRACKETS else _WORD
            letter = max(found, key=lambda letter: text.rfind(order.format(letter)))
            break
    else:
        if len(text.split()) >= _FEWEST_WORDS:
            found = [letter for letter, option in item.choices.items() if option.lower() in lowered]
            letter = max(found, key=lambda letter: lowered.rfind(item.choices[letter].lower()), default=None)
    if letter is None:
        return Scored(none, 0.0, False, guess=1 / len(item.choices))
    return Scored(letter, float(letter == item.gold), True)


def _open_answer(raw: str, golds: Sequence[str]) -> Scored:
    """An open question: right if any key phrase contains a gold text, or any number in it equals a gold number.

    Key phrases are, of each line, the shortest end behind a cue word, in the last line also behind "="; where there is
    none, the whole answer.
    """
    text = raw.strip().strip(".").lower()
    lines, phrases = text.split("\n"), []
    for number, line in enumerate(lines, start=1):
        shortest = ""
        for cue in (*_CUES, "=") if number == len(lines) else _CUES:
            if cue in line:
                end = line.rpartition(cue)[2].strip()
                if not shortest or len(end) < len(shortest):
                    shortest = end
        if shortest and shortest not in _TRIMMED:
            phrases.append(shortest)
    phrases = phrases or [text]
    numbers = [number for phrase in phrases for pattern in _NUMBERS for number in pattern.findall(phrase)]
    given = {form for text in (*phrases, *numbers) for form in _forms(text)}
    wanted = {form for gold in golds for form in _forms(gold)}
    texts = [form for form in wanted if isinstance(form, str)]
    right = not wanted.isdisjoint(form for form in given if isinstance(form, float)) or any(
        part in form for form in given if isinstance(form, str) for part in texts
    )
    return Scored(phrases[-1], float(right), bool(raw.strip()))


def _forms(text: str) -> list[str | float]:
    """What is compared: a number rounded to two decimals, a text in lower case, a single character with a blank."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
    return [f" {text}", f"{text} "] if len(text) == 1 else [text]


MMMU_VAL = Benchmark(
    name="mmmu_val",
    title="MMMU validation",
    licence="Apache-2.0 (the data set's card)",
    citation="Yue et al., MMMU, CVPR 2024, arxiv.org/abs/2311.16502",
    sources=(
        tsv(
            "MMMU_DEV_VAL.tsv",
            "585e8ad75e73f75dcad265dfd0417d64",
            COUNTS,
            _question,
            "split",
            "category",
            keep=lambda row: row.text("split") == "validation",
        ),
        hub(
            "MMMU/MMMU",
            "validation",
            COUNTS,
            _question,
            ("id", "question", "options", "answer", "question_type"),
            images=_IMAGES,
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), RANDOM_CHOICE),
        *by("discipline", SUBJECTS),
        *by("subject", sorted(_DISCIPLINE)),
    ),
    kinds={"mcq": "mcq", "text": "text", "open_as_mcq": "text"},
    rules={**both(_vlmevalkit), LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    vlmevalkit="MMMU_DEV_VAL",
    wording=Wording(lettered=True, named_pictures=True, smolvlm="mmmu"),
)
