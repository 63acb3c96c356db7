"""Spans of a conversation from the chat template that a language model's tokenizer brings along."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from blindspot.errors import UserError
from blindspot.model.conversation import PICTURE, Message, RowError, Span, question_of, turns_of
from blindspot.model.tokenizer import IMAGE

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


def from_chat_template(messages: Sequence[Message], tokenizer: Any, prompt: bool = False) -> list[Span]:
    """Spans of a conversation as the tokenizer's own chat template renders it, for language models that have one.

    Supervised is what the template puts between ``{% generation %}`` tags. Without them, it is what an assistant's
    message adds to the text rendered up to it with the generation prompt; blanks behind a closing special token are
    not supervised. Pictures go to the front of their turn, each followed by a line break, as in LLaVA.

    Raises:
        UserError: if the tokenizer has no chat template.
        RowError: if the template refuses the conversation, renders a beginning of it differently once more follows
            (then no part of the text belongs to one answer), or the text of a conversation with pictures says
            ``<image>``.
    """
    if not tokenizer.chat_template:
        raise UserError("this language model's tokenizer has no chat template; use LLaVA's v1")
    turns = turns_of(messages, prompt)
    flat = [{"role": role, "content": "".join(span.text for span in question_of(n, text))} for role, n, text in turns]
    pictures = sum(n for _, n, _ in turns)
    try:
        return list(_cut(*_render(flat, tokenizer, prompt), pictures))
    except TemplateError as error:
        raise RowError(f"the chat template refuses it: {error}") from error


def _render(messages: Sequence[Message], tokenizer: Any, prompt: bool) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text and where in it the answers are."""
    template = tokenizer.get_chat_template()

    def render(part: Sequence[Message], mask: bool = False, ask: bool = False) -> tuple[str, list[tuple[int, int]]]:
        rendered: Any = render_jinja_template(
            [[*map(dict, part)]],
            chat_template=template,
            return_assistant_tokens_mask=mask,
            add_generation_prompt=ask,
            **tokenizer.special_tokens_map,
        )
        texts, ranges = rendered
        return texts[0], ranges[0] if mask else []

    text, ranges = render(messages, mask=bool(_GENERATION.search(template)), ask=prompt)
    if ranges:
        return text, ranges
    for number in range(1, len(messages), 2):
        before, through = render(messages[:number], ask=True)[0], render(messages[: number + 1])[0]
        if not (through.startswith(before) and text.startswith(through)):
            raise RowError(
                f"the chat template renders turns up to {number + 1} differently when more follow, so no text is "
                "surely an answer; use rows of one round, or a template with {% generation %}"
            )
        said = through[len(before) :]
        if said.rstrip().endswith(tuple(tokenizer.all_special_tokens)):
            said = said.rstrip()
        ranges.append((len(before), len(before) + len(said)))
    return text, ranges


def _cut(text: str, answers: Iterable[tuple[int, int]], pictures: int) -> Iterator[Span]:
    """``text`` as spans."""
    if pictures and text.count(IMAGE) != pictures:
        raise RowError(f"its text says {IMAGE}, or the chat template repeats or loses a picture")
    edges = [0, *(edge for answer in answers for edge in answer), len(text)]
    for number, (start, end) in enumerate(pairwise(edges)):
        pieces = text[start:end].split(IMAGE) if pictures else [text[start:end]]
        for piece, words in enumerate(pieces):
            if piece:
                yield PICTURE
            if words:
                yield Span(words, supervised=bool(number % 2))
