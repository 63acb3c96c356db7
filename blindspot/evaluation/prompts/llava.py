"""LLaVA-1.5 as its authors ask it, and as the study's evaluation code asked it."""

from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.prompts.marks import harmless, pictures_first
from blindspot.evaluation.prompts.texts import llava_adapter, llava_scripts
from blindspot.question import Question

PAPER_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
"""Not LLaVA's, which says "user": VLMEvalKit has this one in its code since July 2024."""


def llava(question: Question) -> Prompt:
    """LLaVA-1.5's own evaluation: pictures, each on a line, the question, and a request for a letter or a word.

    The family adds LLaVA's template. As in LLaVA's scripts an answer has at most 128 tokens.
    """
    return Prompt(pictures_first(len(question.images), llava_scripts(question)), longest=128)


def paper(question: Question) -> Prompt:
    """What VLMEvalKit sent for the study: another system text, the picture inline, a blank behind ``ASSISTANT:``."""
    text = llava_adapter(question)
    shown = f" {PICTURE} " * len(question.images) + harmless(text)
    return Prompt(
        pictures_first(len(question.images), text),
        system=PAPER_SYSTEM,
        text=f"{PAPER_SYSTEM}USER: {shown} ASSISTANT: ",
    )
