"""Models behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve``, ``blindspot serve``, hosted ones."""

import asyncio
import io
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, Omit
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Picture, Reply
from blindspot.files import PICTURE_FORMATS, parse_json
from blindspot.text import data_uri, encodable

KEY_ENV = "OPENAI_API_KEY"
EXAMPLE = "http://localhost:8000/v1"
GREEDY: Mapping[str, Any] = {"temperature": 0}
OWN = ("model", "messages", "stream", "n")
"""Fields of a request that are not for the user to set."""
MOST_BYTES = 16 * 2**20
"""Of a response; an answer is a few kilobytes."""
CONNECT_SECONDS = 20.0
LONGEST_BACKOFF = 60.0
LONGEST_HOLD = 600.0
"""Seconds. A server that asks for a longer rest is not waited for."""
STOP_AFTER = 20
"""Questions in a row without an answer after which a run stops."""
LONGEST_DETAIL = 300
PASSING = (408, 409, 425, 429)
STOPPING = {
    401: "the key is missing or wrong",
    403: "the key may not use this model",
    404: "there is no such model or address",
    405: "there are no chat completions",
}

_random = random.Random()  # its own, so that waiting moves no seed


class TransientError(Exception):
    """The server's failure, which may pass; ``wait``: seconds that the server asks for, if it says so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class RefusedError(Exception):
    """This server will not answer this question, however often it is asked."""


class ApiAnswerer:
    """Asks a server for chat completions, many at a time.

    A question that the server fails on is asked again, with growing pauses and no sooner than its ``Retry-After``
    says; given up, it becomes a `Reply` with ``error``, and the others are not touched. What will fail for every
    question (a wrong key, model or address; twenty in a row without an answer) ends the run in one line.

    Args:
        base_url: ends in ``/v1`` as a rule.
        model: its name there.
        key_env: the environment variable that holds the key. Local servers need none.
        concurrency: most requests under way.
        per_minute: most requests a minute; None: no limit.
        timeout: seconds for one request, from sending to the last byte.
        attempts: how often a question is tried.
        first_wait: seconds before the second attempt; doubled for each further one.
        extra: further fields of the request; null takes one away (``{"temperature": null}`` for servers that refuse
            it).
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        key_env: str = KEY_ENV,
        concurrency: int = 16,
        per_minute: float | None = None,
        timeout: float = 300.0,
        attempts: int = 6,
        first_wait: float = 1.0,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        if concurrency < 1 or attempts < 1 or timeout <= 0 or not (per_minute is None or per_minute > 0):
            raise UserError("concurrency, attempts, timeout and requests a minute must be above zero")
        for name in OWN:
            if name in (extra or {}):
                raise UserError(f"the request's field {name!r} is set by Blindspot and cannot be set by hand")
        self._where = address(base_url)
        self._model = model
        self._key = _key(key_env)
        bearer = f"Bearer {self._key}" if self._key else Omit()
        self._headers: dict[str, str | Omit] = {"Authorization": bearer, "Content-Type": "application/json"}
        self._fields = {**GREEDY, **(extra or {})}
        self._concurrency = concurrency
        self._timeout = timeout
        self._attempts = attempts
        self._first_wait = first_wait
        self._gap, self._next_turn = 60.0 / per_minute if per_minute else 0.0, 0.0
        self._answered, self._given_up = False, 0

    @property
    def identity(self) -> dict[str, Any]:
        """Address without credentials, model, settings; the same before and after the questions."""
        return {"answerer": "api", "model": self._model, "address": self._where, "settings": dict(self._fields)}

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Replies as they come in."""
        for question in asked:
            if question.prompt.whole:
                raise UserError(
                    "a chat server puts its own template around a prompt, and this prompt profile brings one; ask it "
                    "with --prompts plain or llava"
                )
            if question.options:
                raise UserError("option likelihoods need a model on this machine; a server is asked for answers only")
        return _from_thread(lambda give: self._ask_all(asked, give))

    async def _ask_all(self, asked: Sequence[Asked], give: Callable[[Reply], None]) -> None:
        questions = iter(asked)
        client = AsyncOpenAI(
            base_url=self._where,
            api_key=self._key or "none",
            max_retries=0,
            default_headers={"Accept-Encoding": "identity"},
            http_client=httpx2.AsyncClient(
                timeout=httpx2.Timeout(None, connect=min(CONNECT_SECONDS, self._timeout)),
                limits=httpx2.Limits(max_connections=self._concurrency),
                event_hooks={"response": [_bound]},
            ),
        )
        async with client:

            async def work() -> None:
                for question in questions:  # the workers share the iterator
                    give(await self._ask(client, question))

            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(self._concurrency, len(asked))):
                        workers.create_task(work())
            except ExceptionGroup as group:  # the first one cancelled the other workers
                raise group.exceptions[0] from None

    async def _ask(self, client: AsyncOpenAI, question: Asked) -> Reply:
        """The answer to a question, or why it is given up; ends the run in which nothing is answered any more.

        Refusals count only before the first answer: later ones may well be the questions' own fault, and those come in
        rows, as questions about one picture do.
        """
        try:
            reply = await self._until_answered(client, question)
        except (TransientError, RefusedError) as error:
            self._given_up += not (isinstance(error, RefusedError) and self._answered)
            if self._given_up >= STOP_AFTER:
                raise UserError(
                    f"{self._where}: {self._given_up} questions in a row got no answer, the last because: {error}; "
                    "what was answered is kept, so mend the server and run the same command again"
                ) from None
            return Reply(question.id, "", error=str(error))
        self._answered, self._given_up = True, 0
        return reply

    async def _until_answered(self, client: AsyncOpenAI, question: Asked) -> Reply:
        content = body(question, self._model, self._fields)
        attempt = 1
        while True:
            while (rest := self._next_turn - time.monotonic()) > 0:  # all questions keep the rate together
                await asyncio.sleep(rest)
            self._next_turn = time.monotonic() + self._gap
            try:
                return await self._once(client, content, question.id)
            except TransientError as error:
                wait = error.wait or 0.0
                if attempt == self._attempts or wait > LONGEST_HOLD:
                    raise
                self._next_turn = max(self._next_turn, time.monotonic() + wait)
            await asyncio.sleep(backoff(attempt, self._first_wait))
            attempt += 1

    async def _once(self, client: AsyncOpenAI, content: bytes, question: str) -> Reply:
        try:
            async with asyncio.timeout(self._timeout):
                got = await client.post(
                    "/chat/completions", content=content, cast_to=httpx2.Response, options={"headers": self._headers}
                )
        except TimeoutError:
            raise TransientError(f"no answer within {self._timeout:g} s") from None
        except APIStatusError as error:
            got = error.response
        except APIConnectionError as error:
            cause = error.__cause__ or error
            why = str(cause) if isinstance(cause, TransientError) else f"{type(cause).__name__} {cause}"
            raise TransientError(_one_line(why, self._key)) from None
        try:
            return read(got.status_code, got.headers, got.content, question, self._key)
        except UserError as error:
            raise UserError(f"{self._where}, model {self._model}: {error}") from None


def _key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key and name != KEY_ENV:
        raise UserError(f"the environment variable {name}, which is to hold the key, is not set")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in the environment variable {name} has characters that no key has; set it again")
    return key


def address(base_url: str) -> str:
    """The address below which chat completions are, from one that ends in ``/v1`` or in ``/chat/completions``.

    One that holds a user name, a password or a query is refused: what they hold is secret as a rule, and addresses are
    shown and logged.
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
    return str(url.copy_with(path=path, fragment=None))


