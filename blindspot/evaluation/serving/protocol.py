"""Chat completions as OpenAI documents them: requests to questions, replies and refusals to bytes.

What would change an answer and is not done here is refused, so that nobody measures a setting that was ignored.
"""

import base64
import binascii
import hashlib
import io
import json
import re
import time
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Part, Prompt, Reply
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


class Refusal(Exception):
    """An answer that is an error, in OpenAI's shape.

    Args:
        message: for people; addresses of Python's objects are taken out.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(re.sub(r" at 0x[0-9a-fA-F]+", "", message))
        self.status, self.code = status, code

    def to_dict(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}


class Wanted(NamedTuple):
    """What a request wants: a question, with so many pixels; texts at which its answer ends; whether as events."""

    asked: Asked
    pixels: int
    stop: tuple[str, ...]
    stream: bool


def read(body: Any, model: str) -> Wanted:
    """A decoded request to the model that is served under a name; a `Refusal` if it is none, or wants too much."""
    if not isinstance(body, dict):
        raise Refusal(400, "the body must be a JSON object")
    if body.get("model") not in (None, model):
        raise Refusal(404, f"this server serves {model!r}, not {str(body['model'])[:200]!r}", "model_not_found")
    if body.get("temperature") not in (None, 0) and body.get("top_k") != 1:
        raise Refusal(400, "this server decodes greedily; send temperature 0 or none", "unsupported_parameter")
    for name, neutral in NEUTRAL.items():
        if body.get(name) is not None and body[name] not in neutral:
            raise Refusal(400, f"this server does not do {name!r}; leave it out", "unsupported_parameter")
    name = "max_tokens" if body.get("max_completion_tokens") is None else "max_completion_tokens"
    longest = DEFAULT_TOKENS if body.get(name) is None else body[name]
    if not isinstance(longest, int) or isinstance(longest, bool) or longest < 1:
        raise Refusal(400, f"{name} must be a whole number above zero")
    stop = [body["stop"]] if isinstance(body.get("stop"), str) else [] if body.get("stop") is None else body["stop"]
    if not isinstance(stop, list) or not all(isinstance(text, str) for text in stop):
        raise Refusal(400, "stop must be a text or a list of texts")
    stream = body.get("stream")
    if stream not in (None, False, True):
        raise Refusal(400, "stream must be true or false")
    messages = body.get("messages")
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise Refusal(400, "messages must be a list of objects")
    roles = [message.get("role") for message in messages]
    if roles[-1:] != ["user"] or any(role not in ("system", "developer") for role in roles[:-1]):
        raise Refusal(400, "this server answers one user message, after system messages if any; send no other turns")
    pictures: list[bytes] = []
    content = _parts(messages[-1].get("content"), pictures)
    system = [str(text) for message in messages[:-1] for text in _parts(message.get("content"), None)]
    pixels = 0
    try:  # headers alone; pictures are decoded, and damage is noticed, when the model is asked
        for file in pictures:
            with images.opened(io.BytesIO(file), "a picture") as image:
                pixels += image.width * image.height
    except UserError as error:
        raise Refusal(400, str(error)) from error
    if pixels > MOST_PIXELS:
        raise Refusal(400, f"the pictures have {pixels:,} pixels together; {MOST_PIXELS:,} are the most taken")
    asked = question(f"chatcmpl-{uuid.uuid4().hex}", system, content, pictures, longest)
    return Wanted(asked, pixels, tuple(filter(None, stop)), bool(stream))


def question(name: str, system: list[str], content: list[Part], pictures: list[bytes], longest: int) -> Asked:
    """A question under a name, equal pictures under equal keys."""
    keys = tuple(hashlib.sha256(file).hexdigest() for file in pictures)
    prompt = Prompt(tuple(content), "\n".join(system) if system else None, longest=longest)
    return Asked(name, prompt, tuple(pictures), keys)


def _parts(content: Any, pictures: list[bytes] | None) -> list[Part]:
    """Texts and marks of a message's content; its pictures are added to ``pictures``, if it may have any."""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not parts:
        raise Refusal(400, "a message's content must be a text or a list of parts")
    shown = sum(isinstance(part, dict) and part.get("type") == "image_url" for part in parts)
    if shown > MOST_PICTURES:
        raise Refusal(400, f"a message has {shown} pictures; {MOST_PICTURES} are the most taken")
    made: list[Part] = []
    for part in parts:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            if PICTURE.value in part["text"]:
                raise Refusal(400, f"a text says {PICTURE.value}; send pictures as image_url parts")
            made.append(part["text"])
        elif kind == "image_url":
            if pictures is None:
                raise Refusal(400, "pictures belong to the user's message")
            image = part.get("image_url")
            pictures.append(picture(image.get("url") if isinstance(image, dict) else image))
            made.append(PICTURE)
        else:
            raise Refusal(400, "a part of a message must be of type text (with text) or image_url (with url)")
    return made


def picture(url: Any) -> bytes:
    """The file in a data URL."""
    head, _, data = url.partition(",") if isinstance(url, str) else ("", "", "")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise Refusal(400, "pictures are taken as data URLs (data:image/png;base64,...); this server fetches nothing")
    try:
        return base64.b64decode("".join(data.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refusal(400, f"a picture's data cannot be decoded: {error}") from error


def cut(reply: Reply, stop: tuple[str, ...]) -> tuple[str, str]:
    """The answer up to the first of the ``stop`` texts, and why it ends there."""
    places = [place for text in stop if (place := reply.raw.find(text)) >= 0]
    if places:
        return reply.raw[: min(places)], "stop"
    return reply.raw, "length" if reply.stopped == "length" else "stop"


def completion(model: str, fingerprint: str, reply: Reply, text: str, finish: str, stream: bool = False) -> bytes:
    """An answer as JSON, or as server-sent events: it is complete before the first, so it is one chunk."""
    common = {"id": reply.id, "created": int(time.time()), "model": model, "system_fingerprint": fingerprint}
    message = {"role": "assistant", "content": text}
    if not stream:
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        if reply.tokens is not None:
            read, said = reply.tokens
            common["usage"] = {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}
        return json.dumps({"object": "chat.completion", **common, "choices": [choice]}).encode()
    events = []
    for delta, ending in ((message, None), ({}, finish)):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ending}
        events.append(json.dumps({"object": "chat.completion.chunk", **common, "choices": [choice]}))
    return "".join(f"data: {event}\n\n" for event in (*events, "[DONE]")).encode()
