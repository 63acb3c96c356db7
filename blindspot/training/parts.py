"""Parts of a variant: which of them train, and the files in which a stage leaves them for the next.

A trained connector is a file of its own, for stage 2 of any variant whose parts around it have the same widths.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from blindspot.errors import UserError
from blindspot.files import parse_json, write_via
from blindspot.model.config import BlindspotConfig, Parts

CONNECTOR = "connector.safetensors"
OTHERS = {
    "vision_tower": ("encoder.safetensors", ("model.vision_tower.",)),
    "language_model": ("language_model.safetensors", ("model.language_model.", "lm_head.")),
}
"""File and names of tensors of each part besides the connector."""
_CONNECTS = ("model.multi_modal_projector.", "model.image_newline")
"""Tensors of the connector, and the token of row breaks."""


def freeze(model: Any, parts: Sequence[str]) -> None:
    """Stop parts from training, of ``vision_tower``, ``multi_modal_projector`` and ``language_model`` (with its head).

    A position table that rotary positions replaced is frozen already.
    """
    for part in parts:
        getattr(model.model, part).requires_grad_(False)
    if "language_model" in parts:
        model.lm_head.requires_grad_(False)


def save_weights(module: nn.Module, path: Path, without: Sequence[str] = ()) -> None:
    """Write a module's weights as safetensors, atomically; those of the parts named ``without`` are left out."""
    _write({name: one for name, one in module.state_dict().items() if name.split(".")[0] not in without}, path)


def load_weights(module: nn.Module, path: Path, without: Sequence[str] = ()) -> None:
    """Read what `save_weights` wrote; every key must fit."""
    kept = {name: tensor for name, tensor in module.state_dict().items() if name.split(".")[0] in without}
    module.load_state_dict({**kept, **load_file(path)})


def save_parts(state: Mapping[str, Tensor], config: BlindspotConfig, trained: Collection[str], folder: Path) -> None:
    """Write the parts that trained, in the precision that they trained in; the connector last: where it is, all are.

    ``state`` are the variant's weights; parts are named as in `freeze`, and the connector is written in any case.
    """
    for part, (name, prefixes) in OTHERS.items():
        if part in trained:
            _write({key: tensor for key, tensor in state.items() if key.startswith(prefixes)}, folder / name)
    connector = {key.removeprefix("model."): tensor for key, tensor in state.items() if key.startswith(_CONNECTS)}
    _write(connector, folder / CONNECTOR, {"blindspot_connector": json.dumps(_facts(config))})


def load_parts(variant: Any, connector: Path, alone: bool = False) -> None:
    """Put what `save_parts` wrote into a variant: the connector, and what lies beside it unless it is asked ``alone``.

    A file that is damaged, no connector, or of other parts or widths than the variant's is a `UserError`.
    """
    weights, metadata = _read(connector, "the connector ")
    if "blindspot_connector" not in metadata:
        raise UserError(f"{connector} is no connector of stage 1; name its {CONNECTOR}")
    theirs, ours = parse_json(metadata["blindspot_connector"]), _facts(variant.config)
    for name, value in ours.items():
        if theirs.get(name) != value:
            raise UserError(
                f"{connector} cannot be used here: its {name} is {theirs.get(name)}, the model's is {value}"
            )
    weights = {f"model.{name}": tensor for name, tensor in weights.items()}
    expected = {name for name, _ in variant.named_parameters() if name.startswith(_CONNECTS)}
    if set(weights) != expected:
        odd = ", ".join(name.removeprefix("model.") for name in sorted(set(weights) ^ expected))
        raise UserError(f"{connector} does not have the weights of this connector: {odd}")
    variant.load_state_dict(weights, strict=False)
    for name, prefixes in () if alone else OTHERS.values():
        path = connector.parent / name
        if not path.exists():
            continue
        weights, _ = _read(path)
        shapes = {key: tensor.shape for key, tensor in variant.state_dict().items() if key.startswith(prefixes)}
        found = {key: tensor.shape for key, tensor in weights.items()}
        odd = sorted(key for key in shapes | found if shapes.get(key) != found.get(key))
        if odd:
            raise UserError(f"{path} does not have the weights of this model: {', '.join(odd[:5])}")
        variant.load_state_dict(weights, strict=False, assign=True)


def _write(state: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    whole = {name: tensor.contiguous() for name, tensor in state.items()}
    write_via(path, lambda temporary: save_file(whole, temporary, metadata=metadata))


def _read(path: Path, what: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {what}{path}: {error}") from error


def _facts(config: BlindspotConfig) -> dict[str, Any]:
    """What two variants must agree in to share a connector. Which tower it was trained on is up to the user."""
    parts = Parts(config)
    return {
        "connector": parts.connector.to_dict(),
        "width of the encoder": config.vision_config.hidden_size,  # pyright: ignore
        "width of the language model": config.text_config.hidden_size,  # pyright: ignore
        "row breaks": parts.language_positions.scheme == "row_break",
    }
