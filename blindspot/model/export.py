"""Write a model in the format that another program reads."""

from collections.abc import Callable
from pathlib import Path

from transformers import LlavaProcessor

from blindspot.errors import UserError
from blindspot.files import new_folder
from blindspot.model.config import specialities
from blindspot.model.formats import blindspot, llava_hf, llava_writer
from blindspot.model.load import load
from blindspot.model.variant import BlindspotForConditionalGeneration

Write = Callable[[BlindspotForConditionalGeneration, LlavaProcessor, Path], None]

FORMATS: dict[str, Write] = {
    "llava-hf": llava_hf.write,
    "llava": llava_writer.write,
    "blindspot": blindspot.write,
}
NEEDS_PLAIN = ("llava-hf", "llava")


def export(model_path: Path | str, out: Path, form: str) -> None:
    """Write the model at ``model_path`` to the new folder ``out``, whole or not at all.

    Args:
        model_path: whatever `load` opens.
        out: must not exist.
        form: a key of `FORMATS`. ``llava-hf``: transformers opens it without Blindspot, and gives the same logits bit
            for bit; ``llava``: the original LLaVA's layout; ``blindspot``: this program's own.

    Raises:
        UserError: if the format cannot express the model (with everything that it cannot), ``out`` exists or cannot be
            written, or the model cannot be opened.
    """
    if form not in FORMATS:
        raise UserError(f"unknown format {form!r}; known are {', '.join(FORMATS)}")
    if out.exists():
        raise UserError(f"{out} exists; name a new folder")
    model, processor = load(model_path)
    if not isinstance(model, BlindspotForConditionalGeneration):
        kind = model.config.model_type
        raise UserError(f"{model_path} is a {kind} model as transformers has it; only Llava-like ones are exported")
    special = specialities(model.config) if form in NEEDS_PLAIN else []
    if special:
        raise UserError(
            f"{model_path} cannot become a {form} checkpoint, because Llava has no {' and no '.join(special)}; "
            "export it with --format blindspot"
        )
    with new_folder(out, "free the disk or name another folder") as folder:
        FORMATS[form](model, processor, folder)
