"""CountBenchQA: how many of a thing are in a picture from the web, two to ten.

Of the original, whose pictures are links and in part dead, rows without a picture are left out. The caption states
the count, so it is read into no question.

Groups: ``number`` (the gold count), ``cluster`` (the picture).

The rule ``official`` is the PaliGemma evaluator of the questions' authors: a number word becomes digits, then equality.
Of lmms-eval's two tasks ``countbench`` is scored; ``countbenchqa`` shows the model a caption that states the count.
"""

from collections.abc import Sequence
from pathlib import Path

from blindspot.benchmarks.base import Benchmark, Metric, Row, Source, Table, Term, Wording, by
from blindspot.benchmarks.rules import LMMS_EVAL, OFFICIAL, VLMEVALKIT, Item, Scored, count
from blindspot.benchmarks.sources.forms import hub, pictures_below, read_rows, tsv, with_pictures
from blindspot.errors import UserError
from blindspot.question import Question

ROWS, ASKED = "CountBench.json", "countbench_paired_questions.json"
NUMBERS = range(2, 11)


def _original(paths: Sequence[Path]) -> Table:
    counts, asked = read_rows(paths[0]), read_rows(paths[0].parent / ASKED)
    if len(counts) != len(asked):
        raise UserError(f"{paths[0]}: {len(counts)} rows, but {ASKED} has {len(asked)}; they belong together")
    of_row = {Path(name).stem: name for name in pictures_below(paths[0].parent / "images")}
    rows = [
        {"index": number, "question": question.get("question"), "number": count.get("number")}
        for number, (count, question) in enumerate(zip(counts, asked, strict=True))
        if str(number) in of_row
    ]
    if not rows:
        raise UserError(
            f"{paths[0]}: no pictures in images/; expected is one file a row, named by its number from 0 "
            "(images/0.jpg), fetched from its image_url"
        )
    return with_pictures(paths[0], rows, lambda row: f"images/{of_row[str(row['index'])]}", "fetch them again")


def _question(row: Row) -> Question:
    number = str(row.whole("answer", "number"))
    groups = {"number": number, "cluster": row.cluster}
    identifier = row.find("index") or str(row.number - 1)
    return Question(identifier, "countbenchqa", "count", row.text("question"), number, (), row.images, groups)


def _vlmevalkit(item: Item) -> Scored:
    answer = item.raw.strip()
    return Scored(answer, float(item.gold in item.raw), bool(answer))


COUNTBENCHQA = Benchmark(
    name="countbenchqa",
    title="CountBenchQA",
    licence="not stated (pictures from the web)",
    citation="Paiss et al., Teaching CLIP to Count to Ten, ICCV 2023; questions: Beyer et al., PaliGemma, 2024",
    sources=(
        tsv("CountBenchQA.tsv", "fc73c8d4ffa665431448753f094d56ff", {"questions": 487}, _question),
        hub("vikhyatk/CountBenchQA", "test", {"questions": 491}, _question, ("question", "number")),
        Source(
            "original",
            _original,
            _question,
            counts={"questions": 540},
            marks=(ROWS,),
            page=f"{ROWS} of teaching-clip-to-count.github.io and {ASKED} of google-research/big_vision; "
            "pictures from their links as images/ROW.jpg, rows counted from 0",
        ),
    ),
    metrics=(Metric("overall", (Term(),), 1 / len(NUMBERS)), *by("number", map(str, NUMBERS), 1 / len(NUMBERS))),
    kinds={"count": "count", "count_substring": "count"},
    rules={**dict.fromkeys(VLMEVALKIT, _vlmevalkit), LMMS_EVAL: count, OFFICIAL: count},
    vlmevalkit="CountBenchQA",
    wording=Wording(suffix=" Note that: answer with a number directly e.g. 3. Do not include any additional text."),
)
