"""The format of the original LLaVA code, as in liuhaotian/llava-v1.5-7b: reading.

The language model is at the top (``model.layers...``), the connector is ``model.mm_projector``, or in
``mm_projector.bin``, and the image encoder is the checkpoint that ``mm_vision_tower`` names, or
``model.vision_tower.vision_tower`` inside if it was saved along. Writing is `llava_writer`.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoTokenizer, PreTrainedConfig
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.model.config import BlindspotConfig, Parts
from blindspot.model.conversation import CHAT_TEMPLATES
from blindspot.model.formats.strict import fill, quietly
from blindspot.model.formats.tower import find_tower, image_processor, read_tower
from blindspot.model.formats.weights import Tensors, listed, read_file
from blindspot.model.processor import build_processor
from blindspot.model.tokenizer import IMAGE
from blindspot.model.variant import BlindspotForConditionalGeneration
from blindspot.positions import EncoderPositions, LanguagePositions

LANGUAGE = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "llava_qwen": "qwen2"}
STRATEGY: dict[str, Literal["default", "full"]] = {"patch": "default", "cls_patch": "full"}
CONNECTORS = {"linear": "linear", "mlp2x_gelu": "mlp"}
SKIPPED = re.compile(r"\.rotary_emb\.inv_freq$|^model\.image_newline$")  # computed anew; LLaVA-NeXT only
TOWER = "model.vision_tower."
WITHIN_TOWER = ("vision_tower.", "image_tower.")  # the second: AIMv2 in the public code of the study
CONNECTOR = re.compile(r"mm_projector\.(?:(\d+)\.)?(weight|bias)$")
ROWS = 64  # the number of embedding rows becomes a multiple of it, as in llava-hf checkpoints


def reads(values: dict[str, Any], tensors: Tensors) -> bool:
    """Whether this is the original LLaVA's format, by the keys of its config and the names of its tensors."""
    kind = str(values.get("model_type"))
    return kind.startswith("llava") and (
        any("mm_projector." in name for name in tensors) or any(key.startswith("mm_") for key in values)
    )


def read(folder: Path, values: dict[str, Any], tensors: Tensors, dtype: Any = "auto") -> tuple[Any, Any]:
    """The variant that such a checkpoint is, and its processor.

    ``<image>``, which has no id in this format, gets the tokenizer's next one. Embedding and head grow by rows for it:
    their mean, so that the new tokens are never the likeliest.

    Args:
        folder: the checkpoint.
        values: its config.
        tensors: its tensors.
        dtype: as transformers'; "auto" is the config's.

    Raises:
        UserError: naming what is missing, unexpected or unknown.
    """
    inside = {name: tensor for name, tensor in tensors.items() if name.startswith(TOWER)}
    name = values.get("mm_vision_tower") or values.get("vision_tower")
    if not isinstance(name, str):
        raise UserError("its config.json names no image encoder (mm_vision_tower)")
    tower_folder = find_tower(name, folder)
    tower = read_tower(tower_folder, _tower_inside(inside))
    tokenizer = read_tokenizer(folder)
    rest = {name: tensor for name, tensor in tensors.items() if name not in inside and not SKIPPED.search(name)}
    renamed = {
        re.sub(r"^model\.", "model.language_model.", name): tensor
        for name, tensor in rest.items()
        if not CONNECTOR.search(name)
    }
    renamed |= _connector(folder, rest)
    renamed |= {f"model.vision_tower.{name}": tensor for name, tensor in tower.tensors.items()}
    config = read_config(values, tower.config, tokenizer.convert_tokens_to_ids(IMAGE))
    _grow(config, renamed, len(tokenizer))
    model = fill(BlindspotForConditionalGeneration, config, renamed, folder, dtype)
    images = image_processor(tower_folder, tower.config)
    if values.get("image_aspect_ratio") == "pad":
        images = padded(images)
    return model, build_processor(config, tokenizer, images)


