"""What a server said, judged: an answer, a failure that may pass, or a reason to stop."""

from collections.abc import Mapping
from typing import Any

from blindspot.errors import UserError
from blindspot.evaluation.base import Reply
from blindspot.evaluation.models.api_retry import Refused, Trouble, retry_after
from blindspot.files import parse_json
from blindspot.text import encodable

LONGEST_DETAIL = 300
PASSING = (408, 409, 425, 429)
STOPPING = {
    401: "the key is missing or wrong",
    403: "the key may not use this model",
    404: "there is no such model or address",
    405: "there are no chat completions",
}


def read(status: int, headers: Mapping[str, str], content: bytes, question: str, key: str = "") -> Reply:
    """The answer in a response.

    Args:
        status: of HTTP.
        headers: of HTTP.
        content: the body.
        question: its id.
        key: is not in what is raised, even if the server repeats it.

    Raises:
        Trouble: if the server failed in a way that may pass, or sent no chat completion.
        Refused: if it will not answer this question.
        UserError: if it will answer none.
    """
    try:
        value = parse_json(content)
    except ValueError:
        value = None
    error = value.get("error") if isinstance(value, dict) else None
    if not 200 <= status < 300 or error:
        _raise(_status(status, error), _one_line(_detail(value, content), key) or "nothing said", retry_after(headers))
    try:
        return _answer(value, question)
    except (KeyError, IndexError, TypeError, AttributeError):
        said = _one_line(content.decode("utf-8", "replace"), key)
        raise Trouble(f"the server sent no chat completion: {said}") from None


def scrubbed(text: str, key: str) -> str:
    """``text`` without the key, which some servers repeat."""
    return text.replace(key, "***") if key else text


def _status(status: int, error: Any) -> int:
    """The status that counts: some gateways answer 200 with an error that carries the real one."""
    code = error.get("code") if isinstance(error, dict) else None
    if 200 <= status < 300:
        return code if isinstance(code, int) and 400 <= code < 600 else 502
    return status


def _raise(status: int, detail: str, wait: float | None) -> None:
    if status in PASSING or status >= 500:
        raise Trouble(f"status {status}: {detail}", wait)
    if status in STOPPING:
        raise UserError(f"{STOPPING[status]} (status {status}: {detail})")
    if 300 <= status < 400:
        raise UserError(f"the address has moved (status {status}); give the one that it moved to")
    raise Refused(f"status {status}: {detail}")


def _answer(value: Any, question: str) -> Reply:
    choice = value["choices"][0]
    message, finish = choice["message"], choice.get("finish_reason")
    text = _text(message)
    if text is None and finish == "content_filter":
        raise Refused("the server's content filter withheld the answer")
    if text is None and finish != "length":  # thinking may use up all tokens, and nothing is left to say
        raise KeyError("content")
    return Reply(question, encodable(text or ""), "length" if finish == "length" else "end")


def _text(message: Mapping[str, Any]) -> str | None:
    content = message.get("content")
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if content is None:
        content = message.get("refusal")
    if content is not None and not isinstance(content, str):
        raise TypeError("content")
    return content


def _detail(value: Any, content: bytes) -> str:
    error = value.get("error", value) if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else content.decode("utf-8", "replace")


def _one_line(text: str, key: str) -> str:
    """The beginning of a server's text, safe for a terminal; no part of the key is left where it is cut off."""
    beginning = scrubbed(text, key)[: 2 * LONGEST_DETAIL]
    printable = "".join(letter if letter.isprintable() else " " for letter in beginning)
    return " ".join(printable.split())[:LONGEST_DETAIL]
