"""Tiny random Llava models, and writers of the published formats that share no code with the readers.

Names are those of the published checkpoints; tensors from transformers' own Llava, which is also the reference.
"""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from transformers import (
    Aimv2VisionConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

WORDS = ["<unk>", "<s>", "</s>", *(f"w{number}" for number in range(37))]
TEXT_ROWS, ROWS, IMAGE = len(WORDS), 64, len(WORDS)  # the published 32000, 32064 and 32000
SIZE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
FAMILIES = ("clip", "siglip", "aimv2")
LAYERS = ("hidden_layers", "attention_heads", "key_value_heads")
IMAGES = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}


def vision_config(family: str, width: int = 16) -> Any:
    size: dict[str, Any] = {**SIZE, "hidden_size": width, "intermediate_size": 24}
    if family == "clip":
        return CLIPVisionConfig(**size)
    if family == "siglip":
        return SiglipVisionConfig(**size, vision_use_head=False)
    return Aimv2VisionConfig(**size, use_head=False)


def tokenizer(with_image: bool) -> PreTrainedTokenizerFast:
    core = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>", padding_side="left"
    )
    if with_image:
        fast.add_special_tokens({"additional_special_tokens": ["<image>"]})
        fast.add_special_tokens({"pad_token": "<pad>"})
    return fast


def apple_names(tensors: dict[str, Tensor], layers: int) -> dict[str, Tensor]:
    """An AIMv2 tower as Apple first released it."""
    named = {
        "preprocessor.patchifier.proj.weight": tensors["embeddings.patch_embed.weight"],
        "preprocessor.patchifier.proj.bias": tensors["embeddings.patch_embed.bias"],
        "preprocessor.patchifier.norm.weight": tensors["embeddings.rms_norm.weight"],
        "preprocessor.pos_embed": tensors["embeddings.position_embedding.weight"][None],
        "trunk.post_trunk_norm.weight": tensors["rms_norm.weight"],
    }
    for layer in range(layers):
        old, new = f"encoder.layers.{layer}.", f"trunk.blocks.{layer}."
        joint = [tensors[f"{old}attention.{part}_proj.weight"] for part in "qkv"]
        named[f"{new}attn.qkv.weight"] = torch.cat(joint)
        named[f"{new}attn.proj.weight"] = tensors[f"{old}attention.out_proj.weight"]
        named[f"{new}norm_1.weight"] = tensors[f"{old}rms_norm1.weight"]
        named[f"{new}norm_2.weight"] = tensors[f"{old}rms_norm2.weight"]
        named[f"{new}mlp.fc1.weight"] = tensors[f"{old}ffn.gate_proj.weight"]
        named[f"{new}mlp.fc2.weight"] = tensors[f"{old}ffn.down_proj.weight"]
        named[f"{new}mlp.fc3.weight"] = tensors[f"{old}ffn.up_proj.weight"]
    return named


class Reference(NamedTuple):
    """transformers' own Llava, whose tensors the checkpoints hold."""

    family: str
    model: Any

    def language(self) -> dict[str, Tensor]:
        return {name: one.data for name, one in self.model.model.language_model.named_parameters()}

    def tower(self) -> dict[str, Tensor]:
        return {name: one.data for name, one in self.model.model.vision_tower.named_parameters()}

    def projector(self) -> dict[str, Tensor]:
        return dict(self.model.model.multi_modal_projector.state_dict())

    def inputs(self, side: str) -> dict[str, Tensor]:
        """A batch of a text, a question about one image and one about two, padded on ``side``."""
        image = [IMAGE] * 4
        rows = [[1, 5, 6, 7], [1, *image, 9, 10, 11, 12], [1, 13, *image, 14, *image, 15]]
        longest = max(len(row) for row in rows)
        blanks = [longest - len(row) for row in rows]
        pads = [([0] * n, []) if side == "left" else ([], [0] * n) for n in blanks]
        ids = [before + row + behind for row, (before, behind) in zip(rows, pads, strict=True)]
        mask = [before + [1] * len(row) + behind for row, (before, behind) in zip(rows, pads, strict=True)]
        pixels = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
        return {
            "input_ids": torch.tensor(ids),
            "attention_mask": torch.tensor(mask),
            "pixel_values": pixels.to(self.model.dtype),
        }


@pytest.fixture(scope="session")
def reference() -> Callable[..., Reference]:
    """(family, dtype) -> a tiny Llava with random weights."""

    @cache
    def make(family: str, dtype: torch.dtype = torch.float32) -> Reference:
        torch.manual_seed(0)
        text = LlamaConfig(
            vocab_size=ROWS,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        config = LlavaConfig(
            vision_config=vision_config(family),
            text_config=text,
            image_token_index=IMAGE,
            image_seq_length=4,
            vision_feature_select_strategy="default" if family == "clip" else "full",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        model: Any = LlavaForConditionalGeneration(config)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)  # transformers' small start values would hide differences
        for table in (model.model.language_model.embed_tokens.weight, model.lm_head.weight):
            table.data[TEXT_ROWS:] = table.data[:TEXT_ROWS].to(dtype).float().mean(dim=0)
        for parameter in model.parameters():  # not `model.to`, which would round the rotary frequencies too
            parameter.data = parameter.data.to(dtype)
        return Reference(family, model.eval())

    return make


def write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values))


