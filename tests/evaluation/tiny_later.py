"""Tiny random checkpoints of later families: the classes, tokens and layouts of the published models, small sizes.

The templates say the same of a turn with pictures and words as the published ones, and leave out tools and videos.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as tf

from blindspot.studies.tiny_families import (
    CLIP,
    HALF,
    LANGUAGE,
    STEPS,
    byte_level,
    gemma_tokenizer,
    numbered,
    qwen_tokenizer,
    save,
    special,
    write,
)

VISION: dict[str, Any] = {"depth": 2, "num_heads": 4, "hidden_size": 32, "intermediate_size": 48}
SECTIONS = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6}
QWEN_MARKS = ("<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>")
LINEAR = {
    **{"linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_num_key_heads": 2, "linear_num_value_heads": 4},
    **{"layer_types": ["linear_attention", "full_attention"]},
}
THOUGHT = ("<think>", "</think>")
TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def turns(begin: str, picture: str, end: str, answer: str, text: str = "part['text']") -> str:
    """A template: ``begin`` and ``end`` around every turn, ``answer`` behind the last; all of Jinja's syntax."""
    said = f"{{% if part['type'] == 'image' %}}{{{{ {picture!r} }}}}{{% else %}}{{{{ {text} }}}}{{% endif %}}"
    turn = f"{begin}{{% for part in message['content'] %}}{said}{{% endfor %}}{end}"
    behind = f"{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    return f"{{% for message in messages %}}{turn}{{% endfor %}}{behind}"


def chatml(picture: str, answer: str = "") -> str:
    """ChatML, as Qwen's, InternVL's, Molmo 2's and LFM2's."""
    begin, end = "{{ '<|im_start|>' + message['role'] + '\n' }}", "{{ '<|im_end|>\n' }}"
    return turns(begin, picture, end, "{{ '<|im_start|>assistant\n' }}" + answer)


def keep(
    folder: Path,
    kind: str,
    tokenizer: Any,
    vision: dict[str, Any],
    text: dict[str, Any],
    images: dict[str, Any],
    processor: dict[str, Any] | None = None,
    **values: Any,
) -> None:
    """Tokenizer, model and processor of the classes of that name; what the config says in tokens is written as ids."""
    tokenizer.save_pretrained(folder)
    ids, find = special(tokenizer), tokenizer.convert_tokens_to_ids
    values = {key: find(value) if isinstance(value, str) else value for key, value in values.items()}
    text = {"vocab_size": len(tokenizer), **LANGUAGE, **text, **ids}
    config = getattr(tf, f"{kind}Config")(vision_config=vision, text_config=text, **values, **ids)
    save(getattr(tf, f"{kind}ForConditionalGeneration"), config, folder)
    classes = {"processor_class": f"{kind}Processor", "image_processor_type": f"{kind}ImageProcessor", **images}
    write(folder, "preprocessor_config.json", classes)
    if processor is not None:
        write(folder, "processor_config.json", {"processor_class": classes["processor_class"], **processor})


def qwen3_vl(folder: Path) -> None:
    """As Qwen/Qwen3-VL-8B-Instruct, whose DeepStack puts features of middle layers into the first of the language."""
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>")
    tokenizer = qwen_tokenizer("<|im_start|>", "<|im_end|>", *QWEN_MARKS, chat_template=template)
    _qwen(folder, tokenizer, "Qwen3VL", {"deepstack_visual_indexes": [0]}, {"head_dim": 8})


def qwen3_5(folder: Path) -> None:
    """As Qwen/Qwen3.5-9B: three layers of linear attention to one of full attention, a thought before the answer."""
    answer = "{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and not enable_thinking else '<think>\n' }}"
    template = chatml("<|vision_start|><|image_pad|><|vision_end|>", answer)
    tokenizer = tf.Qwen3_5Tokenizer(vocab=numbered(*byte_level(), "<|endoftext|>"), merges=[], chat_template=template)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", *QWEN_MARKS]})
    tokenizer.add_tokens([*THOUGHT])
    _qwen(folder, tokenizer, "Qwen3_5", {}, {"head_dim": 16, **LINEAR})


