"""Conversations as text of which it is known what the model is to say: LLaVA's rows and templates, and other models'.

A conversation is a list of transformers' chat messages. A template turns it into *spans*: text, supervised or not, and
the places of pictures. `encoding.encode` makes token ids and labels of them.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from jinja2.exceptions import TemplateError
from transformers.utils.chat_template_utils import render_jinja_template

from blindspot.errors import UserError
from blindspot.model.tokenizer import END, IMAGE

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_ROLES = {"human": "user", "gpt": "assistant"}
_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")

Message = Mapping[str, Any]


class RowError(UserError):
    """A conversation that cannot be trained on. The message is the reason, to be counted and listed with the row."""


class Span(NamedTuple):
    """A piece of a rendered conversation."""

    text: str  # what it says
    supervised: bool = False  # whether the model is to say it
    picture: bool = False  # whether it is the place of a picture (its text is then ``<image>``)


PICTURE = Span(IMAGE, picture=True)


def from_llava(row: Mapping[str, Any]) -> list[Message]:
    """A row of LLaVA's published JSON files as chat messages.

    ``<image>`` moves to the front of its turn, and a leading turn of the assistant is dropped. A row that names one
    picture has one mark a turn, however often the turn says ``<image>``; one that names a list has as many as it says.
    In a row without a picture ``<image>`` is text.
    """
    turns, pictures = row.get("conversations"), row.get("image") or []
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str)
        for turn in turns
    ):
        raise RowError("its conversations are not a list of turns with from and value")
    if not isinstance(pictures, str | list):
        raise RowError("its image is neither a path nor a list of paths")
    named = 1 if isinstance(pictures, str) else len(pictures)
    messages, marked = [], 0
    for turn in turns[1:] if turns and turns[0]["from"] == "gpt" else turns:
        role, text = _ROLES.get(turn["from"]), turn["value"]
        if role != ("user", "assistant")[len(messages) % 2]:
            raise RowError("its turns do not alternate between human and gpt")
        marks = text.count(IMAGE) if named else 0
        if marks:
            text = text.replace(IMAGE, "").strip()
            marks = 1 if isinstance(pictures, str) else marks
        marked += marks
        messages.append({"role": role, "content": [{"type": "image"}] * marks + [{"type": "text", "text": text}]})
    if marked != named:
        raise RowError(f"it names {named} pictures and marks the places of {marked}")
    return messages


def v1(messages: Sequence[Message], prompt: bool = False, end: str = END) -> list[Span]:
    """LLaVA's template ``v1`` (Vicuna's), for visual instruction tuning and for asking.

    Supervised are the answers and the token that closes each.

    Args:
        messages: user and assistant in turn; pictures go to the front of their turn.
        prompt: end with a question, after which the model is to answer, instead of an answer.
        end: the tokenizer's token that closes an answer.
    """
    spans = [Span(f"{SYSTEM} ")]
    for role, pictures, text in turns_of(messages, prompt):
        if role == "user":
            spans += [Span("USER: "), *question_of(pictures, text), Span(" ASSISTANT:")]
        else:
            spans.append(Span(f" {text}{end}", supervised=True))
    return spans


def plain(messages: Sequence[Message], prompt: bool = False) -> list[Span]:
    r"""LLaVA's template ``plain``, for training the connector: a picture, its caption and ``"\n"``, both supervised.

    What the user says is discarded, and no token ends the caption.

    Args:
        messages: one of the user, with a picture; and one of the assistant, unless ``prompt``.
        prompt: stop behind the picture.
    """
    turns = turns_of(messages, prompt)
    if len(turns) != 2 - prompt or turns[0][1] != 1:
        raise RowError("a caption is one turn with one picture and one answer")
    return [PICTURE] if prompt else [PICTURE, Span(turns[1][2] + "\n", supervised=True)]


_TEXT = """{%- macro text(content) -%}
{%- if content is string -%}{{- content -}}
{%- else -%}{%- for part in content if part['type'] == 'text' -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- macro pictures(content, behind) -%}
{%- if content is not string -%}
{%- for part in content if part['type'] == 'image' -%}
{{- '<image>' -}}{%- if behind or not loop.last -%}{{- '\\n' -}}{%- endif -%}
{%- endfor -%}{%- endif -%}
{%- endmacro -%}
"""
CHAT_TEMPLATES = {
    "v1": f"""{_TEXT}{{{{- "{SYSTEM} " -}}}}
{{%- for message in messages -%}}
{{%- if message['role'] == 'user' -%}}
{{{{- 'USER: ' + pictures(message['content'], text(message['content'])) + text(message['content']) + ' ASSISTANT:' -}}}}
{{%- elif message['role'] == 'assistant' -%}}
{{%- generation -%}}{{{{- ' ' + text(message['content']) + eos_token -}}}}{{%- endgeneration -%}}
{{%- else -%}}{{{{- raise_exception('this template knows user and assistant only') -}}}}{{%- endif -%}}
{{%- endfor -%}}""",
    "plain": _TEXT
    + r"""{%- for message in messages -%}
{%- if message['role'] == 'user' -%}{{- pictures(message['content'], false) -}}
{%- else -%}{%- generation -%}{{- text(message['content']) + '\n' -}}{%- endgeneration -%}{%- endif -%}
{%- endfor -%}""",
}
"""The same text as `v1` and `plain` give, as templates for ``tokenizer.chat_template``."""


def from_chat_template(messages: Sequence[Message], tokenizer: Any, prompt: bool = False) -> list[Span]:
    """Spans of a conversation as the tokenizer's own chat template renders it, for language models that have one.

    Supervised is what the template puts between ``{% generation %}`` tags. Without them, it is what an assistant's
    message adds to the text rendered up to it with the generation prompt; blanks behind a closing special token are
    not supervised. Pictures go to the front of their turn, each followed by a line break, as in LLaVA.

    A template that renders a beginning differently once more follows is refused: no part of its text belongs to one
    answer. So is a text that says ``<image>`` beside pictures.
    """
    if not tokenizer.chat_template:
        raise UserError("this language model's tokenizer has no chat template; use LLaVA's v1")
    turns = turns_of(messages, prompt)
    flat = [{"role": role, "content": "".join(span.text for span in question_of(n, text))} for role, n, text in turns]
    pictures = sum(n for _, n, _ in turns)
    try:
        text, answers = _render(flat, tokenizer, prompt)
    except TemplateError as error:
        raise RowError(f"the chat template refuses it: {error}") from error
    if pictures and text.count(IMAGE) != pictures:
        raise RowError(f"its text says {IMAGE}, or the chat template repeats or loses a picture")
    spans: list[Span] = []
    edges = [0, *(edge for answer in answers for edge in answer), len(text)]
    for number, (start, end) in enumerate(pairwise(edges)):
        pieces = text[start:end].split(IMAGE) if pictures else [text[start:end]]
        for piece, words in enumerate(pieces):
            spans += [PICTURE] * bool(piece) + [Span(words, supervised=bool(number % 2))] * bool(words)
    return spans


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


def turns_of(messages: Sequence[Message], prompt: bool) -> list[tuple[str, int, str]]:
    """Role, number of pictures and text of each message, checked to be user and assistant in turn, and none empty."""
    turns = []
    for message in messages:
        role, content = message["role"], message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        pictures = sum(part["type"] == "image" for part in parts)
        text = "".join(part["text"] for part in parts if part["type"] == "text")
        if role != ("user", "assistant")[len(turns) % 2]:
            raise RowError("its turns do not alternate between user and assistant")
        if role == "assistant" and (pictures or not text.strip()):
            raise RowError("an answer has a picture" if pictures else "an answer is empty")
        if not pictures and not text.strip():
            raise RowError("a question is empty")
        turns.append((role, pictures, text))
    if len(turns) % 2 != prompt or not turns:
        raise RowError("it does not end with a question" if prompt else "its last question has no answer")
    return turns


def question_of(pictures: int, text: str) -> list[Span]:
    """The pictures, each on a line of its own, and the text."""
    lines = [PICTURE] * pictures + [Span(text)] * bool(text)
    return [span for line in lines for span in (Span("\n"), line)][1:]
