"""Image encoders as checkpoints of their own: the ones that LLaVA's ``mm_vision_tower`` names."""

import re
from pathlib import Path
from typing import Any, NamedTuple

from transformers import Aimv2VisionConfig, AutoConfig, AutoImageProcessor
from transformers.image_processing_utils import BaseImageProcessor

from blindspot.encoders import detect, native_grid
from blindspot.errors import UserError, explained
from blindspot.model.formats.folder import BACKEND, Tensors, cached, quietly, read_json, read_tensors

UNUSED = ("head.", "embeddings.position_ids")  # pooling heads; a buffer that old CLIP checkpoints hold

APPLE = (
    (r"preprocessor\.patchifier\.proj\.", "embeddings.patch_embed."),
    (r"preprocessor\.patchifier\.norm\.", "embeddings.rms_norm."),
    (r"preprocessor\.pos_embed$", "embeddings.position_embedding.weight"),
    (r"trunk\.blocks\.(\d+)\.norm_1\.", r"encoder.layers.\1.rms_norm1."),
    (r"trunk\.blocks\.(\d+)\.norm_2\.", r"encoder.layers.\1.rms_norm2."),
    (r"trunk\.blocks\.(\d+)\.attn\.proj\.", r"encoder.layers.\1.attention.out_proj."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc1\.", r"encoder.layers.\1.ffn.gate_proj."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc2\.", r"encoder.layers.\1.ffn.down_proj."),
    (r"trunk\.blocks\.(\d+)\.mlp\.fc3\.", r"encoder.layers.\1.ffn.up_proj."),
    (r"trunk\.post_trunk_norm\.", "rms_norm."),
)
"""Names of AIMv2 towers in Apple's first release, before transformers had the model."""

APPLE_JOINT = re.compile(r"trunk\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")


class Tower(NamedTuple):
    """An image encoder: its configuration, and its tensors under the names of its transformers class."""

    config: Any
    tensors: Tensors


def find_tower(name: str, checkpoint: Path) -> Path:
    """The folder of the tower that a LLaVA config names: a path, one inside the checkpoint, or a cached id.

    It is not downloaded.
    """
    for folder in (Path(name), checkpoint / name):
        if (folder / "config.json").is_file():
            return folder
    held = cached(name)
    if held is not None and (held / "config.json").is_file():
        return held
    raise UserError(
        f"its config.json names the image encoder {name} (mm_vision_tower), which is no folder here and not in the "
        f"local cache; get it with: hf download {name}"
    )


def read_tower(folder: Path, inside: Tensors) -> Tower:
    """The tower in ``folder``, with the tensors ``inside`` the LLaVA checkpoint instead of its own if there are any.

    Of these it has what LLaVA uses: no text encoder beside it, and no pooling head.
    """
    with explained(f"its image encoder, in {folder}", UserError):
        tensors = inside or read_tensors(folder)
        values = read_json(folder / "config.json")
    start = "vision_model."
    if any(name.startswith(start) for name in tensors):
        tensors = {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}
    if any(name.startswith(("preprocessor.patchifier.", "trunk.blocks.")) for name in tensors):
        tensors = _renamed_from_apple(tensors)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNUSED)}
    if values.get("model_type") == "aimv2" and "vision_config" not in values:  # Apple's first release
        sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels")
        more = ("image_size", "patch_size", "rms_norm_eps", "attention_dropout", "qkv_bias")
        config: Any = Aimv2VisionConfig(
            **{key: values[key] for key in (*sizes, *more) if key in values},
            mlp_bias=values.get("use_bias", False),
            is_native="embeddings.position_embedding.weight" not in tensors,
            use_head=False,
        )
    else:
        try:
            whole = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # what a damaged config makes transformers raise has no common base
            raise UserError(f"cannot read the image encoder's {folder / 'config.json'}: {error}") from error
        config = getattr(whole, "vision_config", whole)
        for key in ("vision_use_head", "use_head"):
            if hasattr(config, key):
                setattr(config, key, False)
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


def _renamed_from_apple(tensors: Tensors) -> Tensors:
    """The same tower under transformers' names. Queries, keys and values, stored as one tensor, become three."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        joint = APPLE_JOINT.fullmatch(name)
        if joint:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.layers.{joint[1]}.attention.{part}_proj.{joint[2]}"] = piece
            continue
        for pattern, new in APPLE:
            name = re.sub(f"^{pattern}", new, name)
        renamed[name] = tensor[0] if name == "embeddings.position_embedding.weight" and tensor.ndim == 3 else tensor
    return renamed
