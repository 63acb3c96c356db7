"""Opening a model for diagnosis."""

from pathlib import Path

from blindspot.diagnostics.core.subject import Subject
from blindspot.evaluation.families import family_of
from blindspot.model.load import load


def open_subject(model: Path | str, device: str | None = None, dtype: str = "auto") -> Subject:
    """The model of a folder or a Hugging Face id, ready to be diagnosed.

    Args:
        model: any that `blindspot.load` opens.
        device: where it runs; by default where it was loaded.
        dtype: of its weights.

    Raises:
        UserError: if it cannot be opened, or its parts cannot be told apart.
    """
    opened, processor = load(model, dtype=dtype)
    if device is not None:
        opened = opened.to(device)
    return Subject(opened, processor, family_of(opened.config))
