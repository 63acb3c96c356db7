"""EmbSpatial-Bench: six relations between objects in indoor scenes, from the viewer's place, four options a question.

Groups: ``source`` (mp3d, ai2thor, scannet), ``relation``, ``cluster`` (the picture).

Its authors published no code that scores: no rule ``official``.
"""

from string import ascii_uppercase

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.rules import EASI, LATER, LMMS_EVAL, leading_letter
from blindspot.benchmarks.sources.forms import hub, tsv
from blindspot.benchmarks.words import best_answer, listed, said_by_note
from blindspot.question import Question

COUNTS = {"questions": 3640}
"""From memory of its pages; noted when a file differs."""
SOURCES = ("mp3d", "ai2thor", "scannet")
_COLUMNS = ("question_id", "question", "answer", "answer_options", "data_source", "relation")


def _question(row: Row) -> Question:
    groups = {"cluster": row.cluster}
    for group, columns in {"source": ("data_source", "category"), "relation": ("relation", "l2-category")}.items():
        if label := row.find(*columns):
            groups[group] = slug(label)
    if "index" in row.cells:  # VLMEvalKit's TSV
        identifier, options, gold = row.text("index"), row.lettered(), row.letter("answer")
    else:
        identifier, options = row.text("question_id"), tuple(row.strings("answer_options"))
        gold = ascii_uppercase[min(row.whole("answer"), 25)]
    return Question(identifier, "embspatial", "mcq", row.asked, gold, options, row.images, groups)


EMBSPATIAL = Benchmark(
    name="embspatial",
    title="EmbSpatial-Bench",
    licence="CC-BY-4.0 (the authors' data set)",
    citation="Du et al., EmbSpatial-Bench, ACL 2024, arxiv.org/abs/2406.05756",
    sources=(
        tsv("EmbSpatialBench.tsv", "a836cfd8fbe84bb42928ecef1e62ad32", COUNTS, _question, easi=True),
        hub("FlagEval/EmbSpatial-Bench", "test", COUNTS, _question, _COLUMNS[:4], _COLUMNS[4:]),
    ),
    metrics=(Metric("overall", (Term(),), 0.25), *by("source", SOURCES, 0.25)),
    kinds={"mcq": "mcq"},
    rules={**EASI, LMMS_EVAL: leading_letter},
    vlmevalkit="EmbSpatialBench",
    wording=Wording(lettered=True),
    prompts={
        LATER: best_answer,
        LMMS_EVAL: lambda question: said_by_note(question, f"{question.prompt}\n{listed(question, ')')}"),
    },
)
