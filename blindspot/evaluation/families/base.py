"""What a family of models needs to be asked: its template, its image bounds, its settings and its way to say boxes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2.exceptions import TemplateError
from PIL import Image
from torch import Tensor
from transformers import BatchFeature

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Prompt
from blindspot.evaluation.prompts.marks import harmless

GREEDY: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "repetition_penalty": 1.0,
}
"""Overrides what a checkpoint's ``generation_config.json`` says: Qwen2.5-VL's, for one, penalises repetition."""

Template = Callable[[Any, Prompt], str]
Encode = Callable[["Family", Any, Sequence[str], Sequence[Sequence[Image.Image]]], BatchFeature]
Generate = Callable[[Any, Any, Mapping[str, Any], int], Tensor]


def mark(processor: Any) -> str:
    """The text by which the processor knows the place of a picture."""
    return str(processor.image_token)


def messages(processor: Any, prompt: Prompt) -> list[dict[str, Any]]:
    """A prompt as transformers' chat messages."""
    content = [
        {"type": "image"} if piece == PICTURE else {"type": "text", "text": harmless(piece, mark(processor))}
        for piece in prompt.content
    ]
    user = {"role": "user", "content": content}
    if prompt.system is None:
        return [user]
    return [{"role": "system", "content": [{"type": "text", "text": prompt.system}]}, user]


def by_chat_template(processor: Any, prompt: Prompt) -> str:
    """A prompt as the processor's own chat template renders it.

    A template that knows no system turn gets its text in front of the user's.

    Raises:
        UserError: if the processor has no chat template.
    """
    turns = messages(processor, prompt)
    try:
        return apply(processor, turns)
    except TemplateError:
        if prompt.system is None:
            raise
        user = {"role": "user", "content": [*turns[0]["content"], *turns[1]["content"]]}
        return apply(processor, [user])


def apply(processor: Any, turns: Sequence[Mapping[str, Any]]) -> str:
    """The text of chat messages, up to where the answer begins.

    Raises:
        UserError: if the processor has no chat template.
    """
    if not processor.chat_template:
        raise UserError("this model has no chat template, so it is not known how to ask it; choose an instruct model")
    return processor.apply_chat_template(list(turns), add_generation_prompt=True, tokenize=False)


def with_padding(tokenizer: Any) -> Any:
    """The tokenizer, with a token to pad with."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def rgb(pictures: Sequence[Sequence[Image.Image]]) -> list[list[Image.Image]]:
    """The pictures in the three channels that every processor expects."""
    return [[picture.convert("RGB") for picture in few] for few in pictures]


def by_processor(
    family: "Family", processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]
) -> BatchFeature:
    """Inputs as the processor makes them, padded on the left, with exactly one beginning token where there is one."""
    tokenizer = with_padding(processor.tokenizer)
    begins = tokenizer.bos_token and all(text.startswith(tokenizer.bos_token) for text in texts)
    nested = rgb(pictures)
    flat = [picture for few in nested for picture in few]
    return processor(
        text=list(texts),
        images=(nested if family.nested else flat) if flat else None,
        padding=True,
        padding_side="left",
        add_special_tokens=not begins,
        return_tensors="pt",
        **(family.bounds if flat else {}),
    )


@dataclass(frozen=True)
class Family:
    """A family of models, as data and two functions.

    Attributes:
        name: here, and of its prompt profile in `blindspot.evaluation.prompts`.
        title: as people write it.
        model_types: values of ``model_type`` in ``config.json``.
        checkpoints: Hugging Face ids, the study's first.
        names: pattern of the last part of a checkpoint's name in small letters, by which servers call it too;
            None: of any other.
        dtype: that its evaluation is published with.
        prompts: the prompt profile that ``auto`` means.
        boxes: how it says where something is; a convention of `blindspot.benchmarks.boxes`. LLaVA's by default; None:
            not known.
        box_prompt: how it is asked where something is; ``{phrase}`` stands for what. LLaVA's words by default.
        bounds: what the image processor is told beyond the checkpoint's own settings.
        generation: keyword arguments of ``generate``, the longest answer excepted: that is the prompt's.
        shares_prefix: whether what precedes the question can be computed once for all questions about a picture.
        alone: whether it answers one question at a time only.
        nested: whether its processor takes a list of pictures for each text, or all of them in one list.
        template: a prompt whose text is not fixed to the text that the model continues.
        picture: the mark of a picture in that text, with what surrounds it; None: the processor's.
        encode: texts and pictures to the model's inputs.
        generate: model, processor, inputs and longest answer to ids of prompt and answer, of shape (batch, length), for
            a model without transformers' ``generate``; None: it has that.
    """

    name: str
    title: str
    model_types: tuple[str, ...]
    checkpoints: tuple[str, ...]
    names: str | None
    dtype: str
    prompts: str
    boxes: str | None = "llava-normalised"
    box_prompt: str = "Please provide the bounding box coordinate of the region this sentence describes: {phrase}"
    bounds: Mapping[str, Any] = field(default_factory=dict)
    generation: Mapping[str, Any] = field(default_factory=lambda: dict(GREEDY))
    shares_prefix: bool = True
    alone: bool = False
    nested: bool = False
    template: Template = by_chat_template
    picture: str | None = None
    encode: Encode = by_processor
    generate: Generate | None = None

    def render(self, processor: Any, prompt: Prompt) -> str:
        """The text that the model continues, with the processor's own marks of pictures.

        Args:
            processor: of the checkpoint.
            prompt: what is asked.

        Raises:
            UserError: if the model has no template.
        """
        if prompt.text is None:
            return self.template(processor, prompt)
        return prompt.text.replace(PICTURE, self.picture or mark(processor))

    def inputs(self, processor: Any, texts: Sequence[str], pictures: Sequence[Sequence[Image.Image]]) -> BatchFeature:
        """Inputs of ``model.generate`` for a batch, padded on the left.

        Args:
            processor: of the checkpoint.
            texts: from `render`.
            pictures: for each text, its pictures in the order of the marks; either all texts have some or none has.

        Raises:
            ValueError: from the processor, if marks and pictures differ in number.
        """
        return self.encode(self, processor, texts, pictures)
