"""Prompt profiles: from a question to what a model is asked, in the words of the harnesses.

A profile is a function ``Question -> Prompt``. A question whose ``images`` are empty is asked blind. The words are
facts of VLMEvalKit (September 2025, the study's) and of LLaVA's own evaluation scripts; what is particular to a
benchmark stands in its file.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from blindspot.benchmarks.base import Wording
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.errors import one_of
from blindspot.evaluation.base import PICTURE, Part, Picture, Prompt
from blindspot.question import Question

Profile = Callable[[Question], Prompt]

LETTER, LETTER_CHINESE = "\nAnswer with the option's letter from the given choices directly.", "\n请直接回答选项字母。"
DIRECTLY, DIRECTLY_CHINESE = "\nAnswer the question directly.", "\n请直接回答问题。"
SHORT = "\nAnswer the question using a single word or phrase."
YES_OR_NO = re.compile(r"\s*Please answer yes or no\.?\s*$", re.IGNORECASE)

_CHINESE = re.compile("[\u4e00-\u9fff]")
_REFERENCE = re.compile(r"<image (\d)>")
PAPER_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
"""Not LLaVA's, which says "user": VLMEvalKit has this one in its code since July 2024."""


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


def pictures_first(pictures: int, text: str) -> tuple[Part, ...]:
    """A user's turn of pictures and the text behind them."""
    return (*(PICTURE,) * pictures, text)


def pictures_inside(pictures: int, text: str) -> tuple[Part, ...]:
    """A user's turn with each picture in place of the ``<image 1>``, ``<image 2>``, ... that names it.

    A text that does not name each picture once and in order keeps its words, and the pictures come first.
    """
    if _REFERENCE.findall(text) != [str(number + 1) for number in range(pictures)]:
        return pictures_first(pictures, text)
    parts = [PICTURE if place % 2 else piece for place, piece in enumerate(_REFERENCE.split(text))]
    return tuple(part for part in parts if part)


def without_pictures(text: str) -> str:
    """The pieces of a text around its ``<image 1>``, ``<image 2>``, ..., one a line."""
    return "\n".join(_REFERENCE.split(text)[::2])


def llava(question: Question) -> Prompt:
    """LLaVA-1.5's own evaluation: pictures, each on a line, the question, and a request for a letter or a word.

    The adapter adds LLaVA's template. As in LLaVA's scripts an answer has at most 128 tokens.
    """
    text = with_options(question)
    if any(options(question)):
        text += LETTER_CHINESE if _CHINESE.search(text) else LETTER
    else:
        text = YES_OR_NO.sub("", text) + SHORT
    return Prompt(pictures_first(len(question.images), text), longest=128)


def paper(question: Question) -> Prompt:
    """What VLMEvalKit sent for the study: another system text, the picture inline, a blank behind ``ASSISTANT:``."""
    shown = (" ", PICTURE, " ") * len(question.images)
    return Prompt((f"{PAPER_SYSTEM}USER: ", *shown, llava_adapter(question), " ASSISTANT: "), whole=True)


def plain(question: Question) -> Prompt:
    """Pictures, the question and its options; no request for a form of answer."""
    return Prompt(pictures_first(len(question.images), with_options(question)), longest=512)


def llava_next(question: Question) -> Prompt:
    """LLaVA-NeXT: the LLaVA adapter's text in the checkpoint's template."""
    return Prompt(pictures_first(len(question.images), llava_adapter(question)))


def by_data_set(question: Question) -> Prompt:
    """LLaVA-OneVision and Qwen2.5-VL: the data set's text in the checkpoint's template."""
    place = pictures_inside if wording(question).named_pictures else pictures_first
    return Prompt(place(len(question.images), data_set(question)))


def gemma3(question: Question) -> Prompt:
    """Gemma 3: the data set's text behind a system text of the adapter's own."""
    return replace(by_data_set(question), system="You are a helpful assistant. ", longest=4096)


def paligemma(question: Question) -> Prompt:
    """PaliGemma: the first picture and the data set's text, without the task prefix that it was trained with."""
    return Prompt(_one_picture(question, data_set(question)), longest=512)


def molmo(question: Question) -> Prompt:
    """Molmo: the first picture and a style prefix that names a data set of its training."""
    text = f"a_okvqa_mc: {with_options(question, ':')}" if any(options(question)) else f"vqa2: {question.prompt}"
    return Prompt(_one_picture(question, text), longest=200)


def _one_picture(question: Question, text: str) -> tuple[Part, ...]:
    named = wording(question).named_pictures
    return pictures_first(min(1, len(question.images)), without_pictures(text) if named else text)


def smolvlm(question: Question) -> Prompt:
    """SmolVLM2 as VLMEvalKit's adapter asks it: ``User:``, ``Assistant:``, a template per group of benchmarks."""
    pictures, text = (PICTURE,) * len(question.images), data_set(question).strip()
    lead = ""
    match wording(question).smolvlm:
        case "default":
            said: tuple[Part, ...] = (*pictures, text)
        case "brief":
            said = (*pictures, text, "\nGive a very brief answer.")
        case "letter":
            said, lead = (*pictures, _choices(text, "Answer with the letter.")), " Answer:"
        case "mmbench":
            said, lead = (*pictures, _choices(text, "Answer with a letter.")), " Answer:"
        case "mmmu":
            said = _smolvlm_mmmu(len(pictures), data_set(question))
            words = "".join(part for part in said if not isinstance(part, Picture))
            lead = " Answer:" if "A." in words and "B." in words else ""
    return Prompt(("<|im_start|>User:", *said, f"<end_of_utterance>\nAssistant:{lead}"), whole=True)


def _smolvlm_mmmu(pictures: int, text: str) -> tuple[Part, ...]:
    """The pictures listed by name, then the text, which goes on naming them."""
    said: list[Part] = [" Question: "]
    for number in range(pictures):
        said += [f"<image {number + 1}>:", PICTURE, "\n"]
    number = 0
    for part in pictures_inside(pictures, text):
        if isinstance(part, Picture):
            number += 1
            said.append(f" <image {number}> ")
        else:
            said.append(_choices(part.strip().replace("Question:", ""), "Answer with the letter.").strip())
    return tuple(said)


def _choices(text: str, request: str) -> str:
    asked = "Please select the correct answer from the options above."
    return text.replace("\nOptions:", "\nChoices:").replace(asked, request)


PROFILES: dict[str, Profile] = {
    "llava": llava,
    "paper": paper,
    "plain": plain,
    "llava_next": llava_next,
    "llava_onevision": by_data_set,
    "qwen2_5_vl": by_data_set,
    "smolvlm": smolvlm,
    "gemma3": gemma3,
    "paligemma": paligemma,
    "molmo": molmo,
}
"""By name; a family's own has the family's name."""


def profile(name: str) -> Profile:
    """The prompt profile of that name.

    Raises:
        UserError: if there is none.
    """
    one_of(name, PROFILES, "prompts", "profile")
    return PROFILES[name]
