"""How large encoders and language models are: the released ones by name, any other by its config.json.

Only the second imports torch, which takes seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from blindspot.encoders import ENCODERS, Encoder, detect
from blindspot.errors import UserError, did_you_mean, explained
from blindspot.files import is_hub_id


@dataclass(frozen=True)
class EncoderSize:
    """An image encoder that takes square images."""

    family: str
    width: int
    layers: int
    mlp: int  # hidden channels, of each branch where it is ``gated``
    patch: int  # side in pixels
    image: int  # side in pixels of what its own preprocessing makes
    prefix: int = 0  # tokens before the patches (CLS, registers)
    download: float = 0  # bytes of the weights on the hub, of CLIP and SigLIP with the text tower; 0 if unknown
    gated: bool = False  # whether the MLP has two branches

    @property
    def block(self) -> int:
        """Parameters of one block's linear maps."""
        return 4 * self.width**2 + (3 if self.gated else 2) * self.width * self.mlp

    @property
    def parameters(self) -> int:
        """Those of the blocks' and the patches' linear maps; norms, biases and the position table are under 1 %."""
        return self.layers * self.block + 3 * self.patch**2 * self.width


@dataclass(frozen=True)
class LanguageSize:
    """A Llama-like decoder."""

    width: int
    layers: int
    mlp: int  # hidden channels of each SwiGLU branch
    query: int  # channels of all query heads
    key: int  # of all key heads, as many as those of the values
    vocabulary: int
    tied: bool = False  # whether the head shares its weights with the embeddings
    download: float = 0  # bytes of the weights on the hub; 0 if unknown

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


def _size(family: Encoder, config: Any, image: int, download: float = 0) -> EncoderSize:
    swiglu = getattr(config, "use_swiglu_ffn", False)
    mlp = getattr(config, "intermediate_size", None) or int(config.hidden_size * config.mlp_ratio)
    return EncoderSize(
        family.name,
        config.hidden_size,
        config.num_hidden_layers,
        (int(mlp * 2 / 3) + 7) // 8 * 8 if swiglu else mlp,  # as transformers' Dinov2SwiGLUFFN rounds it
        config.patch_size,
        image,
        family.prefix_tokens_in(config),
        download,
        gated=family.gated or swiglu or getattr(config, "use_gated_mlp", False),
    )


CHECKPOINTS = "checkpoints"
"""Where a data folder holds checkpoints, by their Hugging Face id."""

RELEASED: dict[str, EncoderSize] = {
    one.id: _size(family, SimpleNamespace(**one.arguments), one.size, one.download)
    for family in ENCODERS.values()
    if not family.variable_resolution or family.images.fit == "bound"
    for one in family.checkpoints
}
"""Released checkpoints with square images, or with as many patches as a square has at most."""

LANGUAGE_MODELS: dict[str, LanguageSize] = {
    "lmsys/vicuna-7b-v1.5": LanguageSize(4096, 32, 11008, 4096, 4096, 32000, download=13.48e9),
    "lmsys/vicuna-13b-v1.5": LanguageSize(5120, 40, 13824, 5120, 5120, 32000, download=26.03e9),
    "HuggingFaceTB/SmolLM2-135M": LanguageSize(576, 30, 1536, 576, 192, 49152, tied=True, download=0.27e9),
    "HuggingFaceTB/SmolLM2-360M": LanguageSize(960, 32, 2560, 960, 320, 49152, tied=True, download=0.72e9),
}


LICENCES = {
    "google/siglip": "apache-2.0",
    "apple/aimv2": "apple-amlr",
    "facebook/dinov2": "apache-2.0",
    "lmsys/vicuna": "llama2",
    "HuggingFaceTB/SmolLM2": "apache-2.0",
}
"""Licences that the cards of released checkpoints state, by how their ids begin. CLIP's cards state none."""


def licence(name: str) -> str:
    """The licence of a released checkpoint, as the Hub names it; empty where it is not known."""
    return next((known for start, known in LICENCES.items() if name.startswith(start)), "")


