"""Filling a model with the tensors of a checkpoint: every one of them, and nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import GenerationConfig
from transformers.utils import logging

from blindspot.errors import UserError
from blindspot.model.formats.weights import Tensors, listed


def fill(model_class: Any, config: Any, tensors: Tensors, folder: Path, dtype: Any = "auto") -> Any:
    """A model of ``config`` with exactly ``tensors``, ready to answer.

    Args:
        model_class: a transformers class.
        config: its configuration.
        tensors: under the names that transformers knows, today's or an earlier version's.
        folder: where they come from; its ``generation_config.json`` is read too.
        dtype: as transformers': "auto" takes the config's, and without one that of the tensors.

    Raises:
        UserError: if a tensor is missing, unexpected or of another shape.
    """
    with quietly():
        model, info = model_class.from_pretrained(
            None,
            config=config,
            state_dict=dict(tensors),
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check` refuses them, in words
        )
        check(info)
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    model.config.name_or_path = str(folder)
    return model.eval()


def check(info: dict[str, Any]) -> None:
    """Refuse a model that transformers could not fill exactly.

    Args:
        info: what ``from_pretrained(output_loading_info=True, ignore_mismatched_sizes=True)`` reports.

    Raises:
        UserError: naming the first five tensors, and how many there are.
    """
    shapes = {name: (held, wanted) for name, held, wanted in info["mismatched_keys"]}
    for name, (held, wanted) in shapes.items():
        if name.endswith("multi_modal_projector.linear_1.weight") and held[0] == wanted[0]:
            raise UserError(
                f"its connector reads features of width {held[1]}, and its image encoder gives {wanted[1]} ({name}); "
                "they do not belong together"
            )
    if shapes:
        words = [f"{name} ({_shape(held)}, not {_shape(wanted)})" for name, (held, wanted) in shapes.items()]
        raise UserError(f"its weights have other shapes than its config says: {listed(words)}")
    if info["missing_keys"]:
        raise UserError(f"it lacks weights: {listed(info['missing_keys'])}; copy or train it anew")
    if info["unexpected_keys"]:
        raise UserError(f"it has weights that its config has no place for: {listed(info['unexpected_keys'])}")
    if info["error_msgs"]:
        raise UserError(str(info["error_msgs"][0]))


def _shape(size: Any) -> str:
    return " x ".join(map(str, size))


@contextmanager
def quietly() -> Iterator[None]:
    """Keep transformers' reports off the terminal while it loads: what matters in them becomes an error."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()
