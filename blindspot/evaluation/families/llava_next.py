"""LLaVA-NeXT (LLaVA 1.6)."""

from blindspot.evaluation.families.base import Family

FAMILY = Family(
    name="llava_next",
    title="LLaVA-NeXT",
    model_types=("llava_next",),
    checkpoints=(
        "llava-hf/llava-v1.6-vicuna-7b-hf",
        "llava-hf/llava-v1.6-mistral-7b-hf",
        "llava-hf/llama3-llava-next-8b-hf",
    ),
    names=r"\bllava[-_]?(v?1[._-]6|next(?![-_](video|interleave)))",
    dtype="float16",
    prompts="llava_next",
)
