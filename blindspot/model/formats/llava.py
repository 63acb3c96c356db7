"""The format of the original LLaVA code, as in liuhaotian/llava-v1.5-7b.

The language model is at the top (``model.layers...``), the connector is ``model.mm_projector``, or in
``mm_projector.bin``, and the image encoder is the checkpoint that ``mm_vision_tower`` names, or
``model.vision_tower.vision_tower`` inside if it was saved along. It is written twice: inside, as LLaVA's own full saves
have it, and as a checkpoint of its own in the folder ``vision_tower``, because LLaVA's code never reads the one inside.
"""

import importlib.util
import re
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoTokenizer, LlavaProcessor, PreTrainedConfig
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from blindspot.connectors import ConnectorSpec
from blindspot.errors import UserError
from blindspot.files import write_json
from blindspot.model.config import BlindspotConfig, variant_config
from blindspot.model.conversation import CHAT_TEMPLATES
from blindspot.model.formats.folder import Tensors, fill, listed, quietly, read_file
from blindspot.model.formats.tower import find_tower, image_processor, read_tower
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
LAYERS = {None: "linear", "0": "linear_1", "2": "linear_2"}
ROWS = 64  # the number of embedding rows becomes a multiple of it, as in llava-hf checkpoints
BODY, HEAD, PROJECTOR = "model.language_model.", "lm_head.weight", "model.multi_modal_projector."  # a variant's names
WITH_VISION_MODEL = ("clip_vision_model", "siglip_vision_model")  # a level of names that transformers 4 asks for


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
    """
    name = values.get("mm_vision_tower") or values.get("vision_tower")
    if not isinstance(name, str):
        raise UserError("its config.json names no image encoder (mm_vision_tower)")
    tower_folder = find_tower(name, folder)
    tower = read_tower(tower_folder, _tower_inside(tensors))
    tokenizer = read_tokenizer(folder)
    rest = {name: tensor for name, tensor in tensors.items() if not (name.startswith(TOWER) or SKIPPED.search(name))}
    renamed = {re.sub(r"^model\.", BODY, name): tensor for name, tensor in rest.items() if not CONNECTOR.search(name)}
    renamed |= _connector(folder, rest)
    renamed |= {f"{TOWER}{name}": tensor for name, tensor in tower.tensors.items()}
    config = _config(values, tower.config, tokenizer.convert_tokens_to_ids(IMAGE))
    text: Any = config.text_config
    held, tokens = text.vocab_size, len(tokenizer)
    if tokens > held:
        text.vocab_size = -(-tokens // ROWS) * ROWS
        for name in (name for name in (f"{BODY}embed_tokens.weight", HEAD) if name in renamed):
            if len(renamed[name]) != held:
                raise UserError(f"{name} has {len(renamed[name])} rows, and config.json says vocab_size {held}")
            renamed[name] = with_rows(renamed[name], text.vocab_size)
    model = fill(BlindspotForConditionalGeneration, config, renamed, folder, dtype)
    images = image_processor(tower_folder, tower.config)
    if values.get("image_aspect_ratio") == "pad":
        images = padded(images)
    return model, build_processor(config, tokenizer, images)


def _config(values: dict[str, Any], vision: PreTrainedConfig, image_token: int) -> BlindspotConfig:
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
    return variant_config(
        vision,
        text,
        image_token,
        values.get("mm_vision_select_layer", -2),
        strategy,
        EncoderPositions(),
        LanguagePositions(),
        ConnectorSpec(CONNECTORS[connector]),
        dtype=values.get("torch_dtype") or values.get("dtype"),
    )


def read_tokenizer(folder: Path) -> Any:
    """The folder's tokenizer, with ``<image>`` and LLaVA's chat template if it lacks them."""
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


def _tower_inside(tensors: Tensors) -> Tensors:
    """The tensors of an image encoder that was saved along, under its own names."""
    names = {name: name.removeprefix(TOWER) for name in tensors if name.startswith(TOWER)}
    starts = {start for start in WITHIN_TOWER if any(name.startswith(start) for name in names.values())}
    strange = [old for old, new in names.items() if not new.startswith(WITHIN_TOWER)]
    if strange or len(starts) > 1:
        found = strange or [f"{TOWER}{start}*" for start in starts]
        raise UserError(f"it holds more than one image encoder, or one under unknown names: {listed(found)}")
    return {new.removeprefix(min(starts)): tensors[old] for old, new in names.items()}


def _connector(folder: Path, tensors: Tensors) -> Tensors:
    found = {name: tensor for name, tensor in tensors.items() if CONNECTOR.search(name)}
    if not found and (folder / "mm_projector.bin").is_file():
        found = read_file(folder / "mm_projector.bin")
    if not found:
        raise UserError("it lacks the connector: no tensor named model.mm_projector.*, no mm_projector.bin")
    renamed: Tensors = {}
    for name, tensor in found.items():
        match = CONNECTOR.search(name)
        layer = LAYERS.get(match[1]) if match else None
        renamed[f"{PROJECTOR}{layer}.{match[2]}" if match and layer else name] = tensor
    return renamed


def write(model: BlindspotForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a plain variant in LLaVA's layout."""
    config: Any = model.config
    kinds = {text: kind for kind, text in LANGUAGE.items()}
    kind = kinds.get(config.text_config.model_type)
    if kind is None:
        raise UserError(
            f"the llava layout has no language model of type {config.text_config.model_type!r}; it has "
            f"{', '.join(kinds)}; export it with --format llava-hf"
        )
    if config.projector_hidden_act != "gelu" or not config.multimodal_projector_bias:
        raise UserError("the llava layout has only a connector with GELU and biases; export it with --format llava-hf")
    tokenizer: Any = processor.tokenizer
    image = config.image_token_index
    behind = {token for token, number in tokenizer.get_vocab().items() if number > image}
    # Rows of the embedding that are more than placeholders: ``<image>`` has none in this format.
    rows = image if behind <= {tokenizer.pad_token} else config.text_config.vocab_size
    tensors: Tensors = model.state_dict()
    tower = {name.removeprefix(TOWER): tensors[name] for name in tensors if name.startswith(TOWER)}
    if config.vision_config.model_type in WITH_VISION_MODEL:
        tower = {f"vision_model.{name}": tensor for name, tensor in tower.items()}
    renamed: Tensors = {}
    layers = {layer: number for number, layer in LAYERS.items()}
    for name, tensor in tensors.items():
        if name.startswith(BODY):
            renamed[f"model.{name.removeprefix(BODY)}"] = tensor
        elif name.startswith(PROJECTOR):
            layer, part = name.removeprefix(PROJECTOR).split(".")
            renamed[f"model.mm_projector.{layers[layer]}.{part}"] = tensor
        elif name == HEAD and not config.tie_word_embeddings:
            renamed[name] = tensor
    for name in {"model.embed_tokens.weight", HEAD} & renamed.keys():
        renamed[name] = renamed[name][:rows].clone()  # a view would be written with all its rows
    renamed |= {f"{TOWER}{WITHIN_TOWER[0]}{name}": tensor for name, tensor in tower.items()}
    with quietly():
        _save(renamed, folder)
        write_json(folder / "config.json", _values(config, kind, rows, processor))
        tokenizer.save_pretrained(folder)
        _save(tower, folder / "vision_tower")
        config.vision_config.save_pretrained(folder / "vision_tower")
        processor.image_processor.save_pretrained(folder / "vision_tower")


