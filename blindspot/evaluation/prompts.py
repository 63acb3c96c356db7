"""Prompt profiles: from a question to what a model is asked, in the words of the harnesses.

A question whose ``images`` are empty is asked blind. The words are facts of VLMEvalKit (September 2025, the study's)
and of LLaVA's own evaluation scripts; what is particular to a benchmark stands in its file.
"""

import re
from collections.abc import Callable
from dataclasses import replace

from blindspot.benchmarks.base import Wording
from blindspot.benchmarks.registry import BENCHMARKS
from blindspot.benchmarks.rules import LATER, LMMS_EVAL, OFFICIAL
from blindspot.benchmarks.words import POINTS_AS_JSON, published
from blindspot.errors import UserError, one_of
from blindspot.evaluation.base import LONGEST, PICTURE, Part, Picture, Prompt
from blindspot.question import Question

Profile = Callable[[Question], Prompt]

LETTER = "\nAnswer with the option's letter from the given choices directly.", "\n请直接回答选项字母。"
DIRECTLY = "\nAnswer the question directly.", "\n请直接回答问题。"
"""In English, and behind a question with Chinese characters."""
SHORT = "\nAnswer the question using a single word or phrase."
REQUESTS = {
    "yes_no": "\nPlease answer yes or no.",
    "count": "\nAnswer with a whole number.",
    "number": "\nAnswer with one number in digits.",
    "text": SHORT,
    "points": f"\n{POINTS_AS_JSON}",
}
"""Behind questions of a user's own, by kind, where a harness has its data sets say how they are to be answered."""
YES_OR_NO = re.compile(r"\s*Please answer yes or no\.?\s*$", re.IGNORECASE)
PAPER_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions. "
)
"""Not LLaVA's, which says "user": VLMEvalKit has this one in its code since July 2024."""

_REFERENCE = re.compile(r"<image (\d)>")


def _wording(question: Question) -> Wording:
    """What is particular to the question's benchmark."""
    found = BENCHMARKS.get(question.benchmark)
    return found.wording if found else Wording(suffix=REQUESTS.get(question.kind, ""))


def _options(question: Question) -> list[tuple[str, str]]:
    """Letters and texts of the options, if it has lettered ones."""
    choices = question.choices if question.kind == "mcq" else ()
    return [(chr(ord("A") + place), text) for place, text in enumerate(choices)]


def _with_options(question: Question, behind_letter: str = ".") -> str:
    return question.prompt + "".join(f"\n{letter}{behind_letter} {text}" for letter, text in _options(question))


def _then(text: str, request: tuple[str, str]) -> str:
    """A text and the request behind it, in the text's language."""
    return text + request[bool(re.search("[\u4e00-\u9fff]", text))]


def _llava_adapter(question: Question) -> str:
    """The text that VLMEvalKit's LLaVA adapters send: their own for multiple choice, the data set's for the rest.

    VLMEvalKit has the open questions of some benchmarks (MMMU's) as multiple choice too: ``lettered``.
    """
    if not (_wording(question).lettered or question.kind == "mcq"):
        return _data_set(question)
    return _then(_with_options(question), LETTER if _options(question) else DIRECTLY)


def _data_set(question: Question) -> str:
    """The text that VLMEvalKit's data sets send to models without a prompt of their own."""
    particular, options = _wording(question), _options(question)
    if later := BENCHMARKS[question.benchmark].prompts.get(LATER) if question.benchmark in BENCHMARKS else None:
        return later(question)
    if particular.listed:
        return published(question, particular.listed)
    if not (particular.lettered or question.kind == "mcq"):
        return question.prompt + particular.suffix
    text = f"Question: {question.prompt}\n"
    if options:
        lines = "".join(f"{letter}. {option}\n" for letter, option in options)
        text += f"Options:\n{lines}Please select the correct answer from the options above. \n"
    return text


def pictures_inside(pictures: int, text: str) -> tuple[Part, ...]:
    """A user's turn with each picture in place of the ``<image 1>``, ``<image 2>``, ... that names it.

    A text that does not name each picture once and in order keeps its words, and the pictures come first.
    """
    if _REFERENCE.findall(text) != [str(number + 1) for number in range(pictures)]:
        return (*(PICTURE,) * pictures, text)
    parts = [PICTURE if place % 2 else piece for place, piece in enumerate(_REFERENCE.split(text))]
    return tuple(part for part in parts if part)


def without_pictures(text: str) -> str:
    """The pieces of a text around its ``<image 1>``, ``<image 2>``, ..., one a line."""
    return "\n".join(_REFERENCE.split(text)[::2])


