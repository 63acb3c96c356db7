"""A question as an OpenAI-compatible server takes it."""

import base64
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx2
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Part, Picture
from blindspot.evaluation.models.api_retry import Refused
from blindspot.files import PICTURE_FORMATS

GREEDY: Mapping[str, Any] = {"temperature": 0}
OWN = ("model", "messages", "stream", "n")
"""Fields of a request that are not for the user to set."""
EXAMPLE = "http://localhost:8000/v1"


def address(base_url: str) -> httpx2.URL:
    """Where chat completions are, from an address that ends in ``/v1`` or in ``/chat/completions``.

    Raises:
        UserError: if it is no http(s) address, or holds a user name, a password or a query: what they hold is secret as
            a rule, and addresses are shown and logged.
    """
    try:
        url = httpx2.URL(base_url)
    except httpx2.InvalidURL:  # whose message may quote a password
        raise UserError(f"the server's address cannot be read as one; it looks like {EXAMPLE}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise UserError(f"the server's address must begin with http:// or https://, as {EXAMPLE} does")
    if url.userinfo or url.query:
        raise UserError(f"the address of {url.host} holds a user name or a query; put the key into the environment")
    path = url.path.rstrip("/").removesuffix("/chat/completions")
    return url.copy_with(path=f"{path}/chat/completions", fragment=None)


def shown(url: httpx2.URL) -> str:
    """The address as a user knows it."""
    return str(url).removesuffix("/chat/completions")


def settings(extra: Mapping[str, Any]) -> dict[str, Any]:
    """What is sent with every question besides the model and the messages: greedy decoding, and what a user adds.

    Args:
        extra: fields of the request; null takes one away (``{"temperature": null}`` for servers that refuse it).

    Raises:
        UserError: if it sets one of `OWN`.
    """
    for name in OWN:
        if name in extra:
            raise UserError(f"the request's field {name!r} is set by Blindspot and cannot be set by hand")
    return {**GREEDY, **extra}


def body(asked: Asked, model: str, fields: Mapping[str, Any]) -> bytes:
    """The JSON of one request; pictures are the published bytes.

    Raises:
        Refused: if a picture is in no format that a type can be named for.
        ValueError: if marks and pictures do not match.
    """
    request = {"model": model, "messages": _messages(asked), "max_tokens": asked.prompt.longest, **fields}
    return json.dumps({name: value for name, value in request.items() if value is not None}).encode()


def data_url(picture: bytes) -> str:
    """A picture file as a data URL, its type found in its bytes.

    Raises:
        Refused: if it is no picture that Pillow knows.
    """
    try:
        with Image.open(io.BytesIO(picture), formats=PICTURE_FORMATS) as image:
            mime = image.get_format_mimetype()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:  # what a damaged file makes Pillow raise has no common base
        raise Refused(f"its picture is in no known format ({type(error).__name__})") from error
    mime = "image/jpeg" if mime == "image/mpo" else mime  # a JPEG with further pictures behind it, as cameras write
    return f"data:{mime};base64,{base64.b64encode(picture).decode()}"


def _messages(asked: Asked) -> list[dict[str, Any]]:
    system = [] if asked.prompt.system is None else [{"role": "system", "content": asked.prompt.system}]
    parts = list(_parts(asked.prompt.content, asked.pictures))
    content = parts if asked.pictures else "".join(part["text"] for part in parts)
    return [*system, {"role": "user", "content": content}]


def _parts(content: Iterable[Part], pictures: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Texts that follow each other as one, since some servers put line breaks between parts."""
    left = iter(pictures)
    text = ""
    for piece in content:
        if not isinstance(piece, Picture):
            text += piece
            continue
        if text:
            yield {"type": "text", "text": text}
        picture = next(left, None)
        if picture is None:
            raise ValueError("more marks than pictures")
        yield {"type": "image_url", "image_url": {"url": data_url(picture)}}
        text = ""
    if text:
        yield {"type": "text", "text": text}
    if next(left, None) is not None:
        raise ValueError("more pictures than marks")