QWEN_IDS = {
    **{"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"},
    **{"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"},
}
QWEN_IMAGES: dict[str, Any] = {
    **{"image_processor_type": "Qwen2VLImageProcessor", "size": {"shortest_edge": 64**2, "longest_edge": 128**2}},
    **{"patch_size": 16, "merge_size": 2, **HALF, "temporal_patch_size": 2},
}


def _qwen(folder: Path, tokenizer: Any, kind: str, vision: dict[str, Any], text: dict[str, Any]) -> None:
    grid = {"patch_size": 16, "out_hidden_size": 32, "num_position_embeddings": 64}
    text = {"rope_parameters": SECTIONS, **text}
    images = {"processor_class": "Qwen3VLProcessor", **QWEN_IMAGES}
    keep(folder, kind, tokenizer, {**VISION, **grid, **vision}, text, images, **QWEN_IDS)


def internvl(folder: Path) -> None:
    """As OpenGVLab/InternVL3-8B-hf."""
    named = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    more = {**named, "video_token": "<video>"}
    tokenizer = qwen_tokenizer(
        *("<|im_start|>", "<|im_end|>", *more.values(), "<ref>", "</ref>", "<box>", "</box>"),
        extra_special_tokens=more,
        chat_template=chatml("<IMG_CONTEXT>\n"),
    )
    vision = {**TOWER, "image_size": [56, 56], "patch_size": [14, 14]}
    tiles = {"size": {"height": 56, "width": 56}, "crop_to_patches": False, "min_patches": 1, "max_patches": 4}
    images = {"image_processor_type": "GotOcr2ImageProcessor", **tiles, **STEPS, **CLIP}
    ids: dict[str, Any] = {"image_token_id": "<IMG_CONTEXT>", "image_seq_length": 4}
    keep(folder, "InternVL", tokenizer, vision, {"model_type": "qwen2"}, images, {"image_seq_length": 4}, **ids)


OFF = "enable_thinking is defined and not enable_thinking"


def gemma4(folder: Path) -> None:
    """As google/gemma-4-31B-it, whose picture sees all of itself; two of its three tokens a side are pooled here."""
    named = {"boi_token": "<|image>", "eoi_token": "<image|>", "image_token": "<|image|>", "boa_token": "<|audio>"}
    more = {**named, "eoa_token": "<audio|>", "audio_token": "<|audio|>"}
    template = turns(
        "{{ '<|turn>' + message['role'] + '\n' }}",
        "<|image|>",
        "{{ '<turn|>\n' }}",
        "{{ '<|turn>model\n' if enable_thinking | default(false) else '<|turn>model\n<|channel>thought\n<channel|>' }}",
        "part['text'] | trim",
    )
    think = "{% if enable_thinking | default(false) %}{{ '<|turn>system\n<|think|>\n<turn|>\n' }}{% endif %}"
    tokenizer = gemma_tokenizer(
        *("<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>", *more.values()),
        extra_special_tokens=more,
        chat_template="{{ bos_token }}" + think + template,
    )
    kinds = {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"], "global_head_dim": 16}
    text = {
        **{"vocab_size": len(tokenizer) + 1, "head_dim": 8, "use_bidirectional_attention": "vision", **kinds},
        **{"vocab_size_per_layer_input": len(tokenizer), "hidden_size_per_layer_input": 8},
    }
    vision = {**TOWER, "num_key_value_heads": 4, "head_dim": 8, "position_embedding_size": 64}
    ids: dict[str, Any] = {"image_token_id": "<|image|>", "boi_token_id": "<|image>", "eoi_token_id": "<image|>"}
    ids |= {"audio_config": None, "video_token_id": len(tokenizer)}  # the processor adds it
    keep(folder, "Gemma4", tokenizer, vision, text, {"max_soft_tokens": 70}, **ids)


def glm4v(folder: Path) -> None:
    """As zai-org/GLM-4.6V-Flash."""
    marks = [f"<|{word}{kind}|>" for kind in ("image", "video") for word in ("begin_of_", "end_of_", "")]
    template = "[gMASK]<sop>" + turns(
        "{{ '<|' + message['role'] + '|>\n' }}",
        "<|begin_of_image|><|image|><|end_of_image|>",
        f"{{% if {OFF} %}}{{{{ '/nothink' }}}}{{% endif %}}",
        f"<|assistant|>{{% if {OFF} %}}{{{{ '\n<think></think>' }}}}{{% endif %}}",
    )
    turn = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
    tokenizer = _bytes(*turn, *marks, chat_template=template, also=[*THOUGHT, "<|begin_of_box|>", "<|end_of_box|>"])
    vision = {**VISION, "model_type": "glm4v_vision", "out_hidden_size": 32, "image_size": 112}
    text = {"model_type": "glm4v_text", "rope_parameters": {**SECTIONS, "partial_rotary_factor": 1.0}}
    size = {"size": {"shortest_edge": 2 * 56**2, "longest_edge": 2 * 112**2}, "patch_size": 14, "merge_size": 2}
    ids = {f"{kind}_token_id": f"<|{kind}|>" for kind in ("image", "video")}
    ids |= {f"{kind}_start_token_id": f"<|begin_of_{kind}|>" for kind in ("image", "video")}
    ids |= {f"{kind}_end_token_id": f"<|end_of_{kind}|>" for kind in ("image", "video")}
    keep(folder, "Glm46V", tokenizer, vision, text, {**size, **CLIP, "temporal_patch_size": 2}, **ids)


def _bytes(*marks: str, also: list[str] | None = None, **more: Any) -> Any:
    """A tokenizer of bytes whose class the checkpoint does not name, as tokenizers' own files are read."""
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=qwen_tokenizer(*marks).backend_tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        **more,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(marks)})
    tokenizer.add_tokens(also or [])
    return tokenizer