class ModelSize(NamedTuple):
    """A vision-language model that is only evaluated."""

    parameters: float
    image_tokens: int  # of a picture of 640 x 480, as its family prepares it
    download: float  # bytes of the weights on the hub


MODELS: dict[str, ModelSize] = {
    "Qwen/Qwen2.5-VL-7B-Instruct": ModelSize(8.29e9, 391, 16.6e9),
    "llava-hf/llava-v1.6-mistral-7b-hf": ModelSize(7.57e9, 2340, 15.1e9),
    "llava-hf/llava-onevision-qwen2-7b-ov-hf": ModelSize(8.03e9, 2929, 16.1e9),
    "HuggingFaceTB/SmolVLM2-2.2B-Instruct": ModelSize(2.25e9, 1053, 9.0e9),  # of 32 bits
    "google/gemma-3-4b-it": ModelSize(4.30e9, 256, 8.6e9),
    "google/paligemma2-3b-mix-224": ModelSize(3.03e9, 256, 6.1e9),
}
USUAL = ModelSize(7e9, 576, 0)
"""What the time of any other is guessed from: LLaVA-1.5's."""


def encoder_size(name: str) -> EncoderSize:
    """Size of an image encoder of square images: a key of `RELEASED`, a folder, or a Hugging Face id in the cache."""
    if name in RELEASED:
        return RELEASED[name]
    config = _config(name, "encoder", RELEASED)
    config = getattr(config, "vision_config", config)
    with explained(f'encoder "{name}"', UserError):
        family = detect(config)
    if family.variable_resolution and family.images.fit != "bound":
        raise UserError(
            f'encoder "{name}": {family.label} has as many patches as the picture asks for; name an encoder that says '
            "how many at most"
        )
    square = family.images.most_patches**0.5 * config.patch_size if family.variable_resolution else config.image_size
    return _size(family, config, round(square))


def language_size(name: str) -> LanguageSize:
    """Size of a Llama-like decoder: a key of `LANGUAGE_MODELS`, a folder, or a Hugging Face id in the cache."""
    if name in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[name]
    config = _config(name, "language_model", LANGUAGE_MODELS)
    try:
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return LanguageSize(
            config.hidden_size,
            config.num_hidden_layers,
            config.intermediate_size,
            config.num_attention_heads * head,
            (getattr(config, "num_key_value_heads", None) or config.num_attention_heads) * head,
            config.vocab_size,
            config.tie_word_embeddings,
        )
    except AttributeError as error:
        raise UserError(f'language_model "{name}": {config.model_type} is no decoder like Llama ({error})') from error


def local_folder(name: str, data: Path | None = None) -> Path | None:
    """The folder of a checkpoint here: the path itself, ``checkpoints/NAME`` in the data folder, or in the cache."""
    path = Path(name).expanduser()
    if path.is_dir():
        return path
    if data is not None and (data / CHECKPOINTS / name).is_dir():
        return data / CHECKPOINTS / name
    if not is_hub_id(name):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _config(name: str, key: str, known: Mapping[str, Any]) -> Any:
    """The config of a checkpoint that is here; what its config.json leaves out has transformers' defaults."""
    folder = local_folder(name)
    if folder is None:
        fetch = f"; if it is on the hub, first run: hf download {name} config.json" if is_hub_id(name) else ""
        raise UserError(f'{key} "{name}": unknown, and no folder here; {did_you_mean(name, known)}{fetch}')
    from transformers import AutoConfig, PreTrainedConfig

    from blindspot.model.formats.folder import quietly

    try:
        with quietly():
            values = dict(PreTrainedConfig.get_config_dict(folder, local_files_only=True)[0])
            kind = values.pop("model_type", None)
            if kind == "aimv2" and "vision_config" not in values:  # Apple's first release
                kind = "aimv2_vision_model"
            return AutoConfig.for_model(kind, **values)
    except Exception as error:  # what a damaged config makes transformers raise has no common base
        raise UserError(f'{key} "{name}": its config.json cannot be read ({str(error).splitlines()[0]})') from error
