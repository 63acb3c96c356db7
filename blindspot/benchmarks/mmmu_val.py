"""MMMU, its validation split: questions of university courses in thirty subjects, some with several pictures.

``<image 1>`` and the like stay in the texts; pictures are in the order of their numbers. Open questions are of kind
``text``; an answer that is a list of accepted ones stays written as a list.

Groups: ``subject``, ``discipline``, ``question_type`` (multiple-choice, open), ``cluster``.
"""

from typing import Any

from blindspot.benchmarks.base import Benchmark, Metric, Term
from blindspot.benchmarks.forms import cells, hub, tsv
from blindspot.benchmarks.forms.table import Row, slug
from blindspot.question import Question

SUBJECTS = {
    "art_and_design": ("Art", "Art_Theory", "Design", "Music"),
    "business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "health_and_medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "humanities_and_social_science": ("History", "Literature", "Psychology", "Sociology"),
    "tech_and_engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}
RANDOM_CHOICE = 0.221
"""What the authors report for random choice on the validation split."""

_DISCIPLINE = {slug(subject): discipline for discipline, subjects in SUBJECTS.items() for subject in subjects}
_IMAGES = tuple(f"image_{number}" for number in range(1, 8))


def _from_tsv(row: Row) -> Question:
    identifier = row.find("id") or row.text("index")
    options = cells.lettered(row) if row.find("A") else ()
    return _question(row, identifier, row.text("category"), options)


def _from_hub(row: Row) -> Question:
    identifier = row.text("id")  # validation_SUBJECT_NUMBER
    subject = identifier.partition("_")[2].rpartition("_")[0]
    multiple = row.text("question_type") == "multiple-choice"
    return _question(row, identifier, subject, tuple(cells.strings(row, "options")) if multiple else ())


def _question(row: Row, identifier: str, subject: str, options: tuple[str, ...]) -> Question:
    groups: dict[str, Any] = {
        "subject": slug(subject),
        "discipline": _DISCIPLINE.get(slug(subject), "other"),
        "question_type": "multiple-choice" if options else "open",
        "cluster": cells.cluster(row),
    }
    prompt = cells.asked(row)
    if not options:
        return Question(identifier, "mmmu_val", "text", prompt, row.text("answer"), (), row.images, groups)
    return Question(identifier, "mmmu_val", "mcq", prompt, cells.letter(row, "answer"), options, row.images, groups)


COUNTS = {"questions": 900} | {
    f"discipline={discipline}": 30 * len(subjects) for discipline, subjects in SUBJECTS.items()
}

MMMU_VAL = Benchmark(
    name="mmmu_val",
    title="MMMU validation",
    licence="Apache-2.0 (the data set's card)",
    citation="Yue et al., MMMU, CVPR 2024, arxiv.org/abs/2311.16502",
    sources=(
        tsv.source(
            "MMMU_DEV_VAL.tsv",
            "585e8ad75e73f75dcad265dfd0417d64",
            COUNTS,
            _from_tsv,
            "split",
            "category",
            keep=lambda row: row.text("split") == "validation",
        ),
        hub.source(
            "MMMU/MMMU",
            "validation",
            COUNTS,
            _from_hub,
            ("id", "question", "options", "answer", "question_type"),
            images=_IMAGES,
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), RANDOM_CHOICE),
        *(Metric(f"discipline/{name}", (Term({"discipline": name}),), None) for name in SUBJECTS),
        *(Metric(f"subject/{name}", (Term({"subject": name}),), None) for name in sorted(_DISCIPLINE)),
    ),
)
