"""3DSRBench: heights, places, orientations and several objects, asked again with swapped options and mirrored pictures.

Groups: ``category``, ``group`` (the four of its paper), and what belongs together of a question's versions, all of
which have to be right: ``rotations`` (swapped options; the mirrored picture apart), ``mirrored`` (both pictures of one
order), ``set`` and ``cluster`` (all versions).

Harnesses call ``overall`` vanilla: all rows of the file with every version. Its authors score with a judge; the
rule ``official`` is VLMEvalKit's without one, and their number ``circular``.
"""

import re

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.rules import LATER, LATER_MCQ, LMMS_EVAL, OFFICIAL, Item, Scored, chose
from blindspot.benchmarks.sources.forms import tsv
from blindspot.benchmarks.words import selected
from blindspot.question import Question

COUNTS = {"questions": 11686}
_FIRST = (
    r"\A([A-D])[.\s)]",
    r"\A([A-D])\Z",
    r"[Aa]nswer[:\s]+([A-D])",
    r"[Tt]he answer is[:\s]+([A-D])",
    r"[Mm]y answer is[:\s]+([A-D])",
    r"\(([A-D])\)",
    r"([A-D])\.",
    r"\b([A-D])\b",
)


def _question(row: Row) -> Question:
    name = row.text("qid").strip()
    match = re.fullmatch(r"([^-]+)(-flip)?(-\d+)?", name)
    if match is None:
        raise row.error(f"qid {name[:40]!r} is not like VIN6MS3J-flip-1")
    base, flip, turn = match.groups(default="")
    category = slug(row.text("category"))
    groups = {"category": category, "group": category.split("_")[0], "set": base, "cluster": base}
    groups |= {"rotations": base + flip, "mirrored": base + turn}
    return Question(name, "dsrbench_3d", "mcq", row.asked, row.letter("answer"), row.lettered(), row.images, groups)


def _lmms_eval(item: Item) -> Scored:
    text = item.raw.strip()
    letter = next((match[1] for pattern in _FIRST if (match := re.search(pattern, text))), None)
    return chose(item, letter)


DSRBENCH_3D = Benchmark(
    name="dsrbench_3d",
    title="3DSRBench",
    licence="CC-BY-4.0 (the data set's card)",
    citation="Ma et al., 3DSRBench, ICCV 2025, arxiv.org/abs/2412.07825",
    sources=(
        tsv("3DSRBench.tsv", "610516a0b4710595545b7613c60524e8", COUNTS, _question, "qid", "category", easi=True),
    ),
    metrics=(
        Metric("overall", (Term(),), None),
        Metric("circular", (Term(unit="rotations"),), None),
        Metric("flip", (Term(unit="mirrored"),), None),
        Metric("flip_circular", (Term(unit="set"),), None),
        *by("group", ("height", "location", "orientation", "multi")),
    ),
    kinds={"mcq": "mcq"},
    rules={**LATER_MCQ, LMMS_EVAL: _lmms_eval, OFFICIAL: LATER_MCQ[LATER]},
    headlines={OFFICIAL: "circular"},
    vlmevalkit="3DSRBench",
    wording=Wording(lettered=True),
    prompts={LATER: selected, LMMS_EVAL: selected},
)