def mistral3(folder: Path) -> None:
    """As mistralai/Mistral-Small-3.2-24B-Instruct-2506: Pixtral's tower, a token behind each row of a picture."""
    marks = ("<s>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[IMG]", "[IMG_BREAK]", "[IMG_END]")
    begin = "{{ '[INST]' if message['role'] == 'user' else '[SYSTEM_PROMPT]' }}"
    end = "{{ '[/INST]' if message['role'] == 'user' else '[/SYSTEM_PROMPT]' }}"
    tokenizer = _bytes(*marks, bos_token="<s>", chat_template="{{ bos_token }}" + turns(begin, "[IMG]", end, ""))
    vision = {"model_type": "pixtral", **TOWER, "head_dim": 8, "image_size": 112, "patch_size": 14}
    images = {"processor_class": "PixtralProcessor", "image_processor_type": "PixtralImageProcessor", **STEPS, **CLIP}
    images |= {"size": {"longest_edge": 112}, "patch_size": {"height": 14, "width": 14}}
    text, own = {"model_type": "mistral", "head_dim": 8}, {"patch_size": 14, "spatial_merge_size": 2}
    keep(folder, "Mistral3", tokenizer, vision, text, images, own, image_token_index="[IMG]")


def molmo2(folder: Path) -> None:
    """As allenai/Molmo2-8B, whose tokens for pictures have embeddings of their own behind the others."""
    marks = ("<im_start>", "<im_end>", "<im_patch>", "<im_col>", "<low_res_im_start>", "<|image|>", "<im_low>")
    more = ("<frame_start>", "<frame_end>", "<|video|>")
    template = chatml("<|image|>")
    tokenizer = qwen_tokenizer("<|im_start|>", "<|im_end|>", *marks, *more, chat_template=template)
    known = tokenizer.convert_tokens_to_ids("<im_start>")
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    between = {"vision_feature_layer": [-1, -2], "hidden_size": 32, "intermediate_size": 48, "text_hidden_size": 32}
    keep(
        folder,
        "Molmo2",
        tokenizer,
        {**TOWER, "num_key_value_heads": 4, "head_dim": 8, "image_size": [84, 84], "patch_size": 14},
        {**heads, "vocab_size": known, "additional_vocab_size": len(tokenizer) - known},
        {"size": {"height": 84, "width": 84}, "max_crops": 4, "overlap_margins": [1, 1], "patch_size": 14},
        adapter_config={**between, **heads, "num_key_value_heads": 4},
        image_start_token_id=known,
        image_end_token_id="<im_end>",
        image_patch_id="<im_patch>",
        low_res_image_start_token_id="<low_res_im_start>",
        frame_start_token_id="<frame_start>",
        frame_end_token_id="<frame_end>",
    )


