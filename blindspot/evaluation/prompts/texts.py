"""What harnesses say around a question; what is particular to a benchmark stands in its file.

The words are facts of VLMEvalKit (September 2025, the study's) and of LLaVA's own evaluation scripts.
"""

import re
from collections.abc import Iterator

from blindspot.benchmarks.base import Wording
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.question import Question

LETTER, LETTER_CHINESE = "\nAnswer with the option's letter from the given choices directly.", "\n请直接回答选项字母。"
DIRECTLY, DIRECTLY_CHINESE = "\nAnswer the question directly.", "\n请直接回答问题。"
SHORT = "\nAnswer the question using a single word or phrase."
YES_OR_NO = re.compile(r"\s*Please answer yes or no\.?\s*$", re.IGNORECASE)

_CHINESE = re.compile("[\u4e00-\u9fff]")


def wording(question: Question) -> Wording:
    """What is particular to the question's benchmark."""
    found = BENCHMARKS.get(question.benchmark)
    return found.wording if found else Wording()


def is_lettered(question: Question) -> bool:
    """Whether VLMEvalKit has the question as multiple choice; open questions of MMMU are so too."""
    return wording(question).lettered or question.kind == "mcq"


def options(question: Question) -> Iterator[tuple[str, str]]:
    """Letters and texts of the options, if it has lettered ones."""
    if question.kind == "mcq":
        for place, text in enumerate(question.choices):
            yield chr(ord("A") + place), text


def with_options(question: Question, behind_letter: str = ".") -> str:
    """The question and its options, one a line."""
    return question.prompt + "".join(f"\n{letter}{behind_letter} {text}" for letter, text in options(question))


def llava_adapter(question: Question) -> str:
    """The text that VLMEvalKit's LLaVA adapters send: their own for multiple choice, the data set's for the rest."""
    if not is_lettered(question):
        return data_set(question)
    text = with_options(question)
    chinese = _CHINESE.search(text) is not None
    if any(options(question)):
        return text + (LETTER_CHINESE if chinese else LETTER)
    return text + (DIRECTLY_CHINESE if chinese else DIRECTLY)


def data_set(question: Question) -> str:
    """The text that VLMEvalKit's data sets send to models without a prompt of their own."""
    particular = wording(question)
    if particular.listed:
        lines = "".join(f"\n({letter}) {option}" for letter, option in options(question))
        published = str(question.groups.get("prompt", ""))
        return published if published.endswith(lines) and lines else question.prompt + particular.listed + lines
    if not is_lettered(question):
        return question.prompt + particular.suffix
    text = f"Question: {question.prompt}\n"
    if any(options(question)):
        lines = "".join(f"{letter}. {option}\n" for letter, option in options(question))
        text += f"Options:\n{lines}Please select the correct answer from the options above. \n"
    return text


def llava_scripts(question: Question) -> str:
    """The text of LLaVA's own evaluation: a letter or a short answer is asked for, in the words of its training."""
    text = with_options(question)
    if any(options(question)):
        return text + (LETTER_CHINESE if _CHINESE.search(text) else LETTER)
    return YES_OR_NO.sub("", text) + SHORT
