"""NLVR: human-written sentences, true or false of a picture of three boxes of shapes.

The benchmark is the public test split, one question a picture; `load` reads the three splits for studies. Its own
script reads a classifier: for the rule ``official`` the first word must be true or yes, false or no.

Groups: ``set`` (a sentence with one set of boxes, in up to six orders), ``cluster`` (a sentence), ``permutation``.
"""

import os
import re
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from blindspot import files
from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term
from blindspot.benchmarks.rules import OFFICIAL, YES_NO, true_or_false
from blindspot.benchmarks.sources.forms import with_pictures
from blindspot.errors import UserError, objection
from blindspot.question import Question

if TYPE_CHECKING:
    import numpy as np

SPLITS = ("train", "dev", "test")
ASKED = 'Is the following statement true of the image? "{sentence}" Please answer yes or no.'

_EXPECTED = (
    "expected are train, dev and test, each as SPLIT/SPLIT.json with SPLIT/images/ as in the nlvr/ folder of "
    "github.com/lil-lab/nlvr, or as SPLIT.jsonl with one picture a row; clone that repository and name its nlvr/ folder"
)


class Split(NamedTuple):
    """One split: its questions, and the pictures that ``Question.images`` index."""

    name: str
    questions: tuple[Question, ...]
    images: tuple[Path, ...]


class Nlvr(NamedTuple):
    """The three public splits."""

    train: Split
    dev: Split
    test: Split


def _inside(name: str) -> str:
    if not files.inside(name):
        raise ValueError("the picture lies outside of the folder")
    return name


class _Row(BaseModel):
    model_config = ConfigDict(strict=True)

    sentence: Annotated[str, Field(pattern=r"\S")]
    label: Literal["true", "false"]
    identifier: Annotated[str, Field(pattern=r"^\d+-\d+$")]


class _ExampleRow(_Row):
    """A row of the official files: one example, whose six pictures differ in the order of the boxes."""

    directory: Annotated[str, Field(pattern=r"^\w+$")]


class _PictureRow(_Row):
    """A row of the flat files: one picture, named relative to the folder."""

    image: Annotated[str, Field(min_length=1), AfterValidator(_inside)]
    permutation: Annotated[int, Field(ge=0, le=5)]


def load(folder: Path) -> Nlvr:
    """Read the three splits; pictures are checked to exist but not opened.

    A question asks whether its sentence holds: kind ``choice``, answers ``true`` and ``false``, benchmark
    ``nlvr_<split>``. Its groups are ``split``, ``sentence`` (as written), ``example`` (``n-m``: a sentence with one
    set of boxes), ``permutation`` (0-5, the order of the boxes) and ``cluster`` (``n``: one sentence with its up to
    four sets of boxes in all their orders; these are not independent).

    Of a row that is malformed the file and the line are named.
    """
    return Nlvr(*(_load_split(folder, name) for name in SPLITS))


def _load_split(folder: Path, name: str) -> Split:
    source = _rows_file(folder, name)
    questions: dict[str, Question] = {}
    images: list[Path] = []
    for number, held in enumerate(files.read_jsonl(source), start=1):
        place = f"{source}:{number}"
        try:
            row = (_PictureRow if isinstance(held, dict) and "image" in held else _ExampleRow).model_validate(held)
        except ValidationError as error:
            raise UserError(f"{place}: not an NLVR row, {objection(error, 'row')}; {_EXPECTED}") from error
        own = f"{name}-{row.identifier}"
        if isinstance(row, _PictureRow):
            pictures = {row.permutation: folder / row.image}
        else:
            pictures = {k: folder / name / "images" / row.directory / f"{own}-{k}.png" for k in range(6)}
        for permutation, image in pictures.items():
            key = f"{own}-{permutation}"
            if key in questions:
                raise UserError(f"{place}: {key} occurs a second time; remove one of the two rows")
            if not os.path.isfile(image):  # Path.is_file raises for names too long
                raise UserError(f"{place}: its picture {image} is missing; {_EXPECTED}")
            groups = {
                "cluster": row.identifier.partition("-")[0],
                "split": name,
                "sentence": row.sentence,
                "example": row.identifier,
                "permutation": permutation,
            }
            prompt, choices = normalise(row.sentence), ("true", "false")
            questions[key] = Question(key, f"nlvr_{name}", "choice", prompt, row.label, choices, (len(images),), groups)
            images.append(image)
    if not questions:
        raise UserError(f"{source} holds no rows; {_EXPECTED}")
    files.refuse_links_out(images, folder)
    return Split(name, tuple(questions.values()), tuple(images))


