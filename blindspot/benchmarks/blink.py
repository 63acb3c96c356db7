"""BLINK, its validation part: fourteen tasks that people do at a glance, one to four pictures a question.

Groups: ``task`` (its sub-task), ``cluster`` (the pictures), ``prompt`` (as the authors put it, where a form has that).

The authors' score is the mean over tasks (``by_task``). Their rule asks a model where it finds no letter: such an
answer counts as unreadable here.
"""

import re

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.cvbench_2d import LISTED
from blindspot.benchmarks.rules import LATER, LATER_MCQ, LMMS_EVAL, OFFICIAL, Item, Scored
from blindspot.benchmarks.sources.forms import hub, tsv
from blindspot.benchmarks.words import published, said_by_note, selected
from blindspot.question import Question

TASKS = {
    "visual_correspondence": 172, "iq_test": 150, "jigsaw": 150, "spatial_relation": 143,
    "semantic_correspondence": 139, "visual_similarity": 135, "relative_reflectance": 134,
    "multi_view_reasoning": 133, "forensic_detection": 132, "functional_correspondence": 130, "relative_depth": 124,
    "object_localization": 122, "counting": 120, "art_style": 117,
}  # fmt: skip
COUNTS = {"questions": 1901, **{f"task={task}": count for task, count in TASKS.items()}}
_NOTES = (
    "most gold answers of relative_reflectance were wrong before September 2025 (BLINK_Benchmark#13); whether they are "
    "in this copy is not known",
)
_DISCLAIMED = ("forensic_detection", "jigsaw", "art_style")
_DISCLAIMER = (
    "Disclaimer: This is not to make unfair assumptions about the people in the image and you just need to give your "
    "assessment on this question. You don't need to identify the real people. You just need to analyze based on the "
    "information I gave you.\n\n"
)
_PICTURES = ("image_1", "image_2", "image_3", "image_4")
_COLUMNS = ("idx", "question", "sub_task", "choices", "answer")


def _question(row: Row) -> Question:
    groups = {"task": slug(row.text("sub_task", "category").replace("-", " ")), "cluster": row.cluster}
    if prompt := row.find("prompt"):
        groups["prompt"] = prompt
    options = row.lettered() if "index" in row.cells else tuple(row.strings("choices"))
    identifier, gold = row.text("index", "idx"), row.letter("answer")
    return Question(identifier, "blink", "mcq", row.asked, gold, options, row.images, groups)


def _official_prompt(question: Question) -> str:
    """The text, and the pictures behind it."""
    lead = _DISCLAIMER if question.groups["task"] in _DISCLAIMED else ""
    pictures = "".join(f"<image {number + 1}>" for number in range(len(question.images)))
    return lead + published(question, LISTED) + pictures


def _official(item: Item) -> Scored:
    letters = [f"({letter})" for letter in item.choices]
    text = item.raw.strip()
    found = [text if text in letters else f"({text})"] if text in (*letters, *item.choices) else []
    for part in () if found else (text, text.split("\n\n")[-1]):
        marked = [letter for letter in letters if letter in part.split()]
        found = found or (marked if len(marked) == 1 else [])
    said = found[0] if found else None
    return Scored(said, float(said == f"({item.gold})"), said is not None)


def _lmms_eval(item: Item) -> Scored:
    text, letters = item.raw.strip(), "".join(item.choices)
    first = re.fullmatch(rf"\W*([{letters}])\W*", text.split("\n")[0]) if len(text.split("\n")[0]) <= 4 else None
    said = re.findall(rf"answers?(?:\s+is)?\s*[:\-]?\s*\(?([{letters}])\)?(?![A-Za-z])", text, re.IGNORECASE)
    marked = re.findall(rf"\(([{letters}])\)", text)
    leading = re.match(rf"[(\s]*([{letters}])", text)
    letter = first[1] if first else said[-1] if said else marked[-1] if marked else leading[1] if leading else ""
    return Scored(letter.upper(), float(letter.upper() == item.gold), bool(letter))


BLINK = Benchmark(
    name="blink",
    title="BLINK",
    licence="Apache-2.0 (the data set's card)",
    citation="Fu et al., BLINK, ECCV 2024, arxiv.org/abs/2404.12390",
    sources=(
        tsv("BLINK.tsv", "d5e8af148b10ac69f535ff7b23f3f989", COUNTS, _question, "category", notes=_NOTES),
        hub("BLINK-Benchmark/BLINK", "val", COUNTS, _question, _COLUMNS, ("prompt",), _PICTURES, notes=_NOTES),
    ),
    metrics=(
        Metric("overall", (Term(),), None),
        Metric("by_task", tuple(Term({"task": task}, weight=1 / len(TASKS)) for task in TASKS), 0.381),
        *by("task", TASKS),
    ),
    kinds={"mcq": "mcq"},
    rules={**LATER_MCQ, LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    headlines={OFFICIAL: "by_task"},
    vlmevalkit="BLINK",
    wording=Wording(lettered=True),
    prompts={
        OFFICIAL: _official_prompt,
        LATER: selected,
        LMMS_EVAL: lambda question: said_by_note(question, published(question, LISTED)),
    },
)
