"""What VLMEvalKit's adapters of the frontier families send (September 2025)."""

from blindspot.evaluation.base import Prompt
from blindspot.evaluation.prompts.marks import pictures_first, pictures_inside, without_pictures
from blindspot.evaluation.prompts.texts import data_set, llava_adapter, options, with_options, wording
from blindspot.question import Question


def llava_next(question: Question) -> Prompt:
    """LLaVA-NeXT: the LLaVA adapter's text in the checkpoint's template."""
    return Prompt(pictures_first(len(question.images), llava_adapter(question)))


def llava_onevision(question: Question) -> Prompt:
    """LLaVA-OneVision: the data set's text in the checkpoint's template."""
    return Prompt(_data_set(question))


def qwen2_5_vl(question: Question) -> Prompt:
    """Qwen2.5-VL: the data set's text in the checkpoint's template."""
    return Prompt(_data_set(question))


def gemma3(question: Question) -> Prompt:
    """Gemma 3: the data set's text behind a system text of the adapter's own."""
    return Prompt(_data_set(question), system="You are a helpful assistant. ", longest=4096)


def paligemma(question: Question) -> Prompt:
    """PaliGemma: the first picture and the data set's text, without the task prefix that it was trained with."""
    return Prompt(_one_picture(question, data_set(question)), longest=512)


def molmo(question: Question) -> Prompt:
    """Molmo: the first picture and a style prefix that names a data set of its training."""
    text = f"a_okvqa_mc: {with_options(question, ':')}" if any(options(question)) else f"vqa2: {question.prompt}"
    return Prompt(_one_picture(question, text), longest=200)


def _data_set(question: Question) -> tuple[str, ...]:
    place = pictures_inside if wording(question).named_pictures else pictures_first
    return place(len(question.images), data_set(question))


def _one_picture(question: Question, text: str) -> tuple[str, ...]:
    named = wording(question).named_pictures
    return pictures_first(min(1, len(question.images)), without_pictures(text) if named else text)
