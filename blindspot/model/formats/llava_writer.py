"""The format of the original LLaVA code: writing. See `llava_original`.

The image encoder is written twice: inside, as LLaVA's own full saves have it, and as a checkpoint of its own in the
folder ``vision_tower``, because LLaVA's code never reads the one inside.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict
from torch import Tensor
from transformers import LlavaProcessor, PreTrainedConfig

from blindspot.errors import UserError
from blindspot.files import write_json
from blindspot.model.formats.llava_original import LANGUAGE, STRATEGY, TOWER, WITHIN_TOWER
from blindspot.model.formats.strict import quietly
from blindspot.model.formats.weights import Tensors
from blindspot.model.variant import BlindspotForConditionalGeneration

BODY, HEAD, OWN_TOWER, PROJECTOR = (
    "model.language_model.",
    "lm_head.weight",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)
TABLES = {"model.embed_tokens.weight", HEAD}
LAYERS = {"linear_1": "0", "linear_2": "2"}
WITH_VISION_MODEL = ("clip_vision_model", "siglip_vision_model")  # a level of names that transformers 4 asks for


def write(model: BlindspotForConditionalGeneration, processor: LlavaProcessor, folder: Path) -> None:
    """Write a plain variant in LLaVA's layout.

    Raises:
        UserError: if LLaVA's code has no such language model or connector.
    """
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
    rows = _rows(config, processor.tokenizer)
    tensors: Tensors = model.state_dict()
    tower = {name.removeprefix(OWN_TOWER): tensors[name] for name in tensors if name.startswith(OWN_TOWER)}
    if config.vision_config.model_type in WITH_VISION_MODEL:
        tower = {f"vision_model.{name}": tensor for name, tensor in tower.items()}
    renamed = _renamed(config, tensors)
    for name in TABLES & renamed.keys():
        renamed[name] = renamed[name][:rows].clone()  # a view would be written with all its rows
    renamed |= {f"{TOWER}{WITHIN_TOWER[0]}{name}": tensor for name, tensor in tower.items()}
    with quietly():
        _save(renamed, folder)
        write_json(folder / "config.json", _values(config, kind, rows, processor))
        processor.tokenizer.save_pretrained(folder)
        _save(tower, folder / "vision_tower")
        config.vision_config.save_pretrained(folder / "vision_tower")
        processor.image_processor.save_pretrained(folder / "vision_tower")


def _rows(config: Any, tokenizer: Any) -> int:
    """Rows of the embedding that are more than placeholders: ``<image>`` has none in this format."""
    held, image = config.text_config.vocab_size, config.image_token_index
    behind = {token for token, number in tokenizer.get_vocab().items() if number > image}
    return image if behind <= {tokenizer.pad_token} else held


def _renamed(config: Any, tensors: Tensors) -> Tensors:
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(BODY):
            renamed[f"model.{name.removeprefix(BODY)}"] = tensor
        elif name.startswith(PROJECTOR):
            layer, kind = name.removeprefix(PROJECTOR).split(".")
            renamed[f"model.mm_projector.{LAYERS[layer]}.{kind}"] = tensor
        elif name == HEAD and not config.tie_word_embeddings:
            renamed[name] = tensor
    return renamed


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