def write_llava_hf(folder: Path, source: Reference, names: str = "published") -> Path:
    """``llava-hf`` as published, or with the names that transformers 4.52 (``middle``) or 5 (``memory``) has."""
    language, lm_head, tower, projector = {
        "published": ("language_model.model.", "language_model.lm_head.", "vision_tower.", "multi_modal_projector."),
        "middle": ("model.language_model.", "lm_head.", "model.vision_tower.", "model.multi_modal_projector."),
        "memory": ("model.language_model.", "lm_head.", "model.vision_tower.", "model.multi_modal_projector."),
    }[names]
    if source.family != "aimv2" and names != "memory":
        tower += "vision_model."
    tensors = {f"{language}{row}": tensor for row, tensor in source.language().items()}
    tensors |= {f"{tower}{row}": tensor for row, tensor in source.tower().items()}
    tensors |= {f"{projector}{row}": tensor for row, tensor in source.projector().items()}
    tensors[f"{lm_head}weight"] = source.model.lm_head.weight.data
    folder.mkdir()
    shards = {
        "model-00001-of-00002.safetensors": sorted(tensors)[::2],
        "model-00002-of-00002.safetensors": sorted(tensors)[1::2],
    }
    for shard, members in shards.items():
        save_file({name: tensors[name].contiguous() for name in members}, folder / shard, metadata={"format": "pt"})
    places = {name: shard for shard, members in shards.items() for name in members}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})
    source.model.config.save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(**IMAGES),
        tokenizer=tokenizer(True),
        patch_size=8,
        vision_feature_select_strategy=source.model.config.vision_feature_select_strategy,
        num_additional_image_tokens=int(source.family == "clip"),
    ).save_pretrained(folder)
    return folder


def write_tower(folder: Path, source: Reference, apple: bool = False, weights: bool = True) -> Path:
    """The image encoder as its makers publish it: with the text encoder's tensors, a pooling head and old buffers."""
    folder.mkdir(parents=True)
    write_json(folder / "preprocessor_config.json", {"image_processor_type": "CLIPImageProcessor", **IMAGES})
    vision = source.model.config.vision_config.to_dict()
    if source.family == "aimv2":
        kept = {key: vision[key] for key in (*SIZE, "intermediate_size", "rms_norm_eps", "qkv_bias")}
        write_json(folder / "config.json", {"model_type": "aimv2", **kept} if apple else vision)
        tensors = apple_names(source.tower(), 3) if apple else source.tower()
    else:
        kind = {"clip": "clip", "siglip": "siglip"}[source.family]
        write_json(folder / "config.json", {"model_type": kind, "vision_config": vision, "text_config": {}})
        tensors = {f"vision_model.{row}": tensor for row, tensor in source.tower().items()}
        extra = ["text_model.embeddings.token_embedding.weight", "logit_scale", "visual_projection.weight"]
        extra += ["vision_model.head.probe", "vision_model.embeddings.position_ids"]
        tensors |= {name: torch.ones(2) for name in extra}
    if weights:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    return folder


def write_original(
    folder: Path,
    source: Reference,
    tower: str,
    inside: dict[str, Tensor] | None = None,
    separate: bool = False,
    shards: int = 2,
    changes: dict[str, Any] | None = None,
    kind: str = "llava",
) -> Path:
    """liuhaotian's format: pickled shards with an index, rotary buffers among them.

    Args:
        folder: to write.
        source: what to write.
        tower: ``mm_vision_tower``.
        inside: the tower's tensors, if they are to be saved along, under names behind ``model.vision_tower.``.
        separate: put the connector into ``mm_projector.bin`` only.
        shards: number of ``.bin`` files; with 1, there is no index; with 0, one safetensors file.
        changes: other values in config.json.
        kind: its ``model_type``.
    """
    text = source.model.config.text_config
    layers = ("hidden_size", "intermediate_size", *(f"num_{k}" for k in LAYERS))
    tensors = {f"model.{row}": tensor for row, tensor in source.language().items()}
    tensors["lm_head.weight"] = source.model.lm_head.weight.data
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors[name][:TEXT_ROWS].clone()
    tensors |= {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": torch.ones(4) for layer in range(2)}
    names = {"linear_1": "model.mm_projector.0", "linear_2": "model.mm_projector.2"}
    projector = {
        f"{names[row.split('.')[0]]}.{row.split('.')[1]}": tensor for row, tensor in source.projector().items()
    }
    tensors |= {f"model.vision_tower.{name}": tensor.contiguous() for name, tensor in (inside or {}).items()}
    folder.mkdir()
    if separate:
        torch.save(projector, folder / "mm_projector.bin")
    else:
        tensors |= projector
    if shards == 0:
        save_file(tensors, folder / "model.safetensors")
    elif shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        places = {}
        for shard in range(shards):
            file = f"pytorch_model-{shard + 1:05}-of-{shards:05}.bin"
            members = {name: tensors[name] for name in sorted(tensors)[shard::shards]}
            torch.save(members, folder / file)
            places |= dict.fromkeys(members, file)
        write_json(folder / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": places})
    values = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": kind,
        "vocab_size": TEXT_ROWS,
        **{key: getattr(text, key) for key in (*layers, "max_position_embeddings", "rms_norm_eps")},
        "rope_theta": 500.0,
        "rope_scaling": None,
        "hidden_act": "silu",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "torch_dtype": str(source.model.dtype).removeprefix("torch."),
        "image_aspect_ratio": "pad",
        "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch" if source.family == "clip" else "cls_patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower,
        "tokenizer_model_max_length": 2048,
        "use_mm_proj": True,
        **(changes or {}),
    }
    write_json(folder / "config.json", values)
    tokenizer(False).save_pretrained(folder)
    return folder


class Writers(NamedTuple):
    """The writers above, for tests."""

    llava_hf: Callable[..., Path] = write_llava_hf
    tower: Callable[..., Path] = write_tower
    original: Callable[..., Path] = write_original


@pytest.fixture(scope="session")
def write() -> Writers:
    return Writers()
