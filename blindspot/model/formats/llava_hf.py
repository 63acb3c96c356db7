"""transformers' Llava format, as in llava-hf/llava-1.5-7b-hf."""

from pathlib import Path
from typing import Any

from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

from blindspot.errors import UserError
from blindspot.model.config import Parts, from_llava_config
from blindspot.model.formats.strict import fill, quietly
from blindspot.model.formats.weights import Tensors
from blindspot.model.variant import BlindspotForConditionalGeneration, save


def read(folder: Path, tensors: Tensors, dtype: Any = "auto") -> Any:
    """The variant that computes the same, or transformers' own model where no variant does (Pixtral's tower, say).

    The names are transformers' own of three generations, which it maps itself. Rows of the embedding beyond the
    tokenizer's last token are kept.

    Raises:
        UserError: if a tensor is missing, unexpected or of another shape.
    """
    config = LlavaConfig.from_pretrained(folder, local_files_only=True)
    variant = from_llava_config(config)
    try:
        Parts(variant)
    except UserError:
        return fill(LlavaForConditionalGeneration, config, tensors, folder, dtype)
    return fill(BlindspotForConditionalGeneration, variant, tensors, folder, dtype)


def write(model: BlindspotForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a plain variant so that transformers opens it alone."""
    with quietly():
        save(model, folder)
        processor.save_pretrained(folder)
