"""Tiny random checkpoints of families of models in the published layout: config, weights, tokenizer, processor.

The architectures, tokenizer classes, file names and chat templates are the published models'; the weights are random
and the sizes small. Nothing here needs torchvision.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import (
    CLIPVisionConfig,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GemmaTokenizer,
    GPT2Tokenizer,
    LlamaConfig,
    LlamaTokenizer,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen2Tokenizer,
    SiglipVisionConfig,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
)

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

LLAVA_HF = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + message['content'][0]['text'] "
    "+ '\n<</SYS>>\n\n' }}{% elif message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% endif %}{% endfor %}"
)
ONEVISION = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
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


def numbered(*pieces: str) -> dict[str, int]:
    """A vocabulary of the pieces, in order."""
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def byte_level() -> list[str]:
    """The 256 characters that stand for bytes in GPT-2's and Qwen's tokenizers."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def llama_tokenizer(**more: Any) -> Any:
    """Characters, and bytes for what is left; ``<s>`` begins a text."""
    characters = [chr(code) for code in range(33, 127)]
    vocab = numbered("<unk>", "<s>", "</s>", *BYTES, "▁", *characters)
    tokenizer = LlamaTokenizer(vocab=vocab, merges=[], add_bos_token=True, pad_token="<unk>", legacy=False, **more)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return tokenizer


def gemma_tokenizer(*special: str, **more: Any) -> Any:
    """Characters, and bytes for what is left; ``<bos>`` begins a text."""
    characters = [chr(code) for code in range(33, 127)]
    vocab = numbered("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *special, *BYTES, "▁", "\n", *characters)
    tokenizer = GemmaTokenizer(vocab=vocab, merges=[], add_bos_token=True, **more)
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]}, replace_extra_special_tokens=False)
    return tokenizer


def qwen_tokenizer(*special: str, **more: Any) -> Any:
    """Bytes; nothing begins a text."""
    tokenizer = Qwen2Tokenizer(vocab=numbered(*byte_level(), "<|endoftext|>"), merges=[], **more)
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


def llava(folder: Path) -> None:
    """As llava-hf/llava-1.5-7b-hf."""
    tokenizer = llama_tokenizer(chat_template=LLAVA_HF, extra_special_tokens={"image_token": "<image>"})
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE, **ids),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=16,
        **ids,
    )
    save(LlavaForConditionalGeneration, config, folder)
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}, "do_center_crop": True}
    images = {"image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True, **STEPS, **CLIP, **size}
    write(folder, "preprocessor_config.json", {"processor_class": "LlavaProcessor", **images})
    own = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    write(folder, "processor_config.json", {"processor_class": "LlavaProcessor", **own, "image_token": "<image>"})


def llava_next(folder: Path) -> None:
    """As llava-hf/llava-v1.6-mistral-7b-hf, with a Llama in Mistral's place."""
    tokenizer = llama_tokenizer(chat_template=MISTRAL, extra_special_tokens={"image_token": "<image>"})
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    grids = [[56, 112], [112, 56], [112, 112]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**VISION),
        text_config=LlamaConfig(vocab_size=len(tokenizer), **LANGUAGE, **ids),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=grids,
        image_seq_length=16,
        **ids,
    )
    save(LlavaNextForConditionalGeneration, config, folder)
    size = {"size": {"shortest_edge": 56}, "crop_size": {"height": 56, "width": 56}, "do_center_crop": True}
    more = {"image_processor_type": "LlavaNextImageProcessor", "image_grid_pinpoints": grids, "do_pad": True}
    common = {"processor_class": "LlavaNextProcessor"}
    write(folder, "preprocessor_config.json", {**common, **more, **STEPS, **CLIP, **size})
    own = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    write(folder, "processor_config.json", {**common, **own, "image_token": "<image>"})


def llava_onevision(folder: Path) -> None:
    """As llava-hf/llava-onevision-qwen2-7b-ov-hf."""
    tokenizer = qwen_tokenizer("<|im_start|>", "<|im_end|>", "<image>", "<video>", chat_template=ONEVISION)
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    grids = [[56, 56], [56, 112], [112, 56], [112, 112]]
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config=Qwen2Config(vocab_size=len(tokenizer), **LANGUAGE, **ids),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=grids,
        **ids,
    )
    save(LlavaOnevisionForConditionalGeneration, config, folder)
    common = {"processor_class": "LlavaOnevisionProcessor"}
    images = {"image_processor_type": "LlavaOnevisionImageProcessor", "image_grid_pinpoints": grids, "do_pad": True}
    size = {"size": {"height": 56, "width": 56}, "do_convert_rgb": True}
    write(folder, "preprocessor_config.json", {**common, **images, **STEPS, **HALF, **size})
    videos = {"video_processor_type": "LlavaOnevisionVideoProcessor"}
    write(folder, "video_preprocessor_config.json", {**common, **videos, **STEPS, **HALF, **size})
    own = {"num_image_tokens": 16, "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"}
    write(folder, "processor_config.json", {**common, **own, "image_token": "<image>", "video_token": "<video>"})


