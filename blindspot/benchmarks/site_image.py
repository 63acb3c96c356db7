"""SITE-Bench, its questions about pictures: counting, depth, places, views and motion from thirty older benchmarks.

Groups: ``category`` (six), ``source`` (the data set that a question is from), ``options`` (how many), ``cluster`` (the
pictures).

Questions have two to many options, so its score is the accuracy above chance (CAA): 0 is what guessing gives. Where
pictures stand in question and options, ``<image>``, they are shown there.
"""

import re
from itertools import count

from blindspot.benchmarks.base import Benchmark, Metric, Row, Term, Wording, by, slug
from blindspot.benchmarks.rules import EASI, LATER, LMMS_EVAL, OFFICIAL, Item, Scored
from blindspot.benchmarks.sources.forms import original, tsv
from blindspot.benchmarks.words import best_answer
from blindspot.question import Question

CATEGORIES = (
    "3d_information_understanding",
    "counting_existence",
    "movement_prediction_navigation",
    "multi_view_cross_image_reasoning",
    "object_localization_positioning",
    "spatial_relationship_reasoning",
)


def question(row: Row) -> Question:
    options = row.lettered() if "index" in row.cells and "A" in row.cells else tuple(row.strings("options"))
    groups = {"options": str(len(options)), "cluster": row.cluster}
    for group, column in {"category": "category", "source": "dataset"}.items():
        if label := row.find(column):
            groups[group] = slug(label.replace("&", " ").replace("-", " "))
    number = count(1)
    asked, *options = (
        re.sub("<image>", lambda mark: f"<image {next(number)}>", text) for text in (row.asked, *options)
    )
    identifier = row.find("index") or str(row.number)
    return Question(identifier, "site_image", "mcq", asked, row.letter("answer"), tuple(options), row.images, groups)


def _official(item: Item) -> Scored:
    text = f" {item.raw.strip()} "
    for forms in (("({})",), (" {} ",), ("{}.",), ("{}:", ":{}", ": {}")):
        found = [letter for letter in item.choices if any(form.format(letter) in text for form in forms)]
        if found:
            letter = max(found, key=lambda each: text.rfind(f" {each} ")) if len(found) > 1 else found[0]
            return Scored(letter, float(letter == item.gold), True)
    return Scored(None, 0.0, False, guess=1 / len(item.choices))


SITE_IMAGE = Benchmark(
    name="site_image",
    title="SITE-Bench images",
    licence="not stated",
    citation="Wang et al., SITE, ICCV 2025, arxiv.org/abs/2505.05456",
    sources=(
        tsv("SiteBenchImage.tsv", "59a2ada248b743c1d7b2f89dd5afcdc3", {}, question, easi=True),
        original(
            question,
            lambda row: row.get("visual"),
            "unpack the pictures of huggingface.co/datasets/franky-veteran/SITE-Bench beside it",
            repository="franky-veteran/SITE-Bench",
            marks=("image_test.json", "image_test.jsonl", "**/image_test.json"),
        ),
    ),
    metrics=(
        Metric("overall", (Term(value="above_chance"),), 0.0),
        Metric("accuracy", (Term(),), None),
        *by("category", CATEGORIES, 0.0, value="above_chance"),
    ),
    kinds={"mcq": "mcq"},
    rules={**EASI, **dict.fromkeys((LMMS_EVAL, OFFICIAL), _official)},
    vlmevalkit="SiteBenchImage",
    wording=Wording(lettered=True, named_pictures=True),
    prompts=dict.fromkeys((OFFICIAL, LATER, LMMS_EVAL), best_answer),
)
