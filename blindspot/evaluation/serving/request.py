"""Chat completion requests, as OpenAI documents them, to questions.

What would change an answer and is not done here is refused, so that nobody measures a setting that was ignored.
"""

import base64
import binascii
import hashlib
import io
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Part, Prompt
from blindspot.evaluation.serving.completion import Refusal
from blindspot.model import images

DEFAULT_TOKENS = 2048
MOST_PIXELS = 64_000_000
"""Of a request's pictures together: a few thousand bytes can hold as many, and they become gigabytes."""
MOST_PICTURES = 32
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    **dict.fromkeys(("n", "best_of", "repetition_penalty"), (1,)),
    **dict.fromkeys(("presence_penalty", "frequency_penalty", "min_tokens"), (0,)),
    **dict.fromkeys(("logprobs", "ignore_eos", "use_beam_search", "continue_final_message", "echo"), (False,)),
    **dict.fromkeys(("tools", "functions", "stop_token_ids", "allowed_token_ids", "bad_words"), ([],)),
    **dict.fromkeys(("logit_bias", "chat_template_kwargs", "structured_outputs"), ({},)),
    **dict.fromkeys(("chat_template", "guided_json", "guided_regex", "guided_choice", "guided_grammar"), ()),
    **dict.fromkeys(("regex", "ebnf", "json_schema"), ()),
    "add_generation_prompt": (True,),
    "response_format": ({"type": "text"},),
}
"""Fields of OpenAI's, vLLM's and SGLang's requests that this server does not carry out, with the values that ask for
nothing. Fields that nobody documents are left alone: VLMEvalKit, for one, sends the name of its data set."""


@dataclass(frozen=True)
class Wanted:
    """What a request wants.

    Attributes:
        asked: the question.
        pixels: of its pictures.
        stop: texts at which the answer ends, themselves left out.
        stream: as events.
    """

    asked: Asked
    pixels: int
    stop: tuple[str, ...]
    stream: bool


def read(body: Any, model: str) -> Wanted:
    """A decoded request.

    Args:
        body: its JSON.
        model: the name of the model that is served.

    Raises:
        Refusal: if it is none, or wants what is not done here.
    """
    if not isinstance(body, dict):
        raise Refusal(400, "the body must be a JSON object")
    if body.get("model") not in (None, model):
        raise Refusal(404, f"this server serves {model!r}, not {str(body['model'])[:200]!r}", "model_not_found")
    _refuse_settings(body)
    system, content, pictures = _turns(body.get("messages"))
    prompt = Prompt(content, system, longest=_longest(body))
    keys = tuple(hashlib.sha256(picture).hexdigest() for picture in pictures)
    stream = body.get("stream")
    if stream not in (None, False, True):
        raise Refusal(400, "stream must be true or false")
    asked = Asked(f"chatcmpl-{uuid.uuid4().hex}", prompt, pictures, keys)
    return Wanted(asked, _pixels(pictures), _stop(body.get("stop")), bool(stream))


def _refuse_settings(body: Mapping[str, Any]) -> None:
    if body.get("temperature") not in (None, 0) and body.get("top_k") != 1:
        raise Refusal(400, "this server decodes greedily; send temperature 0 or none", "unsupported_parameter")
    for name, neutral in NEUTRAL.items():
        if body.get(name) is not None and body[name] not in neutral:
            raise Refusal(400, f"this server does not do {name!r}; leave it out", "unsupported_parameter")


def _longest(body: Mapping[str, Any]) -> int:
    for name in ("max_completion_tokens", "max_tokens"):
        value = body.get(name)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise Refusal(400, f"{name} must be a whole number above zero")
        return value
    return DEFAULT_TOKENS


def _stop(value: Any) -> tuple[str, ...]:
    texts = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Refusal(400, "stop must be a text or a list of texts")
    return tuple(text for text in texts if text)


def _turns(messages: Any) -> tuple[str | None, tuple[Part, ...], tuple[bytes, ...]]:
    """The system text, what the user says with marks for the pictures, and these."""
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refusal(400, "messages must be a list of objects")
    systems = [message for message in messages if message.get("role") in ("system", "developer")]
    if len(messages) != len(systems) + 1 or messages[-1].get("role") != "user":
        raise Refusal(400, "this server answers one user message, after system messages if any; send no other turns")
    pictures: list[bytes] = []
    content = tuple(_pieces(messages[-1].get("content"), pictures))
    texts = [str(text) for message in systems for text in _pieces(message.get("content"), None)]
    return "\n".join(texts) if texts else None, content, tuple(pictures)


def _pieces(content: Any, pictures: list[bytes] | None) -> list[Part]:
    """Texts and marks of a message's content; its pictures are added to ``pictures``, if it may have any."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise Refusal(400, "a message's content must be a text or a list of parts")
    shown = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
    if shown > MOST_PICTURES:
        raise Refusal(400, f"a message has {shown} pictures; {MOST_PICTURES} are the most taken")
    return [_piece(part, pictures) for part in parts]


def _piece(part: Any, pictures: list[bytes] | None) -> Part:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        if PICTURE.value in part["text"]:
            raise Refusal(400, f"a text says {PICTURE.value}; send pictures as image_url parts")
        return part["text"]
    if kind == "image_url":
        if pictures is None:
            raise Refusal(400, "pictures belong to the user's message")
        image = part.get("image_url")
        pictures.append(picture(image.get("url") if isinstance(image, dict) else image))
        return PICTURE
    raise Refusal(400, "a part of a message must be of type text (with text) or image_url (with url)")


def picture(url: Any) -> bytes:
    """The file in a data URL.

    Raises:
        Refusal: if it is something else.
    """
    head, _, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise Refusal(400, "pictures are taken as data URLs (data:image/png;base64,...); this server fetches nothing")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"a picture's data cannot be decoded: {error}") from error


def _pixels(pictures: Iterable[bytes]) -> int:
    """Of pictures together, from their headers; they are decoded, and damage is noticed, when the model is asked."""
    pixels = 0
    try:
        for content in pictures:
            with images.opened(io.BytesIO(content), "a picture") as image:
                pixels += image.width * image.height
    except UserError as error:
        raise Refusal(400, str(error)) from error
    if pixels > MOST_PIXELS:
        raise Refusal(400, f"the pictures have {pixels:,} pixels together; {MOST_PIXELS:,} are the most taken")
    return pixels
