"""Qwen2.5-VL, and Qwen2-VL, which is asked alike."""

from blindspot.evaluation.families.base import Family

_TOKEN = 28 * 28
"""Pixels of one token of the language model."""

FAMILY = Family(
    name="qwen2_5_vl",
    title="Qwen2.5-VL",
    model_types=("qwen2_5_vl", "qwen2_vl"),
    checkpoints=("Qwen/Qwen2.5-VL-7B-Instruct", "Qwen/Qwen2.5-VL-3B-Instruct"),
    names=r"\bqwen[-_]?2([._-]5)?[-_]?vl",
    dtype="bfloat16",
    boxes="qwen-pixels-json",
    box_prompt="Locate {phrase}, output its bbox coordinates using JSON format.",
    prompts="qwen2_5_vl",
    bounds={"size": {"shortest_edge": 1280 * _TOKEN, "longest_edge": 16384 * _TOKEN}},  # areas, whatever their names
    picture="<|vision_start|><|image_pad|><|vision_end|>",
)
