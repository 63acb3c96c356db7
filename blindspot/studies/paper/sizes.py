"""How large encoders and language models are, without torch: the released ones by name, any other by its config.json.

A test holds the encoders against `blindspot.encoders`, whose catalogue imports torch and takes seconds.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blindspot.errors import UserError
from blindspot.studies.nearest import suggest


@dataclass(frozen=True)
class EncoderSize:
    """An image encoder that takes square images.

    Attributes:
        family: of `blindspot.encoders.ENCODERS`.
        width: channels of a token.
        layers: blocks.
        mlp: hidden channels of the MLP, of each branch where it is ``gated``.
        patch: side of a patch in pixels.
        image: side in pixels of the images that its own preprocessing makes.
        prefix: tokens before the patches (CLS, registers).
        download: bytes of the weights on the hub; 0 if unknown. Of CLIP and SigLIP the text tower comes with them.
        gated: whether the MLP has two branches.
    """

    family: str
    width: int
    layers: int
    mlp: int
    patch: int
    image: int
    prefix: int = 0
    download: float = 0
    gated: bool = False

    @property
    def block(self) -> int:
        """Parameters of one block's linear maps."""
        return 4 * self.width**2 + (3 if self.gated else 2) * self.width * self.mlp

    @property
    def parameters(self) -> int:
        """Those of the blocks' and the patches' linear maps; norms, biases and the position table are under 1 %."""
        return self.layers * self.block + 3 * self.patch**2 * self.width

    def grid(self, image: int) -> tuple[int, int]:
        """Rows and columns of patches of an image; what is left over at the right and the bottom is not seen."""
        return image // self.patch, image // self.patch


@dataclass(frozen=True)
class LanguageSize:
    """A Llama-like decoder.

    Attributes:
        width: channels of a token.
        layers: blocks.
        mlp: hidden channels of each SwiGLU branch.
        query: channels of all query heads.
        key: channels of all key heads, as many as those of the values.
        vocabulary: rows of the head.
        tied: whether the head shares its weights with the embeddings.
        download: bytes of the weights on the hub; 0 if unknown.
    """

    width: int
    layers: int
    mlp: int
    query: int
    key: int
    vocabulary: int
    tied: bool = False
    download: float = 0

    @property
    def block(self) -> int:
        """Parameters of one block's linear maps."""
        return self.width * (2 * self.query + 2 * self.key + 3 * self.mlp)

    @property
    def blocks(self) -> int:
        """Parameters of all blocks' linear maps."""
        return self.layers * self.block

    @property
    def head(self) -> int:
        """Parameters of the head."""
        return self.width * self.vocabulary

    @property
    def parameters(self) -> int:
        """Blocks, embeddings and head; norms are under 0.01 %."""
        return self.blocks + self.head * (1 if self.tied else 2)


_BASE = EncoderSize("", 768, 12, 3072, 16, 256)
_LARGE = EncoderSize("", 1024, 24, 4096, 16, 256)
_SO400M = EncoderSize("", 1152, 27, 4304, 16, 256)
_AIMV2 = EncoderSize("aimv2", 1024, 24, 2816, 14, 224, gated=True, download=1.24e9)
_CLIP = replace(_LARGE, family="clip", patch=14, image=224, prefix=1, download=1.71e9)
_DINO = replace(_LARGE, family="dinov2", patch=14, image=224, prefix=1, download=1.22e9)

ENCODERS: dict[str, EncoderSize] = {
    "openai/clip-vit-large-patch14-336": replace(_CLIP, image=336),
    "openai/clip-vit-large-patch14": _CLIP,
    "google/siglip-base-patch16-256": replace(_BASE, family="siglip", download=0.81e9),
    "google/siglip-large-patch16-256": replace(_LARGE, family="siglip", download=2.61e9),
    "google/siglip-so400m-patch14-384": replace(_SO400M, family="siglip", patch=14, image=384, download=3.51e9),
    "google/siglip2-base-patch16-256": replace(_BASE, family="siglip2", download=1.50e9),
    "google/siglip2-large-patch16-256": replace(_LARGE, family="siglip2", download=3.53e9),
    "google/siglip2-so400m-patch16-256": replace(_SO400M, family="siglip2", download=4.54e9),
    "apple/aimv2-large-patch14-224": _AIMV2,
    "apple/aimv2-large-patch14-336": replace(_AIMV2, image=336),
    "apple/aimv2-large-patch14-448": replace(_AIMV2, image=448),
    "facebook/dinov2-large": _DINO,
    "facebook/dinov2-with-registers-large": replace(_DINO, prefix=5),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": replace(_DINO, family="dinov3", patch=16, prefix=5),
}
"""Released checkpoints with square images; downloads are fp32: 4 bytes a parameter, text tower included."""

