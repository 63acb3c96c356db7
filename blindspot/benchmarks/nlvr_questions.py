"""NLVR as a benchmark: its public test split, one question a picture. `blindspot.benchmarks.nlvr` reads the files."""

from dataclasses import replace
from pathlib import Path

from blindspot.benchmarks import nlvr
from blindspot.benchmarks.base import Benchmark, Collection, Metric, Source, Term
from blindspot.benchmarks.forms.collect import different
from blindspot.benchmarks.forms.original import FileImages
from blindspot.question import Question

ASKED = 'Is the following statement true of the image? "{sentence}" Please answer yes or no.'


def read(path: Path) -> Collection:
    """Read the test split of an ``nlvr/`` folder.

    Groups: ``set`` (a sentence with one set of boxes, in up to six orders), ``cluster`` (a sentence), ``permutation``.

    Raises:
        UserError: as `blindspot.benchmarks.nlvr.load`.
    """
    folder = path / "original" if (path / "original").is_dir() else path
    test = nlvr.load(folder).test
    questions = tuple(_question(question) for question in test.questions)
    notes = tuple(different(NLVR.sources[0], questions, len(test.images)))
    return Collection(NLVR, "original", questions, FileImages(test.images), notes, nlvr.fingerprint(folder))


def _question(read: Question) -> Question:
    return replace(
        read,
        benchmark="nlvr",
        kind="yes_no",
        prompt=ASKED.format(sentence=read.groups["sentence"]),
        answer="Yes" if read.answer == "true" else "No",
        choices=("Yes", "No"),
        groups={
            "set": read.groups["example"],
            "cluster": read.groups["cluster"],
            "permutation": str(read.groups["permutation"]),
        },
    )


NLVR = Benchmark(
    name="nlvr",
    title="NLVR test",
    vlmevalkit="",
    licence="CC-BY-4.0",
    citation="Suhr et al., A Corpus of Natural Language for Visual Reasoning, ACL 2017",
    sources=(
        Source(
            "original",
            marks=("test/test.json", "test.jsonl"),
            page="git clone https://github.com/lil-lab/nlvr, folder nlvr/",
        ),
    ),
    metrics=(Metric("overall", (Term(),), 0.5), Metric("all_orders", (Term(unit="set"),), None)),
    read=read,
)
