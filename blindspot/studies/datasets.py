"""Training data in LLaVA's format: what a set holds, which files it needs, and where they come from.

Rows: scripts and JSON of LLaVA-1.5. Tokens of text are estimates of the mean row; ``blindspot data check`` counts
them.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, PlainSerializer, model_validator

from blindspot.studies.axes import Count, Section, known, refuse


@dataclass(frozen=True)
class Source:
    """One download.

    Attributes:
        paths: what it leaves in the data folder.
        size: bytes, about.
        commands: shell commands that put it there; ``{data}`` stands for the data folder.
    """

    paths: tuple[str, ...]
    size: float
    commands: tuple[str, ...]


class DataSet(Section):
    """A LLaVA JSON and its images.

    Attributes:
        file: the JSON, in the data folder or absolute.
        images: folder that the rows' ``image`` starts from, likewise.
        rows: samples.
        with_image: samples that have an image.
        text_tokens: mean tokens of a sample without its image, template included.
        supervised_tokens: how many of them are answers, which alone reach the head.
    """

    file: Annotated[str, Field(min_length=1)]
    images: str = "."
    rows: Count | None = None
    with_image: Annotated[int, Field(ge=0)] | None = None
    text_tokens: Count | None = None
    supervised_tokens: Count | None = None

    @model_validator(mode="after")
    def _parts_are_no_larger_than_the_whole(self) -> Self:
        for part, whole in (("with_image", "rows"), ("supervised_tokens", "text_tokens")):
            few, many = getattr(self, part), getattr(self, whole)
            if few is not None and many is not None and few > many:
                raise refuse(f"{part} {few}: more than there are {whole} ({many})")
        return self

    @property
    def name(self) -> str:
        """Of a published set; empty for one's own."""
        return next((name for name, published in DATA_SETS.items() if published == self), "")


DATA_SETS = {
    "llava-pretrain": DataSet(
        file="LLaVA-Pretrain/blip_laion_cc_sbu_558k.json",
        images="LLaVA-Pretrain/images",
        rows=558_128,
        with_image=558_128,
        text_tokens=31,
        supervised_tokens=30,
    ),
    "llava-mix665k": DataSet(
        file="llava_v1_5_mix665k.json",
        images=".",
        rows=665_298,
        with_image=624_610,  # the others are ShareGPT's, text only
        text_tokens=300,
        supervised_tokens=160,  # 30 % of a row with its image, the middle of an estimate of 20-40 %
    ),
}
"""The sets of LLaVA-1.5, laid out as its README has them under ``playground/data``."""

_UNZIP = "unzip -q {data}/{file} -d {data}/{into}"


def _zip(url: str, into: str) -> tuple[str, ...]:
    file = f"{into.replace('/', '_')}_{url.rsplit('/', 1)[1]}"
    fetch = "curl -L -C - --create-dirs -o {data}/" + file + " " + url
    return fetch, _UNZIP.replace("{file}", file).replace("{into}", into)


SOURCES: dict[str, tuple[Source, ...]] = {
    "llava-pretrain": (
        Source(
            ("LLaVA-Pretrain/blip_laion_cc_sbu_558k.json", "LLaVA-Pretrain/images"),
            27.6e9,
            (
                "hf download liuhaotian/LLaVA-Pretrain --repo-type dataset --local-dir {data}/LLaVA-Pretrain",
                _UNZIP.replace("{file}", "LLaVA-Pretrain/images.zip").replace("{into}", "LLaVA-Pretrain/images"),
            ),
        ),
    ),
    "llava-mix665k": (
        Source(
            ("llava_v1_5_mix665k.json",),
            1.03e9,
            (
                "hf download liuhaotian/LLaVA-Instruct-150K llava_v1_5_mix665k.json --repo-type dataset "
                "--local-dir {data}",
            ),
        ),
        Source(("coco/train2017",), 19e9, _zip("http://images.cocodataset.org/zips/train2017.zip", "coco")),
        Source(("gqa/images",), 22e9, _zip("https://downloads.cs.stanford.edu/nlp/data/gqa/images.zip", "gqa")),
        Source(
            ("ocr_vqa/images",),
            16e9,
            # LLaVA's own download script no longer finds every cover (LLaVA issue 1618, pull request 1458).
            ("hf download ej2/llava-ocr-vqa --repo-type dataset --local-dir {data}/ocr_vqa  # then unpack to images/",),
        ),
        Source(
            ("textvqa/train_images",),
            7e9,
            _zip("https://dl.fbaipublicfiles.com/textvqa/images/train_val_images.zip", "textvqa"),
        ),
        Source(
            ("vg/VG_100K", "vg/VG_100K_2"),
            15e9,
            (
                *_zip("https://cs.stanford.edu/people/rak248/VG_100K_2/images.zip", "vg"),
                *_zip("https://cs.stanford.edu/people/rak248/VG_100K_2/images2.zip", "vg"),
            ),
        ),
    ),
}
"""Downloads of each published set. The five image folders of mix665k are 80 GB together; the split is rough."""


def sources(data: DataSet) -> tuple[Source, ...]:
    """What must lie in the data folder for a set."""
    return SOURCES[data.name] if data.name else (Source((data.file, data.images), 0, ()),)


def _parse(value: Any) -> Any:
    return value if isinstance(value, dict | DataSet) else DATA_SETS[known(value, DATA_SETS)]


def _plain(data: DataSet) -> Any:
    return data.name or data.model_dump(exclude_none=True)


LlavaData = Annotated[DataSet, BeforeValidator(_parse), PlainSerializer(_plain)]
