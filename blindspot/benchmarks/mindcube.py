"""MindCube-tiny: what lies where, from a few views of a scene, when the viewer turns or moves; two to five options.

Groups: ``setting`` (among, around, rotation, translation), ``cluster`` (the pictures). The options stand in the
question.
"""

import re

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by
from blindspot.benchmarks.rules import EASI, LATER, LMMS_EVAL, OFFICIAL, chose
from blindspot.benchmarks.sources.forms import original, tsv
from blindspot.question import Question

COUNTS = {"questions": 1050}
SETTINGS = ("among", "around", "rotation")
_OPTION = re.compile(r"([A-E])\.\s*(.*?)\s*(?=\b[A-E]\.\s|\Z)", re.DOTALL)
_TASK = (
    "[Task]\nYour task is to analyze the spatial arrangement of objects in the scene by examining the provided images, "
    "which show the scene from different viewpoints.\n[Answer Instruction]\nYou only need to provide *ONE* correct "
    "answer selecting from the options listed below. For example, if you think the correct answer is 'A. Above' from "
    "'A. Above B. Under C. Front D. Behind', your response should **only** be '<answer>A. Above</answer>'.\n"
    "[Question]\n"
)
_SAID = (r"[Mm]y answer is ([A-E])", r"[Tt]he answer is ([A-E])")
_TAGGED = (*_SAID, r"\b([A-E])\b")
_ANYWHERE = (
    r"(?:\A|\n)(?:Answer: )?([A-E])(?:\Z|\s)",
    r"[*\"]([A-E])[*\"]",
    r"\bAnswer:?\s*([A-E])\b",
    _SAID[0],
    r"answer is ([A-E])",
)


def _question(row: Row) -> Question:
    identifier, prompt = row.text("id", "index"), row.text("question")
    setting = re.match(r"[a-z]+", (row.find("id", "category") or identifier).lower())
    groups = {"setting": setting[0] if setting else "", "cluster": row.cluster}
    options = row.lettered() if "A" in row.cells else tuple(text for _, text in _OPTION.findall(prompt))
    gold = row.letter("answer" if "answer" in row.cells else "gt_answer")
    return Question(identifier, "mindcube", "mcq", prompt, gold, options, row.images, groups)


def _letter(text: str) -> str | None:
    """The last letter with a full stop; else the last of the first pattern, within a tag or of all; else line by line
    from below the first."""
    if stopped := re.findall(r"([A-E])\.", text):
        return stopped[-1]
    tag = re.search(r"<Answer>(.*?)(?:<|\Z)", text, re.DOTALL)
    for patterns, part in ((_TAGGED, tag[1] if tag else ""), (_ANYWHERE, text)):
        if found := next(filter(None, (re.findall(pattern, part) for pattern in patterns)), None):
            return found[-1]
    lines = (re.search(r"\b([A-E])\b", line) for line in reversed(text.split("\n")))
    return next((match[1] for match in lines if match), None)


MINDCUBE = Benchmark(
    name="mindcube",
    title="MindCube-tiny",
    licence="not stated",
    citation="Yin et al., Spatial Mental Modeling from Limited Views, 2025, arxiv.org/abs/2506.21458",
    sources=(
        tsv(
            "MindCubeBench_tiny_raw_qa.tsv",
            "35f69fc30d7c2d2880417ce0769f5347",
            COUNTS,
            _question,
            easi=True,
            notes=("published scores of this form fit 1,040 rows, not 1,050",),
        ),
        original(
            _question,
            lambda row: row.get("images"),
            "unpack data.zip of huggingface.co/datasets/MLL-Lab/MindCube",
            repository="MLL-Lab/MindCube",
            counts=COUNTS,
            marks=("MindCube_tinybench.jsonl", "*/MindCube_tinybench.jsonl"),
            notes=("data of before 2026-03-23 have errors, and scores on them are others",),
        ),
    ),
    metrics=(Metric("overall", (Term(),), None), *by("setting", SETTINGS)),
    kinds={"mcq": "mcq"},
    rules={**EASI, **dict.fromkeys((LMMS_EVAL, OFFICIAL), lambda item: chose(item, _letter(item.raw)))},
    vlmevalkit="MindCubeBench_tiny_raw_qa",
    wording=Wording(lettered=True),
    prompts=dict.fromkeys((OFFICIAL, LATER, LMMS_EVAL), lambda question: _TASK + question.prompt),
)
