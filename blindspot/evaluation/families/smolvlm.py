"""SmolVLM2, SmolVLM and Idefics3, which share template and processor."""

from blindspot.evaluation.families.base import Family

FAMILY = Family(
    name="smolvlm",
    title="SmolVLM2",
    model_types=("smolvlm", "idefics3"),
    checkpoints=("HuggingFaceTB/SmolVLM2-2.2B-Instruct", "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"),
    names=r"\b(smolvlm|idefics3)",
    dtype="float32",
    prompts="smolvlm",
    nested=True,
)
