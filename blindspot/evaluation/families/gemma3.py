"""Gemma 3."""

from blindspot.evaluation.families.base import Family

FAMILY = Family(
    name="gemma3",
    title="Gemma 3",
    model_types=("gemma3",),
    checkpoints=("google/gemma-3-4b-it", "google/gemma-3-12b-it"),
    names=r"\bgemma[-_]?3(?![nb\d]|[-_:](1b|270m))",
    dtype="bfloat16",
    boxes="gemma-1000-yx",
    box_prompt="Detect {phrase}. Answer with JSON: box_2d as [y0, x0, y1, x1], from 0 to 1000, and label.",
    prompts="gemma3",
    nested=True,
)
