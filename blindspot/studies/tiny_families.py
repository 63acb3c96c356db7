"""Tiny random checkpoints of families of models in the published layout: config, weights, tokenizer, processor.

The architectures, tokenizer classes, file names and chat templates are the published models'; the weights are random
and the sizes small. Nothing here needs torchvision.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import pre_tokenizers

LANGUAGE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 56,
    "patch_size": 14,
}
WINDOWS: dict[str, Any] = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
STEPS = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "resample": 3}

PICTURES, TEXTS = (
    f"{{% for part in message['content'] | selectattr('type', 'equalto', '{kind}') %}}{{{{ {said} }}}}{{% endfor %}}"
    for kind, said in (("image", "'<image>\n'"), ("text", "part['text']"))
)
LLAVA_HF = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    + PICTURES
    + TEXTS.replace("part['text']", "part['text'] + ' '")
    + "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + message['content'][0]['text'] "
    f"+ '\n<</SYS>>\n\n' }}}}{{% elif message['role'] == 'user' %}}{{{{ '[INST] ' }}}}{PICTURES}{TEXTS}"
    "{{ ' [/INST]' }}{% endif %}{% endfor %}"
)
ONEVISION = (
    f"{{% for message in messages %}}{{{{ '<|im_start|>' + message['role'] + ' ' }}}}{PICTURES}{TEXTS}"
    "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
QWEN = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SMOLVLM = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% set first = '' %}{% set turns = messages %}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'][0]['text'] + '\n\n' %}{% set turns = messages[1:] %}{% endif %}"
    "{% for message in turns %}{{ '<start_of_turn>' + message['role'] + '\n' + (first if loop.first else '') }}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{{ '<start_of_image>' }}"
    "{% else %}{{ part['text'] | trim }}{% endif %}{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
CHARACTERS = [chr(code) for code in range(33, 127)]


def numbered(*pieces: str) -> dict[str, int]:
    """A vocabulary of the pieces, in order."""
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def byte_level() -> list[str]:
    """The 256 characters that stand for bytes in GPT-2's and Qwen's tokenizers."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def llama_tokenizer(**more: Any) -> Any:
    """Characters, and bytes for what is left; ``<s>`` begins a text."""
    vocab = numbered("<unk>", "<s>", "</s>", *BYTES, "▁", *CHARACTERS)
    named = {"add_bos_token": True, "pad_token": "<unk>", "legacy": False, **more}
    tokenizer = transformers.LlamaTokenizer(vocab=vocab, merges=[], **named)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def gemma_tokenizer(*special: str, **more: Any) -> Any:
    """Characters, and bytes for what is left; ``<bos>`` begins a text."""
    vocab = numbered("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *special, *BYTES, "▁", "\n", *CHARACTERS)
    tokenizer = transformers.GemmaTokenizer(vocab=vocab, merges=[], add_bos_token=True, **more)
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]}, replace_extra_special_tokens=False)
    return tokenizer


def qwen_tokenizer(*special: str, **more: Any) -> Any:
    """Bytes; nothing begins a text."""
    tokenizer = transformers.Qwen2Tokenizer(vocab=numbered(*byte_level(), "<|endoftext|>"), merges=[], **more)
    tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    return tokenizer


def save(model_class: Any, config: Any, folder: Path) -> None:
    """Random weights, the same every time, large enough that tiny models do not say one word only."""
    torch.manual_seed(0)
    model = model_class(config)
    words = model.get_input_embeddings().weight
    tied = words is model.get_output_embeddings().weight  # large ones would say the last word again, for ever
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() and parameter.ndim > 1:  # what a pretrained model fills, as Gemma 3's projection
                parameter.normal_(std=0.02)
            if parameter.ndim > 1 and not (tied and parameter is words):
                parameter.mul_(8)
    model.eval().save_pretrained(folder)


def write(folder: Path, name: str, values: dict[str, Any]) -> None:
    (folder / name).write_text(json.dumps(values, indent=2), encoding="utf-8")