LANGUAGE_MODELS: dict[str, LanguageSize] = {
    "lmsys/vicuna-7b-v1.5": LanguageSize(4096, 32, 11008, 4096, 4096, 32000, download=13.48e9),
    "lmsys/vicuna-13b-v1.5": LanguageSize(5120, 40, 13824, 5120, 5120, 32000, download=26.03e9),
}

_FAMILIES = {
    "clip": "clip",
    "siglip": "siglip",
    "aimv2": "aimv2",
    "dinov2": "dinov2",
    "dinov2_with_registers": "dinov2",
    "dinov3_vit": "dinov3",
}
"""By transformers' ``model_type``, without ``_vision_model``."""


def encoder_size(name: str) -> EncoderSize:
    """Size of an image encoder.

    Args:
        name: a key of `ENCODERS`, a folder with a config.json, or a Hugging Face id that is in the cache.

    Raises:
        UserError: if it is none of these, or no encoder of square images.
    """
    if name in ENCODERS:
        return ENCODERS[name]
    values = _config(name, "encoder", ENCODERS)
    values = values.get("vision_config", values)
    kind = re.sub("_vision_model$", "", str(values.get("model_type")))
    if kind not in _FAMILIES or values.get("is_native"):
        raise UserError(f'encoder "{name}": no encoder of square images that Blindspot knows ({kind})')
    cls = kind in ("clip", "dinov2", "dinov2_with_registers", "dinov3_vit")
    gated = kind == "aimv2" or bool(values.get("use_swiglu_ffn") or values.get("use_gated_mlp"))
    return EncoderSize(
        _FAMILIES[kind],
        _number(values, name, "hidden_size"),
        _number(values, name, "num_hidden_layers"),
        int(values.get("intermediate_size") or values["hidden_size"] * values.get("mlp_ratio", 4)),
        _number(values, name, "patch_size"),
        _number(values, name, "image_size"),
        cls + int(values.get("num_register_tokens", 0)),
        gated=gated,
    )


def language_size(name: str) -> LanguageSize:
    """Size of a language model.

    Args:
        name: a key of `LANGUAGE_MODELS`, a folder with a config.json, or a Hugging Face id that is in the cache.

    Raises:
        UserError: if it is none of these, or its config lacks a size.
    """
    if name in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[name]
    values = _config(name, "language_model", LANGUAGE_MODELS)
    width, heads = _number(values, name, "hidden_size"), _number(values, name, "num_attention_heads")
    head = int(values.get("head_dim") or width // heads)
    return LanguageSize(
        width,
        _number(values, name, "num_hidden_layers"),
        _number(values, name, "intermediate_size"),
        heads * head,
        int(values.get("num_key_value_heads") or heads) * head,
        _number(values, name, "vocab_size"),
        bool(values.get("tie_word_embeddings", False)),
    )


def local_folder(name: str) -> Path | None:
    """The folder of a checkpoint on this machine: the path itself, or its snapshot in the Hugging Face cache."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if name.startswith((".", "~", "/")) or name.count("/") != 1:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _config(name: str, key: str, known: Mapping[str, Any]) -> dict[str, Any]:
    folder = local_folder(name)
    try:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8")) if folder else None
    except (OSError, ValueError) as error:
        raise UserError(f'{key} "{name}": its config.json cannot be read ({error})') from error
    if not isinstance(values, dict):
        fetch = f"; if it is on the hub, first run: hf download {name} config.json" if name.count("/") == 1 else ""
        raise UserError(f'{key} "{name}": unknown, and no folder here; {suggest(name, known)}{fetch}')
    return values


def _number(values: Mapping[str, Any], name: str, key: str) -> int:
    value = values.get(key)
    if not isinstance(value, int):
        raise UserError(f'"{name}": its config.json does not say {key}')
    return value
