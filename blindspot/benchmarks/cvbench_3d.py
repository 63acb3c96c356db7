"""CV-Bench, its 3-D part: which of two objects is nearer, to the camera or to another object, of Omni3D's pictures.

Groups: ``task`` (depth, distance), ``cluster`` (the picture), ``prompt`` as in CV-Bench 2D.

The rule ``official`` is Cambrian-1's of 2025: the first character, behind "answer is" or "answer:" if they occur.
"""

from blindspot.benchmarks.base import Benchmark, Metric, Term, Wording, by
from blindspot.benchmarks.cvbench_2d import LISTED, forms
from blindspot.benchmarks.rules import LATER, LATER_MCQ, LMMS_EVAL, OFFICIAL, Item, Scored, behind_cue, leading_letter
from blindspot.benchmarks.words import LETTER, published, said_by_note

COUNTS = {"questions": 1200}


def _official(item: Item) -> Scored:
    letter = behind_cue(item.raw).rstrip(".:,").lstrip("(").rstrip(")")[:1]
    return Scored(letter, float(letter == item.gold.lower()), letter.upper() in item.choices)


CVBENCH_3D = Benchmark(
    name="cvbench_3d",
    title="CV-Bench 3D",
    licence="Apache-2.0 (the data set's card)",
    citation="Tong et al., Cambrian-1, NeurIPS 2024, arxiv.org/abs/2406.16860",
    sources=forms("3D", "bb94c0d568d652d15b60e001ac40a170", COUNTS, "task"),
    metrics=(Metric("overall", (Term(),), 0.5), *by("task", ("depth", "distance"), 0.5)),
    kinds={"mcq": "mcq"},
    rules={**LATER_MCQ, LMMS_EVAL: leading_letter, OFFICIAL: _official},
    prompts={
        LATER: lambda question: published(question, LISTED),
        LMMS_EVAL: lambda question: said_by_note(question, f"\n{published(question, LISTED)}"),
        OFFICIAL: lambda question: published(question, LISTED) + LETTER,
    },
    vlmevalkit="CV-Bench-3D",
    wording=Wording(lettered=True),
)
