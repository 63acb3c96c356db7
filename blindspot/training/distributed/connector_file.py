"""A trained connector as a file of its own, for stage 2 of any variant whose parts around it have the same widths."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from blindspot.errors import UserError
from blindspot.files import parse_json, write_via
from blindspot.model.config import BlindspotConfig, Parts

CONNECTOR = "connector.safetensors"
_PREFIX, _BREAK = "multi_modal_projector.", "image_newline"


def save_connector(state: dict[str, Tensor], config: BlindspotConfig, path: Path) -> None:
    """Write the connector's weights, and the token of row breaks where there is one.

    Args:
        state: weights of the variant by their names in it.
        config: the variant's.
        path: a safetensors file.
    """
    own = {name.removeprefix("model."): tensor.contiguous() for name, tensor in state.items()}
    kept = {name: tensor for name, tensor in own.items() if name.startswith(_PREFIX) or name == _BREAK}
    facts = {"blindspot_connector": json.dumps(_facts(config))}
    write_via(path, lambda temporary: save_file(kept, temporary, metadata=facts))


def load_connector(variant: Any, path: Path) -> None:
    """Put the weights that `save_connector` wrote into a variant.

    Raises:
        UserError: if the file is none of these, or of another connector or other widths than the variant's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read the connector {path}: {error}") from error
    if "blindspot_connector" not in metadata:
        raise UserError(f"{path} is no connector of stage 1; name its {CONNECTOR}")
    theirs, ours = parse_json(metadata["blindspot_connector"]), _facts(variant.config)
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise UserError(f"{path} cannot be used here: its {name} is {theirs.get(name)}, the model's is {value}")
    expected = {name for name, _ in variant.model.named_parameters() if name.startswith(_PREFIX) or name == _BREAK}
    if set(weights) != expected:
        odd = ", ".join(sorted(set(weights) ^ expected))
        raise UserError(f"{path} does not have the weights of this connector: {odd}")
    variant.model.load_state_dict(weights, strict=False)


def _facts(config: BlindspotConfig) -> dict[str, Any]:
    """What two variants must agree in to share a connector. Which tower it was trained on is up to the user."""
    parts = Parts(config)
    return {
        "connector": parts.connector.to_dict(),
        "width of the encoder": config.vision_config.hidden_size,  # pyright: ignore
        "width of the language model": config.text_config.hidden_size,  # pyright: ignore
        "row breaks": parts.language_positions.scheme == "row_break",
    }