def _values(config: Any, kind: str, rows: int, processor: LlavaProcessor) -> dict[str, Any]:
    common = PreTrainedConfig().to_dict().keys() - {"pad_token_id", "bos_token_id", "eos_token_id"}
    text = {key: value for key, value in config.text_config.to_dict().items() if key not in common}
    rotary = text.pop("rope_parameters", None) or {}
    scaling = {key: value for key, value in rotary.items() if key != "rope_theta"}
    selected = {strategy: feature for feature, strategy in STRATEGY.items()}
    pad = text.get("pad_token_id")
    tokenizer: Any = processor.tokenizer
    return {
        **text,
        "architectures": ["LlavaLlamaForCausalLM" if kind == "llava_llama" else type(config).__name__],
        "model_type": kind,
        "vocab_size": rows,
        "pad_token_id": pad if pad is None or pad < rows else (tokenizer.unk_token_id or 0),
        "rope_theta": rotary.get("rope_theta"),
        "rope_scaling": None if scaling.get("rope_type", "default") == "default" else scaling,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": str(config.dtype).removeprefix("torch."),
        "image_aspect_ratio": "pad" if getattr(processor.image_processor, "do_pad", False) else "square",
        "mm_hidden_size": config.vision_config.hidden_size,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": selected[config.vision_feature_select_strategy],
        "mm_vision_select_layer": config.vision_feature_layer,
        "mm_vision_tower": "vision_tower",
        "tokenizer_model_max_length": config.text_config.max_position_embeddings,
        "use_mm_proj": True,
    }


def _save(tensors: Tensors, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    save_torch_state_dict({name: tensor.contiguous() for name, tensor in tensors.items()}, folder)