def body(asked: Asked, model: str, fields: Mapping[str, Any] = GREEDY) -> bytes:
    """The JSON of one request; pictures are the published bytes."""
    prompt, left = asked.prompt, iter(asked.pictures)
    if len(asked.pictures) != prompt.pictures:
        raise ValueError("the prompt shows more pictures than there are, or fewer")
    parts: list[dict[str, Any]] = []
    for part in prompt.content:
        if isinstance(part, Picture):
            parts.append({"type": "image_url", "image_url": {"url": data_url(next(left))}})
        elif parts and parts[-1]["type"] == "text":  # some servers put line breaks between parts
            parts[-1]["text"] += part
        elif part:
            parts.append({"type": "text", "text": part})
    content = parts if asked.pictures else "".join(part["text"] for part in parts)
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    messages = [*system, {"role": "user", "content": content}]
    request = {"model": model, "messages": messages, "max_tokens": prompt.longest, **fields}
    return json.dumps({name: value for name, value in request.items() if value is not None}).encode()


def data_url(picture: bytes) -> str:
    """A picture file as a data URL, its type found in its bytes."""
    try:
        with Image.open(io.BytesIO(picture), formats=PICTURE_FORMATS) as image:
            mime = image.get_format_mimetype()  # pyright: ignore[reportAttributeAccessIssue]
    except Exception as error:  # what a damaged file makes Pillow raise has no common base
        raise RefusedError(f"its picture is in no known format ({type(error).__name__})") from error
    mime = "image/jpeg" if mime == "image/mpo" else mime  # a JPEG with further pictures behind it, as cameras write
    return data_uri(picture, mime or "")