def llama4(folder: Path) -> None:
    """As meta-llama/Llama-4-Scout-17B-16E-Instruct."""
    marks = ("image_start", "image_end", "image", "patch", "tile_x_separator", "tile_y_separator")
    template = "{{ bos_token }}" + turns(
        "{{ '<|header_start|>' + message['role'] + '<|header_end|>\n\n' }}",
        "<|image|>",
        "<|eot|>",
        "{{ '<|header_start|>assistant<|header_end|>\n\n' }}",
    )
    turn = ("<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>")
    named = [f"<|{mark}|>" for mark in marks]
    tokenizer = _bytes(*turn, *named, bos_token="<|begin_of_text|>", chat_template=template)
    vision = {**TOWER, "image_size": 56, "patch_size": 14, "intermediate_size": 128, "vision_output_dim": 32}
    vision |= {"projector_input_dim": 32, "projector_output_dim": 32}
    text = {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 4096}
    images = {"image_processor_type": "Llama4ImageProcessorFast", "size": {"height": 56, "width": 56}, "max_patches": 4}
    ids = {"boi_token_index": "<|image_start|>", "eoi_token_index": "<|image_end|>", "image_token_index": "<|patch|>"}
    keep(folder, "Llama4", tokenizer, vision, text, images, {"patch_size": 14}, **ids)


def lfm2_vl(folder: Path) -> None:
    """As LiquidAI/LFM2-VL-1.6B: short convolutions between the layers of attention, tiles of several shapes."""
    marks = ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>")
    places = [f"<|img_row_{row}_col_{column}|>" for row in range(1, 5) for column in range(1, 5)]
    turn = ("<|startoftext|>", "<|im_start|>", "<|im_end|>")
    template = "{{ bos_token }}" + chatml("<image>")
    tokenizer = _bytes(*turn, *marks, *places, bos_token="<|startoftext|>", chat_template=template)
    vision = {**TOWER, "model_type": "siglip2_vision_model", "num_patches": 16, "patch_size": 8}
    text = {"model_type": "lfm2", "layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}
    size = {"tile_size": 32, "max_tiles": 4, "encoder_patch_size": 8, "min_image_tokens": 4, "max_image_tokens": 8}
    images = {"image_processor_type": "Lfm2VlImageProcessorFast", **size}
    ids: dict[str, Any] = {"image_token_id": "<image>", "projector_hidden_size": 32}
    keep(folder, "Lfm2Vl", tokenizer, vision, text, images, **ids)


def lfm3_vl(folder: Path) -> None:
    """As LiquidAI's LFM3-VL, whose pictures are prepared as Qwen's."""
    template = "{{ bos_token }}" + chatml("<|vision_start|><|image_pad|><|vision_end|>")
    turn = ("<|startoftext|>", "<|im_start|>", "<|im_end|>")
    tokenizer = _bytes(*turn, *QWEN_MARKS, bos_token="<|startoftext|>", chat_template=template)
    text = {"model_type": "lfm3", "layer_types": ["conv", "full_attention"]}
    ids: dict[str, Any] = {**QWEN_IDS, "projector_hidden_size": 32}
    keep(folder, "Lfm3Vl", tokenizer, {**TOWER, "num_key_value_heads": 2}, text, QWEN_IMAGES, **ids)


def perception_lm(folder: Path) -> None:
    """As facebook/Perception-LM-1B, with SigLIP's tower in place of timm's, which wants torchvision."""
    template = "{{ bos_token }}" + turns(
        "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}",
        "<|image|>",
        "<|eot_id|>",
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}",
    )
    named = {"image_token": "<|image|>", "video_token": "<|video|>"}
    turn = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    tokenizer = _bytes(*(*turn, *named.values()), bos_token=turn[0], chat_template=template, extra_special_tokens=named)
    vision = {
        **TOWER,
        "model_type": "siglip_vision_model",
        "image_size": 56,
        "patch_size": 14,
        "vision_use_head": False,
    }
    vision |= {"model_args": {"embed_dim": 32}}  # as timm's config names its width
    images = {"image_processor_type": "PerceptionLMImageProcessorFast", "tile_size": 56, "max_num_tiles": 4}
    ids: dict[str, Any] = {f"{kind}_token_id": f"<|{kind}|>" for kind in ("image", "video")}
    ids |= {"vision_use_cls_token": False, "projector_pooling_ratio": 2}
    own = {"patch_size": 14, "pooling_ratio": 2}
    keep(folder, "PerceptionLM", tokenizer, vision, {"model_type": "llama"}, images, own, **ids)


