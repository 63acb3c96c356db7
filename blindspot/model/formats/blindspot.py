"""Blindspot's own format: transformers', with ``model_type: blindspot`` and a config that holds the whole variant."""

from pathlib import Path
from typing import Any

from transformers import LlavaProcessor

from blindspot.model.config import BlindspotConfig
from blindspot.model.formats.strict import fill, quietly
from blindspot.model.formats.weights import Tensors
from blindspot.model.variant import BlindspotForConditionalGeneration


def read(folder: Path, tensors: Tensors, dtype: Any = "auto") -> BlindspotForConditionalGeneration:
    """The variant, exactly as it was saved.

    Raises:
        ValueError: if the config leaves out a part of the variant.
        UserError: if a part is wrong, or a tensor is missing, unexpected or of another shape.
    """
    config = BlindspotConfig.from_pretrained(folder, local_files_only=True)
    return fill(BlindspotForConditionalGeneration, config, tensors, folder, dtype)


def write(model: BlindspotForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write any variant."""
    with quietly():
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
