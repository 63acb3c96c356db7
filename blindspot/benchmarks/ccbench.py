"""CCBench: Chinese culture in pictures, every question asked four times with its options rotated.

Groups: ``set`` and ``cluster`` (the question, with its four passes), ``pass`` (0 to 3), ``category``.

Its authors' evaluation is VLMEvalKit. In lmms-eval it is ``mmbench_cn_cc`` without a key for its judge; see
`Scored.guess` for the draw that follows then. An answer of "E" ("none of them") counts as found there, and option texts
may be matched in answers of any length.
"""

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.rules import API_FAILED, LMMS_EVAL, MCQ, OFFICIAL, Item, Scored, by_text, chose, option
from blindspot.benchmarks.sources.forms import hub, tsv
from blindspot.question import Question

COUNTS = {"questions": 2040, "sets": 510}
_CATEGORIES = (
    "calligraphy_painting cultural_relic food_clothes historical_figure scenery_building sketch_reasoning "
    "traditional_show"
)
CATEGORIES = tuple(_CATEGORIES.split())
_MARKS = ("{}", "{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{}).")
PASS = 1_000_000
"""The index of a pass is the question's plus a multiple of this."""


def _question(row: Row) -> Question:
    index = row.whole("index")
    own = str(index % PASS)
    groups = {"set": own, "cluster": own, "pass": str(index // PASS), "category": slug(row.text("category"))}
    gold = row.letter("answer")
    return Question(str(index), "ccbench", "mcq", row.asked, gold, row.lettered(), row.images, groups)


def _lmms_eval(item: Item) -> Scored:
    words = item.raw.split()
    present = set() if API_FAILED in item.raw else set(words)
    for mark in _MARKS:
        found = [letter for letter in "ABCDE" if mark.format(letter) in present]
        # A bare letter beside an "A" in more than three words may be an article.
        if len(found) == 1 and not (mark == "{}" and "A" in present and len(words) > 3):
            letter = found[0]
            break
    else:
        letter = by_text(item.raw.strip().lower(), item.choices)
    if letter is None:
        return Scored("", 0.0, False, guess=1 / (len(item.choices) + 1))
    return Scored(letter, float(letter == item.gold), True)


CCBENCH = Benchmark(
    name="ccbench",
    title="CCBench",
    licence="not stated",
    citation="Liu et al., MMBench, ECCV 2024, arxiv.org/abs/2307.06281",
    sources=(
        tsv("CCBench.tsv", "f5dde47f24dc5a6fb6e595b409b466ac", COUNTS, _question, "category"),
        hub(
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
        *by("category", CATEGORIES, 0.25**4, unit="set"),
    ),
    kinds={"mcq": "mcq", "circular_group": "circular"},
    rules={**MCQ, LMMS_EVAL: _lmms_eval, OFFICIAL: lambda item: chose(item, option(item.raw, item.choices))},
    vlmevalkit="CCBench",
    wording=Wording(lettered=True, smolvlm="mmbench"),
)
