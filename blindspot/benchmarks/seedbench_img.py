"""SEED-Bench, its pictures: nine dimensions of understanding, one picture and four options a question.

Groups: ``dimension``, ``cluster`` (the picture).

Its script ranks the likelihoods of options (profile ``likelihood``); the rule ``official`` is LLaVA's for text, the
letter and no more. In lmms-eval it is one task over images and videos, whose rule is applied to the images.
"""

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.rules import LMMS_EVAL, MCQ, OFFICIAL, Item, Scored
from blindspot.benchmarks.sources.forms import hub, original, tsv
from blindspot.question import Question

_DIMENSIONS = (
    "scene_understanding instance_identity instance_location instance_attributes instances_counting spatial_relation "
    "instance_interaction visual_reasoning text_understanding"
)
DIMENSIONS = tuple(_DIMENSIONS.split())
"""By ``question_type_id`` from 1. Versions of the authors' files disagree about 3 and 4; that 3 is the location says
issue 28 of AILab-CVC/SEED-Bench."""

COUNTS = {"questions": 14233, "dimension=instance_location": 978, "dimension=instance_attributes": 4649}
"""With those of two dimensions, so that it is noted if a file exchanges them after all."""

_CHOICES = ("choice_a", "choice_b", "choice_c", "choice_d")
_COLUMNS = ("question_id", "question", "answer", "question_type_id", *_CHOICES)


def _question(row: Row) -> Question:
    if "index" in row.cells:  # VLMEvalKit's TSV
        identifier, options, dimension = row.text("index"), row.lettered(), slug(row.text("category"))
    else:
        number = row.whole("question_type_id")
        if not 1 <= number <= len(DIMENSIONS):
            raise row.error(f"question_type_id {number} is of no picture dimension (1 to {len(DIMENSIONS)})")
        identifier, options, dimension = row.text("question_id"), tuple(map(row.text, _CHOICES)), DIMENSIONS[number - 1]
    groups, gold = {"dimension": dimension, "cluster": row.cluster}, row.letter("answer")
    return Question(identifier, "seedbench_img", "mcq", row.asked, gold, options, row.images, groups)


def _lmms_eval(item: Item) -> Scored:
    character = item.raw.strip()[:1]
    letter = character.lower().strip()
    return Scored(character, float(letter == item.gold.lower()), character.upper() in item.choices)


def _official(item: Item) -> Scored:
    answer = item.raw.strip()
    return Scored(answer, float(answer == item.gold), answer in item.choices)


SEEDBENCH_IMG = Benchmark(
    name="seedbench_img",
    title="SEED-Bench images",
    licence="CC-BY-NC-4.0 (the data set's card; the repository says Apache-2.0)",
    citation="Li et al., SEED-Bench, CVPR 2024, arxiv.org/abs/2307.16125",
    sources=(
        tsv("SEEDBench_IMG.tsv", "68017231464752261a2526d6ca3a10c0", {"questions": 14232}, _question, "category"),
        hub(
            "lmms-lab/SEED-Bench",
            "test",
            COUNTS,
            _question,
            (*_COLUMNS, "data_type"),
            keep=lambda row: row["data_type"] == "image",
        ),
        original(
            _question,
            lambda row: row.get("data_id"),
            "unpack SEED-Bench-image.zip of huggingface.co/datasets/AILab-CVC/SEED-Bench beside it",
            lambda value: [row for row in value["questions"] if row.get("data_type") == "image"],
            repository="AILab-CVC/SEED-Bench",
            counts=COUNTS,
            marks=("SEED-Bench.json",),
            page="SEED-Bench-image.zip of huggingface.co/datasets/AILab-CVC/SEED-Bench, unpacked",
        ),
    ),
    metrics=(Metric("overall", (Term(),), 0.25), *by("dimension", DIMENSIONS, 0.25)),
    kinds={"mcq": "mcq"},
    rules={**MCQ, LMMS_EVAL: _lmms_eval, OFFICIAL: _official},
    vlmevalkit="SEEDBench_IMG",
    wording=Wording(lettered=True, smolvlm="letter"),
)