def _rows_file(folder: Path, split: str) -> Path:
    if not folder.is_dir():
        raise UserError(f"no NLVR folder at {folder}; {_EXPECTED}")
    for path in (folder / split / f"{split}.json", folder / f"{split}.jsonl"):
        if path.is_file():
            return path
    raise UserError(f"no rows of the {split} split of NLVR in {folder}; {_EXPECTED}")


def boxes(path: Path, size: int) -> "np.ndarray":
    """The three boxes of a picture, left to right.

    The picture is a PNG of 400 x 100 pixels: three boxes of 100 x 100 with grey gaps of 50 pixels between them.
    Resizing averages over areas, which keeps every box free of its neighbourhood.

    Args:
        size: side of each returned box, in pixels.

    Returns:
        uint8 array of shape (3, size, size, 3), RGB.
    """
    import numpy as np
    from PIL import Image

    broken = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
    try:
        with Image.open(path, formats=files.PICTURE_FORMATS) as opened:
            if opened.size != (400, 100):
                width, height = opened.size
                raise UserError(f"{path}: {width} x {height} pixels, but an NLVR picture has 400 x 100")
            picture = opened.convert("RGB")
    except broken as error:
        raise UserError(
            f"cannot read the picture {path} ({error}); copy it again from github.com/lil-lab/nlvr"
        ) from error
    pixels = np.asarray(picture)
    for gap in (100, 250):
        if (pixels[:, gap : gap + 50] != 128).any():
            raise UserError(f"{path}: no grey gap at x = {gap} to {gap + 50}, so not an NLVR picture of three boxes")
    sides, by_area = (size, size), Image.Resampling.BOX
    crops = [picture.resize(sides, by_area, box=(left, 0, left + 100, 100)) for left in (0, 150, 300)]
    return np.stack([np.asarray(crop) for crop in crops])


def majority(split: Split) -> float:
    """Share of the more frequent label, 0 to 1: what one fixed answer scores."""
    return max(Counter(question.answer for question in split.questions).values()) / len(split.questions)


def normalise(sentence: str) -> str:
    """Lower case, with every punctuation mark a word of its own."""
    return " ".join(re.findall(r"\w+|[^\w\s]", sentence.lower()))


def fingerprint(folder: Path) -> str:
    """Hex SHA-256 over the bytes of the row files and the names and bytes of all pictures."""
    rows = {name: files.sha256_file(_rows_file(folder, name)) for name in SPLITS}
    pictures = {path.relative_to(folder).as_posix(): files.sha256_file(path) for path in folder.rglob("*.png")}
    return files.fingerprint({"rows": rows, "pictures": pictures})


def _table(paths: Sequence[Path]) -> Table:
    path = paths[0]
    test = _load_split(path.parent.parent if path.name == "test.json" else path.parent, "test")
    rows = [
        {"id": read.id, "label": read.answer, **read.groups, "image": image.relative_to(path.parent).as_posix()}
        for read, image in zip(test.questions, test.images, strict=True)
    ]
    return with_pictures(path, rows, lambda row: row["image"], "get the folder again")


def _question(row: Row) -> Question:
    groups = {"set": row.text("example"), "cluster": row.text("cluster"), "permutation": row.text("permutation")}
    prompt = ASKED.format(sentence=row.text("sentence"))
    return Question(row.text("id"), "nlvr", "yes_no", prompt, row.yes_no("label"), ("Yes", "No"), row.images, groups)


NLVR = Benchmark(
    name="nlvr",
    title="NLVR test",
    licence="CC-BY-4.0",
    citation="Suhr et al., A Corpus of Natural Language for Visual Reasoning, ACL 2017",
    sources=(
        Source(
            "original",
            _table,
            _question,
            counts={"questions": 5940, "sets": 990},
            marks=("test/test.json", "test.jsonl"),
            page="git clone https://github.com/lil-lab/nlvr, folder nlvr/",
        ),
    ),
    metrics=(Metric("overall", (Term(),), 0.5), Metric("all_orders", (Term(unit="set"),), None)),
    kinds={"yes_no": "yes_no"},
    rules={**YES_NO, OFFICIAL: true_or_false},
    vlmevalkit="NLVR",
)
