"""What a server says, as OpenAI documents chat completions: replies and refusals."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from blindspot.evaluation.base import Reply


class Refusal(Exception):
    """An answer that is an error, in OpenAI's shape.

    Args:
        status: of HTTP.
        message: for people; addresses of Python's objects are taken out.
        code: for programs.
    """

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(re.sub(r" at 0x[0-9a-fA-F]+", "", message))
        self.status = status
        self.code = code

    def to_dict(self) -> dict[str, Any]:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": str(self), "type": kind, "param": None, "code": self.code}}


def cut(reply: Reply, stop: tuple[str, ...]) -> tuple[str, str]:
    """The answer up to the first of the ``stop`` texts, and why it ends there."""
    places = [place for text in stop if (place := reply.raw.find(text)) >= 0]
    if places:
        return reply.raw[: min(places)], "stop"
    return reply.raw, "length" if reply.stopped == "length" else "stop"


def whole(model: str, fingerprint: str, name: str, text: str, finish: str) -> dict[str, Any]:
    """A completion in one piece. Tokens are not counted, so there is no ``usage``."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return _object("chat.completion", model, fingerprint, name, choice)


def events(model: str, fingerprint: str, name: str, text: str, finish: str) -> Iterator[bytes]:
    """A completion as server-sent events: the answer is complete before the first, so it is one chunk."""
    for delta, ending in (({"role": "assistant", "content": text}, None), ({}, finish)):
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ending}
        chunk = _object("chat.completion.chunk", model, fingerprint, name, choice)
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _object(kind: str, model: str, fingerprint: str, name: str, choice: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": name,
        "object": kind,
        "created": int(time.time()),
        "model": model,
        "system_fingerprint": fingerprint,
        "choices": [choice],
    }
