"""What a benchmark is: rows of a published form become questions, and scores of questions become numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from blindspot.benchmarks.forms.collect import Collection, collected
from blindspot.benchmarks.forms.table import Images, Row, Table
from blindspot.benchmarks.rules.common import Rule
from blindspot.question import Question

__all__ = ["Benchmark", "Collection", "Images", "Metric", "Source", "Term", "Wording"]


@dataclass(frozen=True)
class Term:
    """A mean over units of a benchmark.

    Attributes:
        where: labels that a question must carry in its ``groups``; empty: all questions.
        unit: ``question``, or ``set``: questions of one ``groups["set"]``, right only if all of them are.
        weight: of the mean in its metric.
        value: which number of a scored question: ``score``, or ``partial`` (partial match).
    """

    where: Mapping[str, str] = field(default_factory=dict)
    unit: Literal["question", "set"] = "question"
    weight: float = 1.0
    value: Literal["score", "partial"] = "score"


@dataclass(frozen=True)
class Metric:
    """A number of a benchmark: a weighted sum of means.

    Attributes:
        name: as in the paper's tables where it is there (``overall``, ``coco``, ``choose``).
        terms: summed.
        chance: what guessing gives, on the same scale; None where there is no such thing.
        scale: the factor by which the paper prints it (100 for per cent).
    """

    name: str
    terms: tuple[Term, ...]
    chance: float | None
    scale: float = 1.0


@dataclass(frozen=True)
class Source:
    """A form of a benchmark: where it can be had, and how it is read.

    Attributes:
        form: ``tsv``, ``hub`` or ``original``.
        table: from the files that the marks found to their rows.
        question: from a row to a question.
        repository: Hugging Face data set, or None.
        files: paths inside the repository (``*`` matches), or URLs; empty: all of it.
        md5: of single files, by path, where published.
        counts: numbers in it as published: ``questions``, ``images``, ``sets``, and of questions with a label,
            e.g. ``complexity=simple``.
        marks: patterns of paths in a folder; one that matches says that the folder holds this form.
        page: where a person finds what cannot be downloaded by itself, and how to lay it out.
        links: pictures that lie elsewhere: from the folder of the form to their URLs by relative path.
        notes: what is known to be wrong with this form.
    """

    form: str
    table: Callable[[Sequence[Path]], Table]
    question: Callable[[Row], Question]
    repository: str | None = None
    files: tuple[str, ...] = ()
    md5: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    page: str = ""
    links: Callable[[Path], Mapping[str, str]] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wording:
    """What harnesses say around the questions of a benchmark: VLMEvalKit's words are of September 2025, the study's.

    Attributes:
        lettered: VLMEvalKit has it as multiple choice, its questions without options included.
        suffix: VLMEvalKit's data set puts this behind the question.
        listed: VLMEvalKit's data set sends CV-Bench's own text: the question, this, and a line "(A) ..." per option.
        named_pictures: the text names its pictures, ``<image 1>``, and VLMEvalKit's data set puts them there.
        smolvlm: which of the SmolVLM adapter's templates it gets.
    """

    lettered: bool = False
    suffix: str = ""
    listed: str | None = None
    named_pictures: bool = False
    smolvlm: Literal["default", "brief", "letter", "mmbench", "mmmu"] = "default"


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    Attributes:
        name: its name here and in the paper's results (``mmvp``, ``cvbench_2d``, ...).
        title: as people write it.
        licence: of the data.
        citation: one line: authors, title, year, link.
        sources: forms, the one to prefer first.
        metrics: the paper's columns first.
        kinds: of the rows of answers files, by the kind that rules see.
        rules: from a raw answer to its score, by scoring profile; what is not here is not defined in that harness.
        headlines: the metric that a profile's harness calls the score, where it is not ``overall``.
        vlmevalkit: its name in VLMEvalKit.
        wording: what harnesses say around its questions.
    """

    name: str
    title: str
    licence: str
    citation: str
    sources: tuple[Source, ...]
    metrics: tuple[Metric, ...]
    kinds: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, Rule] = field(default_factory=dict)
    headlines: Mapping[str, str] = field(default_factory=dict)
    vlmevalkit: str = ""
    wording: Wording = Wording()

    def headline(self, profile: str) -> str:
        """The metric that a profile's harness calls the score."""
        return self.headlines.get(profile, "overall")

    @property
    def set_size(self) -> int | None:
        """How many questions a set has, if the published counts say so."""
        sizes = {divmod(one.counts["questions"], one.counts["sets"]) for one in self.sources if "sets" in one.counts}
        return next((size for size, rest in sizes if len(sizes) == 1 and not rest), None)

    def read(self, path: Path) -> Collection:
        """Read the form that lies at a path, a folder or a file.

        Raises:
            UserError: as `collected`.
        """
        return collected(self, path)
