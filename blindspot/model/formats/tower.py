"""Image encoders as checkpoints of their own: the ones that LLaVA's ``mm_vision_tower`` names."""

from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoImageProcessor, PreTrainedConfig
from transformers.image_processing_utils import BaseImageProcessor

from blindspot.encoders import detect, native_grid
from blindspot.errors import UserError
from blindspot.model.formats import aimv2_original
from blindspot.model.formats.folder import BACKEND, cached, read_json
from blindspot.model.formats.strict import quietly
from blindspot.model.formats.weights import Tensors, read_tensors

UNUSED = ("head.", "embeddings.position_ids")  # pooling heads; a buffer that old CLIP checkpoints hold


class Tower(NamedTuple):
    """An image encoder: its configuration, and its tensors under the names of its transformers class."""

    config: PreTrainedConfig
    tensors: Tensors


def find_tower(name: str, checkpoint: Path) -> Path:
    """The folder of the tower that a LLaVA config names: a path, one inside the checkpoint, or a cached id.

    Raises:
        UserError: if it is none of these. It is not downloaded.
    """
    for folder in (Path(name), checkpoint / name):
        if (folder / "config.json").is_file():
            return folder
    folder = cached(name)
    if folder is None or not (folder / "config.json").is_file():
        raise UserError(
            f"its config.json names the image encoder {name} (mm_vision_tower), which is no folder here and not in the "
            f"local cache; get it with: hf download {name}"
        )
    return folder


def read_tower(folder: Path, inside: Tensors) -> Tower:
    """The tower in ``folder``, with the tensors ``inside`` the LLaVA checkpoint instead of its own if there are any.

    Raises:
        UserError: if the folder holds no image encoder that Blindspot knows.
    """
    try:
        tensors = _of_the_tower(inside or read_tensors(folder))
        values = read_json(folder / "config.json")
    except UserError as error:
        raise UserError(f"its image encoder, in {folder}: {error}") from error
    if values.get("model_type") == "aimv2" and "vision_config" not in values:  # Apple's first release
        config: Any = aimv2_original.vision_config(values, tensors)
    else:
        config = _vision_config(folder)
    detect(config)
    return Tower(config, tensors)


def image_processor(folder: Path, config: Any) -> BaseImageProcessor:
    """How the tower's pictures are prepared: as its folder says, or else as its family does."""
    if (folder / "preprocessor_config.json").is_file():
        with quietly():
            return AutoImageProcessor.from_pretrained(
                folder, backend=BACKEND, local_files_only=True, trust_remote_code=False
            )
    return detect(config).image_processor(native_grid(config)[0] * config.patch_size, config.patch_size)


def _vision_config(folder: Path) -> Any:
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # what a damaged config makes transformers raise has no common base
        raise UserError(f"cannot read the image encoder's {folder / 'config.json'}: {error}") from error
    vision: Any = getattr(config, "vision_config", config)
    for key in ("vision_use_head", "use_head"):
        if hasattr(vision, key):
            setattr(vision, key, False)
    return vision


def _of_the_tower(tensors: Tensors) -> Tensors:
    """The tensors that LLaVA uses: without a text encoder beside it, and without a pooling head."""
    if any(name.startswith("vision_model.") for name in tensors):
        start = "vision_model."
        tensors = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    if aimv2_original.is_original(tensors):
        tensors = aimv2_original.rename(tensors)
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