def special(tokenizer: Any) -> dict[str, Any]:
    """Ids that a config repeats."""
    return {
        name: getattr(tokenizer, name)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id")
        if getattr(tokenizer, name) is not None
    }


def _checkpoint(
    folder: Path, kind: str, tokenizer: Any, config: dict[str, Any], images: dict[str, Any], own: dict[str, Any]
) -> None:
    """Write a checkpoint of transformers' classes that are named after ``kind``: what configs of all families say, what
    is of this one in ``config``, how pictures are prepared, and the processor's ``own`` settings, if it has any."""
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    text = {"vocab_size": len(tokenizer), **LANGUAGE, **config.pop("text_config"), **ids}
    made = getattr(transformers, f"{kind}Config")(text_config=text, **config, **ids)
    save(getattr(transformers, f"{kind}ForConditionalGeneration"), made, folder)
    named = {"processor_class": f"{kind}Processor"}
    write(folder, "preprocessor_config.json", named | images)
    if own:
        write(folder, "processor_config.json", named | own)


def _of_clip(folder: Path, kind: str, template: str, images: dict[str, Any], **more: Any) -> None:
    """LLaVA with CLIP's tower and a Llama."""
    tokenizer = llama_tokenizer(chat_template=template, extra_special_tokens={"image_token": "<image>"})
    config = {
        "vision_config": transformers.CLIPVisionConfig(**VISION),
        "text_config": {"model_type": "llama"},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        **{"image_seq_length": 16, **more},
    }
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}, "do_center_crop": True}
    own = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    images = {**STEPS, **CLIP, **size, **images, **more}
    _checkpoint(folder, kind, tokenizer, config, images, {**own, "image_token": "<image>"})


def llava(folder: Path) -> None:
    """As llava-hf/llava-1.5-7b-hf."""
    images = {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True}
    _of_clip(folder, "Llava", LLAVA_HF, images)


def llava_next(folder: Path) -> None:
    """As llava-hf/llava-v1.6-mistral-7b-hf, with a Llama in Mistral's place."""
    images = {"image_processor_type": "LlavaNextImageProcessor", "do_pad": True}
    _of_clip(folder, "LlavaNext", MISTRAL, images, image_grid_pinpoints=[[56, 112], [112, 56], [112, 112]])


def llava_onevision(folder: Path) -> None:
    """As llava-hf/llava-onevision-qwen2-7b-ov-hf."""
    tokenizer = qwen_tokenizer("<|im_start|>", "<|im_end|>", "<image>", "<video>", chat_template=ONEVISION)
    grids = {"image_grid_pinpoints": [[56, 56], [56, 112], [112, 56], [112, 112]]}
    config = {
        "vision_config": transformers.SiglipVisionConfig(**VISION, vision_use_head=False),
        "text_config": {"model_type": "qwen2"},
        **{f"{kind}_token_index": tokenizer.convert_tokens_to_ids(f"<{kind}>") for kind in ("image", "video")},
        **grids,
    }
    common = {**STEPS, **HALF, "size": {"height": 56, "width": 56}, "do_convert_rgb": True}
    images = {**common, **grids, "image_processor_type": "LlavaOnevisionImageProcessor", "do_pad": True}
    own = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"}
    marks = {"image_token": "<image>", "video_token": "<video>"}
    _checkpoint(folder, "LlavaOnevision", tokenizer, config, images, own | marks)
    videos = {"processor_class": "LlavaOnevisionProcessor", "video_processor_type": "LlavaOnevisionVideoProcessor"}
    write(folder, "video_preprocessor_config.json", videos | common)


