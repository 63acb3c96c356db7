"""PaliGemma and PaliGemma 2: a picture and a task, no chat."""

from collections.abc import Sequence
from typing import Any

from PIL import Image
from transformers import BatchFeature

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.families.base import Family, by_processor, mark
from blindspot.evaluation.prompts.marks import harmless


def _template(processor: Any, prompt: Prompt) -> str:
    """The pictures and the text behind them; the processor adds ``<bos>`` between and a line break at the end."""
    token = mark(processor)
    words = "".join(piece for piece in prompt.content if piece != PICTURE)
    return token * prompt.content.count(PICTURE) + (prompt.system or "") + harmless(words, token)


def _encode(
    family: Family, processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]
) -> BatchFeature:
    if not all(pictures):
        raise UserError("PaliGemma cannot be asked without a picture; show it a grey one instead")
    inputs = by_processor(family, processor, texts, pictures)
    inputs.pop("labels", None)
    return inputs


FAMILY = Family(
    name="paligemma",
    title="PaliGemma 2",
    model_types=("paligemma",),
    checkpoints=("google/paligemma2-3b-mix-448", "google/paligemma2-10b-mix-448", "google/paligemma-3b-mix-448"),
    names=r"\bpaligemma",
    dtype="bfloat16",
    boxes="paligemma-loc",
    box_prompt="detect {phrase}",
    prompts="paligemma",
    shares_prefix=False,
    nested=True,
    template=_template,
    encode=_encode,
)