def qwen2_5_vl(folder: Path) -> None:
    """As Qwen/Qwen2.5-VL-7B-Instruct, with larger patches, so that the adapter's bounds make few of them."""
    marks = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
    tokenizer = qwen_tokenizer("<|im_start|>", "<|im_end|>", *marks, chat_template=QWEN, model_max_length=4096)
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    find = tokenizer.convert_tokens_to_ids
    config = Qwen2_5_VLConfig(
        vision_config={
            **{"depth": 2, "num_heads": 4, "hidden_size": 32, "out_hidden_size": 32, "intermediate_size": 48},
            **{"patch_size": 56, "window_size": 448, "fullatt_block_indexes": [1]},
        },
        text_config={
            "vocab_size": len(tokenizer),
            **LANGUAGE,
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
            **ids,
        },
        image_token_id=find("<|image_pad|>"),
        video_token_id=find("<|video_pad|>"),
        vision_start_token_id=find("<|vision_start|>"),
        vision_end_token_id=find("<|vision_end|>"),
        **ids,
    )
    save(Qwen2_5_VLForConditionalGeneration, config, folder)
    kinds = {"processor_class": "Qwen2_5_VLProcessor", "image_processor_type": "Qwen2VLImageProcessor"}
    size = {"min_pixels": 112**2, "max_pixels": 448**2, "patch_size": 56, "temporal_patch_size": 2, "merge_size": 2}
    write(folder, "preprocessor_config.json", {**kinds, **size, **CLIP})


def smolvlm(folder: Path) -> None:
    """As HuggingFaceTB/SmolVLM2-2.2B-Instruct."""
    places = [f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)]
    marks = {
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
    }
    tokenizer: Any = GPT2Tokenizer(
        vocab=numbered(*byte_level(), "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<end_of_utterance>"),
        merges=[],
        unk_token="<|endoftext|>",
        bos_token="<|im_start|>",
        eos_token="<end_of_utterance>",
        pad_token="<|im_end|>",
        extra_special_tokens={**marks, "end_of_utterance_token": "<end_of_utterance>"},
        chat_template=SMOLVLM,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": places}, replace_extra_special_tokens=False)
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    config = SmolVLMConfig(
        vision_config={**VISION, "model_type": "smolvlm_vision"},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), **LANGUAGE, **ids},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        **ids,
    )
    save(SmolVLMForConditionalGeneration, config, folder)
    common = {"processor_class": "SmolVLMProcessor"}
    images = {
        "image_processor_type": "SmolVLMImageProcessor",
        "do_convert_rgb": True,
        "do_image_splitting": True,
        "do_pad": True,
        "max_image_size": {"longest_edge": 56},
        "size": {"longest_edge": 112},
        "video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 56}},
    }
    write(folder, "preprocessor_config.json", {**common, **images, **STEPS, **HALF, "resample": 1})
    write(folder, "processor_config.json", {**common, "image_seq_len": 4})


def gemma3(folder: Path) -> None:
    """As google/gemma-3-4b-it."""
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    turns = ("<start_of_turn>", "<end_of_turn>", *named.values())
    tokenizer = gemma_tokenizer(*turns, chat_template=GEMMA, extra_special_tokens=named)
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    find = tokenizer.convert_tokens_to_ids
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        text_config={"vocab_size": len(tokenizer), "head_dim": 8, **WINDOWS, **LANGUAGE, **ids},
        mm_tokens_per_image=4,
        boi_token_index=find("<start_of_image>"),
        eoi_token_index=find("<end_of_image>"),
        image_token_index=find("<image_soft_token>"),
        **ids,
    )
    save(Gemma3ForConditionalGeneration, config, folder)
    common = {"processor_class": "Gemma3Processor", "image_seq_length": 4}
    images = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": 56, "width": 56}}
    write(folder, "preprocessor_config.json", {**common, **images, **STEPS, **HALF, "resample": 2})
    write(folder, "processor_config.json", common)


def paligemma(folder: Path) -> None:
    """As google/paligemma2-3b-mix-224, with Gemma in place of Gemma 2."""
    places = [*(f"<loc{number:04}>" for number in range(1024)), *(f"<seg{number:03}>" for number in range(128))]
    tokenizer = gemma_tokenizer("<image>", *places, extra_special_tokens={"image_token": "<image>"})
    tokenizer.save_pretrained(folder)
    ids = special(tokenizer)
    config = PaliGemmaConfig(
        vision_config={"model_type": "siglip_vision_model", **VISION, "vision_use_head": False, "projection_dim": 32},
        text_config={
            "model_type": "gemma2",
            "vocab_size": len(tokenizer),
            "head_dim": 8,
            **WINDOWS,
            "num_image_tokens": 16,
            **LANGUAGE,
            **ids,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        projection_dim=32,
        hidden_size=32,
        **ids,
    )
    save(PaliGemmaForConditionalGeneration, config, folder)
    images = {"image_processor_type": "SiglipImageProcessor", "image_seq_length": 16, "do_convert_rgb": None}
    size = {"size": {"height": 56, "width": 56}, "processor_class": "PaliGemmaProcessor"}
    write(folder, "preprocessor_config.json", {**images, **size, **STEPS, **HALF})


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
