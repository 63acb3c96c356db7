"""What stage 1 leaves for stage 2: each part that it trained, in the precision that it was trained in."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from blindspot.errors import UserError
from blindspot.files import write_via
from blindspot.model.config import BlindspotConfig
from blindspot.training.distributed.connector_file import CONNECTOR, load_connector, save_connector

OTHERS = {
    "vision_tower": ("encoder.safetensors", ("model.vision_tower.",)),
    "language_model": ("language_model.safetensors", ("model.language_model.", "lm_head.")),
}
"""File and names of tensors of each part besides the connector."""


def save_parts(state: dict[str, Tensor], config: BlindspotConfig, trained: Collection[str], folder: Path) -> Path:
    """Write the parts that trained, the connector last: where it is, all are.

    Args:
        state: weights of the variant.
        config: the variant's.
        trained: names of parts as `TrainConfig.frozen` has them.
        folder: of the run.

    Returns:
        The connector's file.
    """
    for part, (name, prefixes) in OTHERS.items():
        if part in trained:
            kept = {key: tensor.contiguous() for key, tensor in state.items() if key.startswith(prefixes)}
            write_via(folder / name, lambda temporary, kept=kept: save_file(kept, temporary))
    save_connector(state, config, folder / CONNECTOR)
    return folder / CONNECTOR


def load_parts(variant: Any, connector: Path) -> None:
    """Put what `save_parts` wrote into a variant: the connector, and what lies beside it.

    Raises:
        UserError: if a file is damaged or of another variant.
    """
    load_connector(variant, connector)
    for name, prefixes in OTHERS.values():
        path = connector.parent / name
        if path.exists():
            _load(variant, path, prefixes)


def _load(variant: Any, path: Path, prefixes: tuple[str, ...]) -> None:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    ours = {name: tensor for name, tensor in variant.state_dict().items() if name.startswith(prefixes)}
    odd = [
        name for name in ours.keys() | weights.keys()
        if name not in ours or name not in weights or ours[name].shape != weights[name].shape
    ]  # fmt: skip
    if odd:
        raise UserError(f"{path} does not have the weights of this model: {', '.join(sorted(odd)[:5])}")
    variant.load_state_dict(weights, strict=False, assign=True)
