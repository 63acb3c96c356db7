"""MMSI-Bench: how cameras, objects and regions lie and move across two or more pictures, four options a question.

Groups: ``type`` (eleven), ``cluster`` (the pictures). The options stand in the question.
"""

import re

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by
from blindspot.benchmarks.rules import EASI, LATER, LMMS_EVAL, OFFICIAL, chose
from blindspot.benchmarks.sources.forms import hub, tsv
from blindspot.benchmarks.words import LETTER, listed
from blindspot.question import Question

COUNTS = {"questions": 1000}
TYPES = (
    "positional_cam_cam", "positional_cam_obj", "positional_cam_reg", "positional_obj_obj", "positional_obj_reg",
    "positional_reg_reg", "attribute_meas", "attribute_appr", "motion_cam", "motion_obj", "msr",
)  # fmt: skip
_ENCLOSED = f"{LETTER} Enclose the option's letter within ``."
_OPTION = re.compile(r"([A-D])\s*[:.]\s*(.*?)\s*,?\s*(?=\b[A-D]\s*[:.]|\Z)", re.DOTALL)


def _question(row: Row) -> Question:
    kind = re.sub(r"\W+", "_", row.text("question_type", "category").lower()).strip("_")
    if "index" in row.cells and "A" in row.cells:  # VLMEvalKit's TSV
        identifier, prompt, options = row.text("index"), row.asked, row.lettered()
    else:
        identifier, prompt = row.text("id", "index"), row.text("question")
        options = tuple(text for _, text in _OPTION.findall(prompt.rpartition("Options:")[2]))
    groups = {"type": kind, "cluster": row.cluster}
    return Question(identifier, "mmsi", "mcq", prompt, row.letter("answer"), options, row.images, groups)


def _asked(question: Question) -> str:
    """The question with its options, whether or not it names them itself."""
    own = f"\nOptions: {listed(question, ':', ', ')}, \n"
    return question.prompt if "Options:" in question.prompt else question.prompt + own


def _read(raw: str, letters: str, flags: int = 0, braces: bool = False) -> str | None:
    """The first letter within backticks, or within braces, or else anywhere."""
    if match := re.search(r"``([^`]*)``", raw) or re.search(r"`([^`]*)`", raw):
        raw = match[1]
    elif braces and (end := raw.find("}", begin := raw.find("{"))) > begin >= 0:
        raw = raw[begin + 1 : end]
    match = re.search(rf"\b({letters})\b(?!\s[a-zA-Z])", raw, flags)
    return match[1].upper() if match else None


MMSI = Benchmark(
    name="mmsi",
    title="MMSI-Bench",
    licence="CC-BY-NC-4.0 (its README)",
    citation="Yang et al., MMSI-Bench, 2025, arxiv.org/abs/2505.23764",
    sources=(
        tsv("MMSIBench_wo_circular.tsv", "548c5f33f1a12948d5355d5f600749e4", COUNTS, _question, easi=True),
        hub(
            "RunsenXu/MMSI-Bench",
            "MMSI_Bench",
            COUNTS,
            _question,
            ("id", "question_type", "question", "answer"),
            images=("images",),
        ),
    ),
    metrics=(Metric("overall", (Term(),), 0.25), *by("type", TYPES, 0.25)),
    kinds={"mcq": "mcq"},
    rules={
        **EASI,
        LMMS_EVAL: lambda item: chose(item, _read(item.raw, "[A-F]", re.IGNORECASE, braces=True)),
        OFFICIAL: lambda item: chose(item, _read(item.raw, "[A-D]")),
    },
    vlmevalkit="MMSIBench",
    wording=Wording(lettered=True),
    prompts={
        **dict.fromkeys((OFFICIAL, LMMS_EVAL), lambda question: question.prompt + _ENCLOSED),
        LATER: lambda question: _asked(question) + _ENCLOSED.lstrip("\n"),
    },
)