def read_config(values: dict[str, Any], vision: PreTrainedConfig, image_token: int) -> BlindspotConfig:
    """The variant's configuration from the original's keys.

    Raises:
        UserError: if they ask for something that Blindspot does not have.
    """
    kind = values["model_type"]
    if kind not in LANGUAGE:
        raise UserError(f"unknown model_type {kind!r}; of this format are known: {', '.join(LANGUAGE)}")
    aspect = values.get("image_aspect_ratio", "square")
    if aspect not in ("pad", "square", None):
        raise UserError(f"image_aspect_ratio {aspect!r} is not supported, only 'pad' and 'square' are")
    strategy = STRATEGY.get(str(values.get("mm_vision_select_feature", "patch")))
    if strategy is None:
        raise UserError(f"unknown mm_vision_select_feature {values['mm_vision_select_feature']!r}")
    connector = values.get("mm_projector_type", "linear")
    if connector not in CONNECTORS:
        raise UserError(f"unknown mm_projector_type {connector!r}; known are {', '.join(CONNECTORS)}")
    config_class: Any = CONFIG_MAPPING[LANGUAGE[kind]]
    known = {*config_class().to_dict(), "rope_theta", "rope_scaling"} - {"model_type", "architectures", "dtype"}
    text = config_class(**{key: value for key, value in values.items() if key in known})
    special: dict[str, Any] = {key: getattr(text, key) for key in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = BlindspotConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=image_token,
        vision_feature_layer=values.get("mm_vision_select_layer", -2),
        vision_feature_select_strategy=strategy,
        **special,
        dtype=values.get("torch_dtype") or values.get("dtype"),
        encoder_positions=EncoderPositions().to_dict(),
        language_positions=LanguagePositions().to_dict(),
        connector=ConnectorSpec(CONNECTORS[connector]).to_dict(),
    )
    parts = Parts(config)
    config.image_seq_length = parts.image_tokens(parts.native_grid)
    return config


def read_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, with ``<image>`` and LLaVA's chat template if it lacks them.

    Raises:
        UserError: if there is none, or a package is missing that reads it.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        raise UserError("it has no tokenizer (neither tokenizer.json nor tokenizer.model); copy it there")
    missing = [name for name in ("sentencepiece", "google") if importlib.util.find_spec(name) is None]
    if missing and not (folder / "tokenizer.json").is_file():
        raise UserError("reading tokenizer.model takes two packages: pip install sentencepiece protobuf")
    try:
        with quietly():
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, config=CONFIG_MAPPING["llama"](), local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # what a damaged file makes the libraries raise has no common base
        raise UserError(f"cannot read its tokenizer: {error}") from error
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    if tokenizer.chat_template is None:
        tokenizer.chat_template = CHAT_TEMPLATES["v1"]
    tokenizer.padding_side = "left"
    return tokenizer


def padded(processor: Any) -> Any:
    """An image processor that first pads to a square with the mean colour, as LLaVA does in its second stage.

    One that keeps the aspect ratio is returned as it is: padding would undo what it is for.
    """
    if getattr(processor, "do_pad", None) or hasattr(processor, "patch_size"):
        return processor
    steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize", "do_convert_rgb")
    numbers = ("size", "crop_size", "resample", "rescale_factor", "image_mean", "image_std")
    kept = {key: value for key, value in processor.to_dict().items() if key in (*steps, *numbers) and value is not None}
    options: dict[str, Any] = {"do_center_crop": False, **kept}
    return LlavaImageProcessorPil(do_pad=True, **options)


def with_rows(table_vd: Tensor, rows: int) -> Tensor:
    """An embedding or a head with as many rows, the new ones the mean of the others."""
    mean_1d = table_vd.float().mean(dim=0, keepdim=True).to(table_vd.dtype)
    return torch.cat([table_vd, mean_1d.expand(rows - len(table_vd), -1)])


def _tower_inside(inside: Tensors) -> Tensors:
    names = {name: name.removeprefix(TOWER) for name in inside}
    starts = {start for start in WITHIN_TOWER if any(name.startswith(start) for name in names.values())}
    strange = [old for old, new in names.items() if not new.startswith(WITHIN_TOWER)]
    if strange or len(starts) > 1:
        found = strange or [f"{TOWER}{start}*" for start in starts]
        raise UserError(f"it holds more than one image encoder, or one under unknown names: {listed(found)}")
    return {names[old].removeprefix(min(starts)): tensor for old, tensor in inside.items()}


def _connector(folder: Path, tensors: Tensors) -> Tensors:
    found = {name: tensor for name, tensor in tensors.items() if CONNECTOR.search(name)}
    if not found and (folder / "mm_projector.bin").is_file():
        found = read_file(folder / "mm_projector.bin")
    if not found:
        raise UserError("it lacks the connector: no tensor named model.mm_projector.*, no mm_projector.bin")
    renamed: Tensors = {}
    for name, tensor in found.items():
        match = CONNECTOR.search(name)
        layer = {None: "linear", "0": "linear_1", "2": "linear_2"}.get(match[1]) if match else None
        renamed[f"model.multi_modal_projector.{layer}.{match[2]}" if match and layer else name] = tensor
    return renamed


def _grow(config: Any, tensors: Tensors, tokens: int) -> None:
    """Give the embedding and the head a row for every token that the tokenizer knows."""
    held = config.text_config.vocab_size
    if tokens <= held:
        return
    config.text_config.vocab_size = -(-tokens // ROWS) * ROWS
    for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            if len(tensors[name]) != held:
                raise UserError(f"{name} has {len(tensors[name])} rows, and config.json says vocab_size {held}")
            tensors[name] = with_rows(tensors[name], config.text_config.vocab_size)
