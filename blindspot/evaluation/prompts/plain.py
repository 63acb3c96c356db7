"""The question and nothing else."""

from blindspot.evaluation.base import Prompt
from blindspot.evaluation.prompts.marks import pictures_first
from blindspot.evaluation.prompts.texts import with_options
from blindspot.question import Question


def plain(question: Question) -> Prompt:
    """Pictures, the question and its options; no request for a form of answer."""
    return Prompt(pictures_first(len(question.images), with_options(question)), longest=512)
