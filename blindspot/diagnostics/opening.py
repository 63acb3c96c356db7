"""Opening a model for diagnosis."""

from pathlib import Path

import torch

from blindspot.diagnostics.core.subject import Subject
from blindspot.errors import UserError
from blindspot.evaluation.adapters import adapter_of
from blindspot.model.load import load


def open_subject(model: Path | str, device: str = "cpu") -> Subject:
    """The model of a folder or a Hugging Face id, ready to be diagnosed.

    Args:
        model: any that `blindspot.load` opens.
        device: where it runs; ``auto`` is a GPU if there is one.

    Raises:
        UserError: if it cannot be opened, its parts cannot be told apart, or it does not fit on the device.
    """
    opened, processor = load(model)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        opened = opened.to(device)
    except (RuntimeError, AssertionError) as error:  # the latter of a torch without CUDA
        raise UserError(f"cannot use device {device}: {str(error).splitlines()[0]}") from error
    return Subject(opened, processor, adapter_of(opened.config.model_type))
