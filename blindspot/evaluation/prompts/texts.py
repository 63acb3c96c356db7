"""What harnesses say around a question, as data by benchmark.

The words are facts of VLMEvalKit (September 2025, the study's) and of LLaVA's own evaluation scripts.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from blindspot.question import Question

LETTER, LETTER_CHINESE = "\nAnswer with the option's letter from the given choices directly.", "\n请直接回答选项字母。"
DIRECTLY, DIRECTLY_CHINESE = "\nAnswer the question directly.", "\n请直接回答问题。"
SHORT = "\nAnswer the question using a single word or phrase."
YES_OR_NO = re.compile(r"\s*Please answer yes or no\.?\s*$", re.IGNORECASE)

_CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Texts:
    """What is particular to a benchmark.

    Attributes:
        lettered: VLMEvalKit has it as multiple choice, its questions without options included.
        suffix: VLMEvalKit's data set puts this behind the question.
        listed: VLMEvalKit's data set sends CV-Bench's own text: the question, this, and a line "(A) ..." per option.
        named_pictures: the text names its pictures, ``<image 1>``, and VLMEvalKit's data set puts them there.
        smolvlm: which of the SmolVLM adapter's templates it gets.
    """

    lettered: bool = False
    suffix: str = ""
    listed: str | None = None
    named_pictures: bool = False
    smolvlm: Literal["default", "brief", "letter", "mmbench", "mmmu"] = "default"


TEXTS: dict[str, Texts] = {
    "mmvp": Texts(lettered=True),
    "cvbench_2d": Texts(lettered=True, listed=" Select from the following choices."),
    "tallyqa": Texts(suffix="\nAnswer the question using a single number."),
    "gqa": Texts(suffix=SHORT),
    "vsr": Texts(),
    "topviewrs": Texts(lettered=True),
    "countbenchqa": Texts(
        suffix=" Note that: answer with a number directly e.g. 3. Do not include any additional text."
    ),
    "mmmu_val": Texts(lettered=True, named_pictures=True, smolvlm="mmmu"),
    "mme": Texts(smolvlm="brief"),
    "ccbench": Texts(lettered=True, smolvlm="mmbench"),
    "seedbench_img": Texts(lettered=True, smolvlm="letter"),
}
"""By benchmark; one that is not here has nothing particular."""


def texts_of(question: Question) -> Texts:
    """What is particular to the question's benchmark."""
    return TEXTS.get(question.benchmark, Texts())


def is_lettered(question: Question) -> bool:
    """Whether VLMEvalKit has the question as multiple choice; open questions of MMMU are so too."""
    return texts_of(question).lettered or question.kind == "mcq"


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
    particular = texts_of(question)
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
