"""CCBench: Chinese culture in pictures, every question asked four times with its options rotated.

Groups: ``set`` and ``cluster`` (the question, with its four passes), ``pass`` (0 to 3), ``category``.
"""

from blindspot.benchmarks.base import Benchmark, Metric, Term
from blindspot.benchmarks.forms import cells, hub, tsv
from blindspot.benchmarks.forms.table import Row, slug
from blindspot.question import Question

COUNTS = {"questions": 2040, "sets": 510}
CATEGORIES = (
    "calligraphy_painting",
    "cultural_relic",
    "food_clothes",
    "historical_figure",
    "scenery_building",
    "sketch_reasoning",
    "traditional_show",
)
PASS = 1_000_000
"""The index of a pass is the question's plus a multiple of this."""


def _question(row: Row) -> Question:
    index = row.whole("index")
    groups = {
        "set": str(index % PASS),
        "cluster": str(index % PASS),
        "pass": str(index // PASS),
        "category": slug(row.text("category")),
    }
    gold = cells.letter(row, "answer")
    return Question(str(index), "ccbench", "mcq", cells.asked(row), gold, cells.lettered(row), row.images, groups)


CCBENCH = Benchmark(
    name="ccbench",
    title="CCBench",
    licence="not stated",
    citation="Liu et al., MMBench, ECCV 2024, arxiv.org/abs/2307.06281",
    sources=(
        tsv.source("CCBench.tsv", "f5dde47f24dc5a6fb6e595b409b466ac", COUNTS, _question, "category"),
        hub.source(
            "lmms-lab/MMBench",
            "test",
            COUNTS,
            _question,
            ("index", "question", "answer", "A", "B", "C", "D", "category"),
            configuration="cc",
        ),
    ),
    metrics=(
        Metric("overall", (Term(unit="set"),), 0.25**4),
        Metric("per_pass", (Term(),), 0.25),
        *(Metric(f"category/{name}", (Term({"category": name}, "set"),), 0.25**4) for name in CATEGORIES),
    ),
)