def qwen2_5_vl(folder: Path) -> None:
    """As Qwen/Qwen2.5-VL-7B-Instruct, with larger patches, so that the adapter's bounds make few of them."""
    marks = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = qwen_tokenizer("<|im_start|>", "<|im_end|>", *marks, chat_template=QWEN, model_max_length=4096)
    tokens = {"image": "image_pad", "video": "video_pad", "vision_start": "vision_start", "vision_end": "vision_end"}
    config = {
        "vision_config": {
            **{"depth": 2, "num_heads": 4, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48},
            **{"patch_size": 56, "window_size": 448, "fullatt_block_indexes": [1]},
        },
        "text_config": {
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        },
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>") for name, token in tokens.items()},
    }
    size = {"min_pixels": 112**2, "max_pixels": 448**2, "patch_size": 56, "temporal_patch_size": 2, "merge_size": 2}
    images = {"image_processor_type": "Qwen2VLImageProcessor", **size, **CLIP}
    _checkpoint(folder, "Qwen2_5_VL", tokenizer, config, images, {})


def smolvlm(folder: Path) -> None:
    """As HuggingFaceTB/SmolVLM2-2.2B-Instruct."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    fake = {"fake_image_token": "<fake_token_around_image>", "global_image_token": "<global-img>"}
    end = {"end_of_utterance_token": "<end_of_utterance>"}
    tokenizer: Any = transformers.GPT2Tokenizer(
        vocab=numbered(*byte_level(), "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>"),
        merges=[],
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        extra_special_tokens={"image_token": "<image>", **fake, **end},
        chat_template=SMOLVLM,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": places}, replace_extra_special_tokens=False)
    config = {
        "vision_config": {**VISION, "model_type": "smolvlm_vision"},
        "text_config": {"model_type": "llama"},
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "scale_factor": 2,
    }
    switches = dict.fromkeys(("do_convert_rgb", "do_image_splitting", "do_pad"), True)
    size = {"max_image_size": {"longest_edge": 56}, "size": {"longest_edge": 112}}
    videos = {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 56}}}
    images = {"image_processor_type": "SmolVLMImageProcessor", **switches, **size, **videos, **STEPS, **HALF}
    _checkpoint(folder, "SmolVLM", tokenizer, config, images | {"resample": 1}, {"image_seq_len": 4})


def gemma3(folder: Path) -> None:
    """As google/gemma-3-4b-it."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    turns = ("<start_of_turn>", "<end_of_turn>", *named.values())
    tokenizer = gemma_tokenizer(*turns, chat_template=GEMMA, extra_special_tokens=named)
    config = {
        "vision_config": transformers.SiglipVisionConfig(**VISION, vision_use_head=False),
        "text_config": {"head_dim": 8, **WINDOWS},
        "mm_tokens_per_image": 4,
        **{f"{name}_index": tokenizer.convert_tokens_to_ids(token) for name, token in named.items()},
    }
    images = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 56, "width": 56}, **STEPS, **HALF}
    own = {"image_seq_length": 4}
    _checkpoint(folder, "Gemma3", tokenizer, config, {**images, **own, "resample": 2}, own)


def paligemma(folder: Path) -> None:
    """As google/paligemma2-3b-mix-224, with Gemma in place of Gemma 2."""
    places = [*(f"<loc{number:04}>" for number in range(1024)), *(f"<seg{number:03}>" for number in range(128))]
    tokenizer = gemma_tokenizer("<image>", *places, extra_special_tokens={"image_token": "<image>"})
    tower = {"model_type": "siglip_vision_model", **VISION, "vision_use_head": False, "projection_dim": 32}
    config = {
        "vision_config": tower,
        "text_config": {"model_type": "gemma2", "head_dim": 8, **WINDOWS, "num_image_tokens": 16},
        "image_token_index": tokenizer.convert_tokens_to_ids("<image>"),
        **{"projection_dim": 32, "hidden_size": 32},
    }
    images = {"image_processor_type": "SiglipImageProcessor", "image_seq_length": 16, "do_convert_rgb": None}
    images |= {"size": {"height": 56, "width": 56}, **STEPS, **HALF}
    _checkpoint(folder, "PaliGemma", tokenizer, config, images, {})


BUILDERS: dict[str, Callable[[Path], None]] = {
    "llava": llava,
    "llava_next": llava_next,
    "llava_onevision": llava_onevision,
    "qwen2_5_vl": qwen2_5_vl,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "paligemma": paligemma,
}
"""What writes a checkpoint into a folder, by the name of the family's adapter: all that need no code of their own."""
