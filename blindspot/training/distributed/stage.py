"""One stage: rows in LLaVA's form, a variant, and the loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from blindspot.errors import UserError
from blindspot.model import conversation
from blindspot.model.chat_template import from_chat_template
from blindspot.model.formats.llava_original import padded
from blindspot.training.data import LlavaRows, index_rows
from blindspot.training.distributed.config import TrainConfig
from blindspot.training.distributed.llava import LlavaSamples, Template
from blindspot.training.distributed.loop import train
from blindspot.training.distributed.ranks import Ranks
from blindspot.training.loop import Report


@dataclass(frozen=True)
class Material:
    """What a stage trains on, and how rows become samples.

    Attributes:
        json: rows in LLaVA's form.
        images: the folder that their paths are relative to.
        index: the folder for the indexed rows, on a disk that all ranks see.
        template: ``plain``, ``v1``, or ``chat`` for the tokenizer's own.
        max_length: longest sample in tokens, pictures counted.
        pad: whether a picture is first padded to a square with the mean colour.
    """

    json: Path
    images: Path
    index: Path
    template: str
    max_length: int
    pad: bool


def train_stage(
    config: TrainConfig,
    variant: Any,
    processor: Any,
    material: Material,
    out: Path,
    ranks: Ranks,
    report: Report,
    facts: Mapping[str, Any],
) -> dict[str, Tensor]:
    """Train a variant on the material; all ranks call this.

    Its processor becomes the one that fits what it has learned: it pads pictures if they were padded, and writes
    conversations in the template.

    Args:
        config: how.
        variant: see `loop.train`.
        processor: the variant's.
        material: on what.
        out: folder of the run.
        ranks: the processes.
        report: told of every step, on the first rank.
        facts: see `loop.train`; bytes of the rows, template and length are added.

    Returns:
        The weights, on the first rank.

    Raises:
        UserError: as `index_rows` and `loop.train`, or if a longest sample does not fit a pack.
    """
    refuse_long(config, material.max_length)
    template = _template(material.template, processor.tokenizer)
    problem = None
    if ranks.first:
        try:
            index_rows(material.json, material.index)
        except UserError as error:
            problem = str(error)
    if problem := ranks.from_first(problem):
        raise UserError(problem)
    if material.pad:
        processor.image_processor = padded(processor.image_processor)
    if material.template in conversation.CHAT_TEMPLATES:
        processor.chat_template = processor.tokenizer.chat_template = conversation.CHAT_TEMPLATES[material.template]
    rows = LlavaRows(material.index, material.images)
    samples = LlavaSamples(rows, processor, template, material.max_length)
    own = {"rows": rows.source.sha256, "template": material.template, "max_length": material.max_length}
    return train(config, variant, samples, out, report, {**own, **facts})


def refuse_long(config: TrainConfig, max_length: int) -> None:
    """Refuse a longest sample that does not fit a pack."""
    if config.batching == "packed" and max_length > config.pack_tokens:
        raise UserError(f"a sample of max_length {max_length} does not fit a pack of pack_tokens {config.pack_tokens}")


def _template(name: str, tokenizer: Any) -> Template:
    if name == "plain":
        return conversation.plain
    if name == "v1":
        return partial(conversation.v1, end=tokenizer.eos_token)
    if name == "chat":
        return partial(from_chat_template, tokenizer=tokenizer)
    raise UserError(f"unknown template {name!r}; it is plain, v1 or chat")
