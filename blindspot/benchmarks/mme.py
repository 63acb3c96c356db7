"""MME: two yes-or-no questions a picture, ten categories of perception and four of cognition.

Groups: ``category``, ``part`` (perception, cognition), ``set`` and ``cluster`` (the picture in its category).
"""

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording
from blindspot.benchmarks.rules import LMMS_EVAL, OFFICIAL, YES_NO, Item, Scored
from blindspot.benchmarks.sources.forms import hub, tsv
from blindspot.question import Question

PERCEPTION = tuple(
    ["existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR"]
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
COUNTS = {"questions": 2374, "images": 1187, "sets": 1187}
MOST = 2800
"""Points of a perfect model: 200 a category."""


def _question(row: Row) -> Question:
    if "index" in row.cells:  # VLMEvalKit's TSV
        identifier, picture = row.text("index"), row.find("image_path") or row.cluster
    else:
        picture = row.text("question_id")  # names the picture, so both of its questions have it
        identifier = f"{picture}#{row.number}"
    category = row.text("category")
    if category not in PERCEPTION + COGNITION:
        raise row.error(f"unknown category {category!r}; MME has {', '.join(PERCEPTION + COGNITION)}")
    part, together = "perception" if category in PERCEPTION else "cognition", f"{category}/{picture}"
    groups = {"category": category, "part": part, "set": together, "cluster": together}
    gold = row.yes_no("answer")
    return Question(identifier, "mme", "yes_no", row.text("question"), gold, ("Yes", "No"), row.images, groups)


def _points(categories: tuple[str, ...], most: float = 1.0) -> tuple[Term, ...]:
    """Per category, 100 x accuracy + 100 x share of pictures with both questions right."""
    return tuple(
        Term({"category": category}, unit, 100 / most) for category in categories for unit in ("question", "set")
    )


def _lmms_eval(item: Item) -> Scored:
    text = item.raw.lower().strip().replace(".", "")
    return _said(item, {"y": "yes", "n": "no"}.get(text, "") if len(text) == 1 else text)


def _said(item: Item, text: str) -> Scored:
    start = text[:4]
    said = "yes" if "yes" in start else "no" if "no" in start else "other"
    return Scored(said, float(said == item.gold.lower()), said != "other")


MME = Benchmark(
    name="mme",
    title="MME",
    licence="research only, pictures from the authors (unverified)",
    citation="Fu et al., MME, 2023, arxiv.org/abs/2306.13394",
    sources=(
        tsv("MME.tsv", "b36b43c3f09801f5d368627fb92187c3", COUNTS, _question, "category"),
        hub("lmms-lab/MME", "test", COUNTS, _question, ("question_id", "question", "answer", "category")),
    ),
    metrics=(
        Metric("overall", _points(PERCEPTION + COGNITION, MOST), 75 * 14 / MOST),
        Metric("perception", _points(PERCEPTION), 750),
        Metric("cognition", _points(COGNITION), 300),
        *(Metric(f"category/{name}", _points((name,)), 75) for name in PERCEPTION + COGNITION),
    ),
    kinds={"yes_no": "yes_no"},
    rules={**YES_NO, LMMS_EVAL: _lmms_eval, OFFICIAL: lambda item: _said(item, item.raw.lower())},
    vlmevalkit="MME",
    wording=Wording(smolvlm="brief"),
)
