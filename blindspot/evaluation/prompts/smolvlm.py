"""SmolVLM2 as VLMEvalKit's adapter asks it (September 2025): whole texts, a template per group of benchmarks."""

from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.prompts.marks import harmless, pictures_first, pictures_inside
from blindspot.evaluation.prompts.texts import data_set, wording
from blindspot.question import Question

_BEGIN, _END = "<|im_start|>User:", "<end_of_utterance>\nAssistant:"
_SELECT = "Please select the correct answer from the options above."


def smolvlm(question: Question) -> Prompt:
    """SmolVLM2: ``User:`` and ``Assistant:``, with ``Choices`` and ``Answer:`` where the adapter has them."""
    pictures, text = len(question.images), data_set(question).strip()
    said, shown = harmless(text), PICTURE * pictures
    match wording(question).smolvlm:
        case "default":
            whole = f"{_BEGIN}{shown}{said}{_END}"
        case "brief":
            whole = f"{_BEGIN}{shown}{said}\nGive a very brief answer.{_END}"
        case "letter":
            whole = f"{_BEGIN}{shown}{_choices(said, 'Answer with the letter.')}{_END} Answer:"
        case "mmbench":
            whole = f"{_BEGIN}{shown}{_choices(said, 'Answer with a letter.')}{_END} Answer:"
        case "mmmu":
            whole = _mmmu(pictures, data_set(question))
    return Prompt(pictures_first(pictures, text), text=whole)


def _mmmu(pictures: int, text: str) -> str:
    listed = "".join(f"<image {number + 1}>:{PICTURE}\n" for number in range(pictures))
    said, number = "", 0
    for piece in pictures_inside(pictures, text):
        if piece == PICTURE:
            number += 1
            said += f" <image {number}> "
        else:
            said += _choices(piece.strip().replace("Question:", ""), "Answer with the letter.").strip()
    whole = f"{_BEGIN} Question: {listed}{said}{_END}"
    return whole + " Answer:" if "A." in whole and "B." in whole else whole


def _choices(text: str, request: str) -> str:
    return text.replace("\nOptions:", "\nChoices:").replace(_SELECT, request)