def read(status: int, headers: Mapping[str, str], content: bytes, question: str, key: str = "") -> Reply:
    """The answer in a response, judged: an answer, a failure that may pass, or a reason to stop.

    Args:
        status: of HTTP; some gateways answer 200 with an error that carries the real one.
        headers: of HTTP.
        content: the body.
        question: its id.
        key: is not in what is raised, even if the server repeats it.

    Raises:
        TransientError: if the server failed in a way that may pass, or sent no chat completion.
        RefusedError: if it will not answer this question.
        UserError: if it will answer none.
    """
    value: Any = None
    with suppress(ValueError):
        value = parse_json(content)
    error = value.get("error") if isinstance(value, dict) else None
    if not 200 <= status < 300 or error:
        if 200 <= status < 300:
            code = error.get("code") if isinstance(error, dict) else None
            status = code if isinstance(code, int) and 400 <= code < 600 else 502
        told = error or value
        message = told.get("message") if isinstance(told, dict) else told
        detail = _one_line(message if isinstance(message, str) else content, key) or "nothing said"
        if status in PASSING or status >= 500:
            raise TransientError(f"status {status}: {detail}", retry_after(headers))
        if status in STOPPING:
            raise UserError(f"{STOPPING[status]} (status {status}: {detail})")
        if 300 <= status < 400:
            raise UserError(f"the address has moved (status {status}); give the one that it moved to")
        raise RefusedError(f"status {status}: {detail}")
    text = finish = None
    try:
        choice = value["choices"][0]
        text = choice["message"].get("content")
        if isinstance(text, list):
            text = "".join(part["text"] for part in text if part.get("type") == "text")
        elif text is None:
            text = choice["message"].get("refusal")
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        text = None
    if text is None and finish == "content_filter":
        raise RefusedError("the server's content filter withheld the answer")
    if text is None and finish == "length":  # thinking may use up all tokens, and nothing is left to say
        text = ""
    if not isinstance(text, str):
        raise TransientError(f"the server sent no chat completion: {_one_line(content, key)}")
    return Reply(question, encodable(text), "length" if finish == "length" else "end")


def _one_line(said: str | bytes, key: str) -> str:
    """The beginning of a server's text, safe for a terminal; no part of the key is left where it is cut off."""
    text = said if isinstance(said, str) else said.decode("utf-8", "replace")
    beginning = (text.replace(key, "***") if key else text)[: 2 * LONGEST_DETAIL]
    printable = "".join(letter if letter.isprintable() else " " for letter in beginning)
    return " ".join(printable.split())[:LONGEST_DETAIL]


def backoff(attempt: int, first: float) -> float:
    """Seconds to wait after so many failures: doubled each time, and half of it random so that clients part."""
    return min(first * 2 ** (attempt - 1), LONGEST_BACKOFF) * _random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that a ``Retry-After`` header asks for, as a number or a date (RFC 9110, 10.2.3); None without one."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.replace(".", "", 1).isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


class _Bounded(httpx2.AsyncByteStream):
    """A response's bytes, up to `MOST_BYTES`."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for piece in self._stream:
            received += len(piece)
            if received > MOST_BYTES:
                raise TransientError(f"the answer is larger than {MOST_BYTES // 2**20} MiB")
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _bound(response: httpx2.Response) -> None:
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream)


def _from_thread(work: Callable[[Callable[[Reply], None]], Any]) -> Iterator[Reply]:
    """What ``work`` gives, while it runs on an event loop of its own: the caller may be in a loop (a notebook is).

    Left early, by an error or Ctrl-C, it cancels what is under way.
    """
    given: SimpleQueue[Reply | BaseException | None] = SimpleQueue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(work(given.put))

    def run() -> None:
        try:
            loop.run_until_complete(task)
        except BaseException as error:
            given.put(error)
        given.put(None)

    thread = Thread(target=run, name="blindspot-api", daemon=True)
    thread.start()
    try:
        while (item := given.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()
