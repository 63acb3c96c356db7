"""What'sUp, A: one object on, under, left or right of another; B: left, right, in front or behind. Four photographs a
pair of objects.

Groups: ``part`` (a, b), ``relation``, ``pair`` (the two pictures of opposite relations), ``set`` and ``cluster`` (the
four pictures of the objects).

Its authors ask which of four captions a model finds likeliest, the first of equally likely ones: the rule
``likelihood``, of answers to ``evaluate --likelihood``, for which there are no words. The question and the rule
``official`` are those of AdaptVis, for what a model says: right if it says the relation, as part of a word too.
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, Wording
from blindspot.benchmarks.rules import LIKELIHOOD, OFFICIAL, Item, Scored
from blindspot.benchmarks.sources.forms import read_rows, with_pictures
from blindspot.question import Question

FILES = {"controlled_images_dataset.json": "a", "controlled_clevr_dataset.json": "b"}
OPTIONS = {"a": ("left", "right", "on", "under"), "b": ("left", "right", "front", "behind")}
COUNTS = {"questions": 820, "part=a": 412, "part=b": 408}
_AXIS = {"on": "vertical", "under": "vertical", "front": "depth", "behind": "depth"}
_CAPTION = re.compile(
    r"(?:an? photo of )?an? (.+?) (?:to the |on the |at the |in |at )?"
    r"(on top|on|under|left|right|front|behind|above|below|top|bottom)(?: of)?(?: (?:an?|the) (.+))?",
    re.IGNORECASE,
)


def read_caption(caption: str) -> tuple[str, str, str] | None:
    """An object, the relation that it is in, and to what: nothing where it is somewhere in the picture."""
    match = _CAPTION.fullmatch(caption.strip().rstrip("."))
    if match is None:
        return None
    first, relation, second = match.groups()
    return first, relation.lower().removesuffix(" top"), second or ""


def _table(paths: Sequence[Path], blind: bool = False) -> Table:
    """The rows of both files, with the part that each is of."""
    rows = [{**row, "part": FILES[path.name]} for path in paths if path.name in FILES for row in read_rows(path)]
    where = "they are in the authors' Google Drive"
    return with_pictures(paths[0], rows, lambda row: row.get("image_path"), where, blind)


def _question(row: Row) -> Question:
    part, caption = row.text("part"), row.strings("caption_options")[0]
    read = read_caption(caption)
    if read is None or not read[2]:
        raise row.error(f"the caption {caption[:60]!r} names no relation of two objects")
    first, relation, second = read
    if relation not in OPTIONS[part]:
        raise row.error(f"the caption {caption[:60]!r} says none of {', '.join(OPTIONS[part])}")
    own = f"{part}-{first}-{second}".lower()
    groups = {"part": part, "relation": relation, "pair": f"{own}-{_AXIS.get(relation, 'sideways')}"}
    groups |= {"set": own, "cluster": own}
    listed = f"{', '.join(OPTIONS[part][:-1])} or {OPTIONS[part][-1]}"
    prompt = f"Where is the {first} in relation to the {second}? Answer with {listed}."
    captions = tuple(row.strings("caption_options"))
    return Question(str(row.number), "whatsup", "text", prompt, relation.capitalize(), captions, row.images, groups)


def _said_relation(item: Item) -> Scored:
    said, gold = item.raw.strip().lower(), item.gold.lower()
    right = gold in said and not (gold == "on" and "front" in said)
    return Scored(said, float(right), bool(said))


def _likeliest_caption(item: Item) -> Scored:
    """Whether the caption that is likeliest, the first of equally likely ones, tells the relation."""
    likelihood = item.likelihood or {}
    read = read_caption(max(likelihood, key=likelihood.__getitem__))
    return Scored(read[1] if read else None, float(read is not None and read[1] == item.gold.lower()), read is not None)


WHATSUP = Benchmark(
    name="whatsup",
    title="What'sUp",
    licence="MIT",
    citation='Kamath et al., What\'s "up" with vision-language models?, EMNLP 2023, arxiv.org/abs/2310.19785',
    sources=(
        Source(
            "original",
            _table,
            _question,
            counts=COUNTS,
            marks=("controlled_*_dataset.json", "*/controlled_*_dataset.json"),
            page="controlled_images and controlled_clevr of github.com/amitakamath/whatsup_vlms, unpacked",
            blind=partial(_table, blind=True),
        ),
    ),
    metrics=(
        Metric("overall", (Term(),), 0.25),
        Metric("pair", (Term(unit="pair"),), 0.25**2),
        Metric("set", (Term(unit="set"),), 0.25**4),
        *(
            metric
            for part in OPTIONS
            for metric in (
                Metric(f"part/{part}", (Term({"part": part}),), 0.25),
                Metric(f"part/{part}_pair", (Term({"part": part}, "pair"),), 0.25**2),
            )
        ),
    ),
    kinds={"text": "text", "contains": "text"},
    rules={OFFICIAL: _said_relation, LIKELIHOOD: _likeliest_caption},
    wording=Wording(captions=True),
    prompts={OFFICIAL: lambda question: question.prompt},
)
