"""Any other image-text model of transformers, asked by its own chat template."""

from blindspot.evaluation.families.base import Family

FAMILY = Family(
    name="generic",
    title="any chat model",
    model_types=(),
    checkpoints=(),
    names=None,
    dtype="auto",
    prompts="plain",
    boxes=None,
)
