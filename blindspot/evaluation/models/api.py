"""Models behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve``, ``blindspot serve``, hosted ones."""

import asyncio
import io
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpx2
from openai import APIConnectionError, APIStatusError, AsyncOpenAI, Omit
from PIL import Image

from blindspot.errors import UserError, one_of
from blindspot.evaluation.adapters import SWITCHES
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


@dataclass(frozen=True)
class Engine:
    """What a kind of server is told beyond OpenAI's protocol."""

    guided: Callable[[Iterable[str]], dict[str, Any]]  # fields of a request whose answer is one of some texts
    processor: str | None = None
    """The field that holds arguments of the image processor; None: those are set where it is started."""


ENGINES = {
    "vllm": Engine(lambda texts: {"structured_outputs": {"choice": [*texts]}}, "mm_processor_kwargs"),
    "sglang": Engine(lambda texts: {"regex": f"({'|'.join(map(re.escape, texts))})"}),
}
"""By name; vLLM's since 0.12."""

_random = random.Random()  # its own, so that waiting moves no seed


class TransientError(Exception):
    """The server's failure, which may pass; ``wait``: seconds that the server asks for, if it says so."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class RefusedError(Exception):
    """This server will not answer this question, however often it is asked."""


@dataclass(eq=False)
class Server:
    """An address, and how it fares."""

    where: str
    next_turn: float = 0.0  # the moment at which the next request may be sent
    rest: float = 0.0  # until when it gets no question, since others may answer
    answered: bool = False  # whether it ever did
    failed: int = 0  # failures in a row
    lost: bool = False  # whether it is asked no more

    async def until(self, name: str) -> None:
        """Wait for ``next_turn`` or ``rest``, which may be put off meanwhile."""
        while (left := getattr(self, name) - time.monotonic()) > 0:
            await asyncio.sleep(left)


@dataclass(eq=False, repr=False)
class ApiAnswerer:
    """Asks servers for chat completions, many at a time.

    A question that the server fails on is asked again, with growing pauses and no sooner than its ``Retry-After``
    says; given up, it becomes a `Reply` with ``error``, and the others are not touched. What will fail for every
    question (a wrong key, model or address; twenty in a row without an answer) ends the run in one line. Of several
    servers each takes questions as fast as it answers; one that fails hands its question to the others and rests.
    """

    base_url: str  # ends in ``/v1`` as a rule
    model: str  # its name there
    key_env: str = KEY_ENV  # the environment variable that holds the key; local servers need none
    concurrency: int = 16  # most requests under way
    per_minute: float | None = None  # most requests a minute; None: no limit
    timeout: float = 300.0  # seconds for one request, from sending to the last byte
    attempts: int = 6  # how often a question is tried
    first_wait: float = 1.0  # seconds before the second attempt; doubled for each further one
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request; null takes one away (``{"temperature": null}`` for servers that refuse it)."""
    others: Sequence[str] = ()  # addresses of further servers of the same model
    engine: str | None = None  # one of `ENGINES`
    guided: bool = False  # let the answer be one of the allowed ones, where they are few; the engine must be known
    processor: Mapping[str, Any] = field(default_factory=dict)  # what the server's image processor is told
    pictures_first: bool = False  # send pictures before all words, as templates that take one text have them

    def __post_init__(self) -> None:
        limits = (self.concurrency, self.attempts, self.timeout, 1 if self.per_minute is None else self.per_minute)
        if not all(limit > 0 for limit in limits):
            raise UserError("concurrency, attempts, timeout and requests a minute must be above zero")
        for name in OWN:
            if name in self.extra:
                raise UserError(f"the request's field {name!r} is set by Blindspot and cannot be set by hand")
        self._servers = [Server(where) for where in dict.fromkeys(map(address, (self.base_url, *self.others)))]
        self._tries = Counter[str]()
        self._key = _key(self.key_env)
        bearer = f"Bearer {self._key}" if self._key else Omit()
        self._headers: dict[str, str | Omit] = {"Authorization": bearer, "Content-Type": "application/json"}
        if self.engine is not None:
            one_of(self.engine, ENGINES, "--engine", "kind of server")
        self._engine = ENGINES.get(self.engine or "")
        if self.guided and self._engine is None:
            raise UserError(
                f"--guided is asked of each kind of server in its own way; name it: --engine {' or '.join(ENGINES)}"
            )
        told = {}
        if self.processor:
            if self._engine is None or self._engine.processor is None:
                names = ", ".join(self.processor)
                raise UserError(
                    f"only vLLM is told {names} with a question (--engine vllm); others where they are started"
                )
            told = {self._engine.processor: dict(self.processor)}
        self._fields = {**GREEDY, **self.extra, **told}
        self._gap = 60.0 / self.per_minute if self.per_minute else 0.0

    @property
    def identity(self) -> dict[str, Any]:
        """Address without credentials, model, settings; the same before and after the questions."""
        first, *others = (server.where for server in self._servers)
        placed = {"pictures": "first"} if self.pictures_first else {}
        told: dict[str, Any] = {"answerer": "api", "model": self.model, "address": first}
        return told | {"settings": self._fields | placed} | ({"others": others} if others else {})

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Replies as they come in."""
        for question in asked:
            if question.prompt.whole:
                raise UserError(
                    "a chat server puts its own template around a prompt, and this prompt profile brings one; ask it "
                    "with --prompts plain or llava"
                )
            if question.options and not self.guided:
                raise UserError("option likelihoods need a model on this machine; a server is asked for answers only")
        return _from_thread(lambda give: self._ask_all(asked, give))

    async def _ask_all(self, asked: Sequence[Asked], give: Callable[[Reply], None]) -> None:
        left: asyncio.Queue[Asked] = asyncio.Queue()
        for question in asked:
            left.put_nowait(question)

        async def work(server: Server, client: AsyncOpenAI) -> None:
            while not server.lost:
                await server.until("rest")
                question = await left.get()
                resting = server.lost or server.rest > time.monotonic()  # since it waited for a question
                reply = None if resting else await self._ask(server, client, question)
                if reply is None:
                    left.put_nowait(question)
                else:
                    give(reply)
                left.task_done()

        async with AsyncExitStack() as clients:
            try:
                async with asyncio.TaskGroup() as workers:
                    working: list[asyncio.Task[None]] = []
                    for server in self._living():
                        client = await clients.enter_async_context(self._client(server))
                        many = range(min(self.concurrency, len(asked)))
                        working += [workers.create_task(work(server, client)) for _ in many]
                    await left.join()
                    for task in working:
                        task.cancel()
            except ExceptionGroup as group:  # the first one cancelled the other workers
                raise group.exceptions[0] from None

    def _living(self) -> list[Server]:
        return [server for server in self._servers if not server.lost]

    def _client(self, server: Server) -> AsyncOpenAI:
        return AsyncOpenAI(
            base_url=server.where,
            api_key=self._key or "none",
            max_retries=0,
            default_headers={"Accept-Encoding": "identity"},
            http_client=httpx2.AsyncClient(
                timeout=httpx2.Timeout(None, connect=min(CONNECT_SECONDS, self.timeout)),
                limits=httpx2.Limits(max_connections=self.concurrency),
                event_hooks={"response": [_bound]},
            ),
        )

    async def _ask(self, server: Server, client: AsyncOpenAI, question: Asked) -> Reply | None:
        """The answer to a question, or why it is given up; None: another server is to be asked.

        Ends the run in which nothing is answered any more. Refusals count only before the first answer: later ones may
        well be the questions' own fault, and those come in rows, as questions about one picture do.
        """
        several = len(self._living()) > 1
        try:
            reply = await self._until_answered(server, client, question, 1 if several else self.attempts)
        except UserError as error:
            if len(self._servers) == 1:
                raise
            return self._lose(server, str(error))
        except (TransientError, RefusedError) as error:
            if several and isinstance(error, TransientError):
                return self._hand_over(server, question, error)
            server.failed += not (isinstance(error, RefusedError) and server.answered)
            if server.failed >= STOP_AFTER and len(self._living()) == 1:
                raise UserError(
                    f"{server.where}: {server.failed} questions in a row got no answer, the last because: {error}; "
                    "what was answered is kept, so mend the server and run the same command again"
                ) from None
            return Reply(question.id, "", error=str(error))
        server.answered, server.failed = True, 0
        return reply

    def _hand_over(self, server: Server, question: Asked, error: TransientError) -> Reply | None:
        """Let another server answer, while this one rests, longer the longer it fails; at last it is asked no more."""
        server.failed += 1
        self._tries[question.id] += 1
        if server.failed >= STOP_AFTER * self.attempts or (error.wait or 0.0) > LONGEST_HOLD:
            self._lose(server, str(error))
        pause = backoff(1 + server.failed // self.concurrency, self.first_wait)
        server.rest = time.monotonic() + max(pause, error.wait or 0.0)
        tried = self._tries[question.id] >= self.attempts * len(self._servers)
        return Reply(question.id, "", error=str(error)) if tried else None

    def _lose(self, server: Server, why: str) -> None:
        if self._living() == [server]:
            raise UserError(
                f"no server is left, the last because: {why}; what was answered is kept, so mend one and run the same "
                "command again"
            )
        if not server.lost:
            print(f"{server.where} is asked no more, the other servers are: {why}", file=sys.stderr)
        server.lost, server.failed = True, 0

    async def _until_answered(self, server: Server, client: AsyncOpenAI, question: Asked, attempts: int) -> Reply:
        content = body(question, self.model, self._fields, self._engine, self.pictures_first)
        attempt = 1
        while True:
            await server.until("next_turn")
            server.next_turn = time.monotonic() + self._gap
            try:
                return await self._once(server, client, content, question.id)
            except TransientError as error:
                wait = error.wait or 0.0
                if attempt == attempts or wait > LONGEST_HOLD:
                    raise
                server.next_turn = max(server.next_turn, time.monotonic() + wait)
            await asyncio.sleep(backoff(attempt, self.first_wait))
            attempt += 1

    async def _once(self, server: Server, client: AsyncOpenAI, content: bytes, question: str) -> Reply:
        try:
            async with asyncio.timeout(self.timeout):
                got = await client.post(
                    "/chat/completions", content=content, cast_to=httpx2.Response, options={"headers": self._headers}
                )
        except TimeoutError:
            raise TransientError(f"no answer within {self.timeout:g} s") from None
        except APIStatusError as error:
            got = error.response
        except APIConnectionError as error:
            cause = error.__cause__ or error
            why = str(cause) if isinstance(cause, TransientError) else f"{type(cause).__name__} {cause}"
            raise TransientError(_one_line(why, self._key)) from None
        try:
            return read(got.status_code, got.headers, got.content, question, self._key)
        except UserError as error:
            raise UserError(f"{server.where}, model {self.model}: {error}") from None


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


def body(
    asked: Asked,
    model: str,
    fields: Mapping[str, Any] = GREEDY,
    engine: Engine | None = None,
    pictures_first: bool = False,
) -> bytes:
    """The JSON of one request; pictures are the published bytes. An engine says how the options are asked for."""
    prompt, left = asked.prompt, iter(asked.pictures)
    if len(asked.pictures) != prompt.pictures:
        raise ValueError("the prompt shows more pictures than there are, or fewer")
    parts: list[dict[str, Any]] = []
    shown = sorted(prompt.content, key=lambda part: isinstance(part, str)) if pictures_first else prompt.content
    for part in shown:
        if isinstance(part, Picture):
            parts.append({"type": "image_url", "image_url": {"url": data_url(next(left))}})
        elif parts and parts[-1]["type"] == "text":  # some servers put line breaks between parts
            parts[-1]["text"] += part
        elif part:
            parts.append({"type": "text", "text": part})
    content = parts if asked.pictures else "".join(part["text"] for part in parts)
    system = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    messages = [*system, {"role": "user", "content": content}]
    draw = asked.draw
    drawn: dict[str, Any] = (
        {} if draw is None else {"temperature": draw.temperature, "top_p": draw.top_p, "seed": draw.seed}
    )
    if prompt.thinking is not None:
        drawn["chat_template_kwargs"] = dict.fromkeys(SWITCHES, prompt.thinking)
    if engine is not None and asked.options:
        drawn |= engine.guided(asked.options.values())
    request = {"model": model, "messages": messages, "max_tokens": prompt.longest, **fields, **drawn}
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
    text = finish = thought = None
    try:
        choice = value["choices"][0]
        text = choice["message"].get("content")
        thought = choice["message"].get("reasoning_content") or choice["message"].get("reasoning")
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
    stopped = "end" if finish != "length" else "thought" if thought and not text else "length"
    return Reply(question, encodable(text), stopped, tokens=_tokens(value.get("usage")))


def _tokens(usage: Any) -> tuple[int, int] | None:
    """How many were read and said, where a response tells."""
    told = usage if isinstance(usage, dict) else {}
    read, said = told.get("prompt_tokens"), told.get("completion_tokens")
    if not (isinstance(read, int) and isinstance(said, int) and 0 <= read < 2**40 and 0 <= said < 2**40):
        return None
    return read, said


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