def minicpmv(folder: Path) -> None:
    """As openbmb/MiniCPM-V-4.6, whose language model is Qwen3.5's."""
    named = {f"{kind}_token": f"<|{kind}_pad|>" for kind in ("image", "video")}
    named |= {f"{kind}_start_token": f"<{kind}>" for kind in ("image", "slice", "image_id")}
    named |= {f"{kind}_end_token": f"</{kind}>" for kind in ("image", "slice", "image_id")}
    answer = f"{{{{ '<think>\n\n</think>\n\n' if {OFF} else '<think>\n' }}}}"
    tokenizer = _bytes(
        *("<|im_start|>", "<|im_end|>", *named.values()),
        also=[*THOUGHT],
        extra_special_tokens=named,
        chat_template=chatml("<|image_pad|>", answer),
    )
    vision = {**TOWER, "image_size": 112, "patch_size": 14, "insert_layer_id": 0}
    text = {"model_type": "qwen3_5_text", "rope_parameters": SECTIONS, "head_dim": 16, **LINEAR}
    ids: dict[str, Any] = {f"{kind}_token_id": f"<|{kind}_pad|>" for kind in ("image", "video")}
    ids |= {"insert_layer_id": 0, "image_size": 112}
    images = {"scale_resolution": 112, "max_slice_nums": 4}
    keep(folder, "MiniCPMV4_6", tokenizer, vision, text, images, **ids)


def kimi_k25(folder: Path) -> None:
    """As moonshotai/Kimi-K2.5."""
    marks = ("<|media_begin|>", "<|media_content|>", "<|media_pad|>", "<|media_end|>", "<|kimi_k25_video_placeholder|>")
    template = turns(
        "{{ '<|im_' + message['role'] + '|>' + message['role'] + '<|im_middle|>' }}",
        "<|media_begin|>image<|media_content|><|media_pad|><|media_end|>\n",
        "<|im_end|>",
        "<|im_assistant|>assistant<|im_middle|><think>{{ '</think>' if thinking is defined and not thinking }}",
    )
    turn = ("<|im_user|>", "<|im_system|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>")
    tokenizer = _bytes(*turn, *marks, also=[*THOUGHT], chat_template=template)
    low = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
    experts |= {"first_k_dense_replace": 1, "moe_intermediate_size": 16}
    text = {"model_type": "deepseek_v3", "num_key_value_heads": 4, **low, **experts}
    ids: dict[str, Any] = {"image_token_id": "<|media_pad|>", "video_token_id": "<|kimi_k25_video_placeholder|>"}
    ids |= {"vision_start_token_id": "<|media_begin|>", "vision_end_token_id": "<|media_end|>"}
    images = {"size": {"max_height": 8, "max_width": 8}, "max_patches": 64}
    vision = {**TOWER, "pos_emb_height": 8, "pos_emb_width": 8}
    keep(folder, "Kimi_K25", tokenizer, vision, text, images, projection_hidden_size=32, **ids)


BUILDERS: dict[str, Callable[[Path], None]] = {
    one.__name__: one
    for one in (
        *(qwen3_vl, qwen3_5, internvl, gemma4, glm4v, molmo2, llama4, mistral3),
        *(lfm2_vl, lfm3_vl, perception_lm, minicpmv, kimi_k25),
    )
}
"""By the name of the family."""
