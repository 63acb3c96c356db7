"""AIMv2 towers under the names of Apple's first release, before transformers had the model."""

import re
from typing import Any

from transformers import Aimv2VisionConfig

from blindspot.model.formats.weights import Tensors

NAMES = (
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
JOINT = re.compile(r"trunk\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)")


def is_original(tensors: Tensors) -> bool:
    """Whether these are a tower's tensors under the first release's names."""
    return any(name.startswith(("preprocessor.patchifier.", "trunk.blocks.")) for name in tensors)


def rename(tensors: Tensors) -> Tensors:
    """The same tower under transformers' names. Queries, keys and values, stored as one tensor, become three."""
    renamed: Tensors = {}
    for name, tensor in tensors.items():
        joint = JOINT.fullmatch(name)
        if joint:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[f"encoder.layers.{joint[1]}.attention.{part}_proj.{joint[2]}"] = piece
            continue
        for pattern, new in NAMES:
            name = re.sub(f"^{pattern}", new, name)
        renamed[name] = tensor[0] if name == "embeddings.position_embedding.weight" and tensor.ndim == 3 else tensor
    return renamed


def vision_config(values: dict[str, Any], tensors: Tensors) -> Aimv2VisionConfig:
    """transformers' configuration of a tower.

    Args:
        values: the first release's ``config.json``.
        tensors: the tower, under any names: the native-resolution towers are those without a position table.
    """
    known = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels")
    sizes = ("image_size", "patch_size", "rms_norm_eps", "attention_dropout", "qkv_bias")
    table = ("preprocessor.pos_embed", "embeddings.position_embedding.weight")
    return Aimv2VisionConfig(
        **{key: values[key] for key in (*known, *sizes) if key in values},
        mlp_bias=values.get("use_bias", False),
        is_native=not any(name in tensors for name in table),
        use_head=False,
    )
