"""LLaVA-OneVision."""

from typing import Any

from blindspot.evaluation.base import Prompt
from blindspot.evaluation.families.base import Family, apply, mark, messages


def _template(processor: Any, prompt: Prompt) -> str:
    """The checkpoint's chat template around one text, in which each picture is a line of its own.

    As VLMEvalKit's adapter has it: the template would move pictures that stand between words to the front.
    """
    *system, user = messages(processor, prompt)
    lines = (f"{mark(processor)}\n" if part["type"] == "image" else part["text"] for part in user["content"])
    return apply(processor, [*system, {"role": "user", "content": [{"type": "text", "text": "".join(lines)}]}])


FAMILY = Family(
    name="llava_onevision",
    title="LLaVA-OneVision",
    model_types=("llava_onevision",),
    checkpoints=("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava-hf/llava-onevision-qwen2-7b-si-hf"),
    names=r"\bllava[-_]?onevision(?![-_]1[._]5)",
    dtype="float16",
    prompts="llava_onevision",
    template=_template,
)