def _shown(question: Question, text: str, longest: int = LONGEST) -> Prompt:
    """The question's pictures, and the text behind them."""
    return Prompt((*(PICTURE,) * len(question.images), text), longest=longest)


def llava(question: Question) -> Prompt:
    """LLaVA-1.5's own evaluation: pictures, each on a line, the question, and a request for a letter or a word.

    The adapter adds LLaVA's template. As in LLaVA's scripts an answer has at most 128 tokens.
    """
    text = _with_options(question)
    text = _then(text, LETTER) if _options(question) else YES_OR_NO.sub("", text) + SHORT
    return _shown(question, text, longest=128)


def paper(question: Question) -> Prompt:
    """What VLMEvalKit sent for the study: another system text, the picture inline, a blank behind ``ASSISTANT:``."""
    shown = (" ", PICTURE, " ") * len(question.images)
    return Prompt((f"{PAPER_SYSTEM}USER: ", *shown, _llava_adapter(question), " ASSISTANT: "), whole=True)


def by_data_set(question: Question) -> Prompt:
    """LLaVA-OneVision and Qwen2.5-VL: the data set's text in the checkpoint's template."""
    text = _data_set(question)
    if _wording(question).named_pictures:
        return Prompt(pictures_inside(len(question.images), text))
    return _shown(question, text)


def _first_picture(question: Question, text: str, longest: int) -> Prompt:
    text = without_pictures(text) if _wording(question).named_pictures else text
    return Prompt((*(PICTURE,) * min(1, len(question.images)), text), longest=longest)


def molmo(question: Question) -> Prompt:
    """Molmo: the first picture and a style prefix that names a data set of its training."""
    lettered = _options(question)
    text = f"a_okvqa_mc: {_with_options(question, ':')}" if lettered else f"vqa2: {question.prompt}"
    return _first_picture(question, text, longest=200)


def smolvlm(question: Question) -> Prompt:
    """SmolVLM2 as VLMEvalKit's adapter asks it: ``User:``, ``Assistant:``, a template per group of benchmarks."""
    pictures, text = (PICTURE,) * len(question.images), _data_set(question).strip()
    lead = ""
    match _wording(question).smolvlm:
        case "default":
            said: tuple[Part, ...] = (*pictures, text)
        case "brief":
            said = (*pictures, text, "\nGive a very brief answer.")
        case "letter":
            said, lead = (*pictures, _choices(text, "Answer with the letter.")), " Answer:"
        case "mmbench":
            said, lead = (*pictures, _choices(text, "Answer with a letter.")), " Answer:"
        case "mmmu":
            said = _smolvlm_mmmu(len(pictures), _data_set(question))
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


def _harness(name: str) -> Profile:
    """The words of a harness, where its benchmark's file has them; pictures in front, or where a text names them."""

    def asked(question: Question) -> Prompt:
        found = BENCHMARKS.get(question.benchmark)
        if found is None or name not in found.prompts:
            raise UserError(f"{question.benchmark} has no words of {name}; choose another --prompts")
        parts = pictures_inside(len(question.images), found.prompts[name](question))
        return Prompt(parts, longest=found.longest.get(name, LONGEST))

    return asked


PROFILES: dict[str, Profile] = {
    "llava": llava,
    "paper": paper,
    "plain": lambda question: _shown(question, _with_options(question), longest=512),  # no request for a form of answer
    "llava_next": lambda question: _shown(question, _llava_adapter(question)),
    "llava_onevision": by_data_set,
    "qwen2_5_vl": by_data_set,
    "smolvlm": smolvlm,
    "internvl": lambda question: _shown(question, _llava_adapter(question), longest=4096),
    **dict.fromkeys(
        (
            *("qwen3_vl", "qwen3_5", "gemma4", "glm4v", "molmo2", "llama4", "mistral3"),
            *("lfm2_vl", "lfm3_vl", "perception_lm", "minicpmv", "kimi_k25"),
        ),
        by_data_set,
    ),
    "gemma3": lambda question: replace(by_data_set(question), system="You are a helpful assistant. ", longest=4096),
    # without the task prefix that PaliGemma was trained with
    "paligemma": lambda question: _first_picture(question, _data_set(question), longest=512),
    "molmo": molmo,
    **{name: _harness(name) for name in (OFFICIAL, LATER, LMMS_EVAL)},
}
"""By name; a family's own has the family's name, a harness's that of its scoring profile."""


def profile(name: str) -> Profile:
    """The prompt profile of that name."""
    one_of(name, PROFILES, "prompts", "profile")
    return PROFILES[name]
