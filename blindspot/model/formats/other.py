"""Any other checkpoint that transformers opens as a model of images and text."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

from blindspot.errors import UserError
from blindspot.model.formats.strict import check, quietly


def read(folder: Path, values: dict[str, Any], dtype: Any = "auto", trust_remote_code: bool = False) -> Any:
    """The model as transformers has it.

    Args:
        folder: the checkpoint.
        values: its config.
        dtype: as transformers'.
        trust_remote_code: whether to run code that the folder holds.

    Raises:
        UserError: if transformers has no such model, or a tensor is missing, unexpected or of another shape.
    """
    kind = values.get("model_type")
    own_code = "auto_map" in values
    if kind not in KNOWN and not (own_code and trust_remote_code):
        hint = "; it brings code of its own, which only runs with trust_remote_code" if own_code else ""
        raise UserError(
            f"unknown model_type {kind!r}: no format of Blindspot, no image-text model of transformers{hint}"
        )
    where: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    with quietly():
        config = AutoConfig.from_pretrained(folder, **where)
        opened: Any = _auto_class(values).from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # `check` refuses them, in words
            **where,
        )
    model, info = opened
    check(info)
    return model.eval()


def _auto_class(values: dict[str, Any]) -> Any:
    """Under which name a checkpoint offers its model: code of its own, as Molmo's, may know one of them only."""
    own = values.get("auto_map", {})
    causal = "AutoModelForCausalLM" in own and "AutoModelForImageTextToText" not in own
    return AutoModelForCausalLM if causal and values.get("model_type") not in KNOWN else AutoModelForImageTextToText
