"""Models behind an OpenAI-compatible server: vLLM, SGLang, ``transformers serve``, ``blindspot serve``, hosted ones."""

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any

import httpx2

from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Reply
from blindspot.evaluation.models import api_reply, api_request
from blindspot.evaluation.models.api_retry import LONGEST_HOLD, Luck, Pace, Refused, Trouble, backoff

KEY_ENV = "OPENAI_API_KEY"
MOST_BYTES = 16 * 2**20
"""Of a response; an answer is a few kilobytes."""
CONNECT_SECONDS = 20.0


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
        extra: further fields of the request, null to leave one out (`api_request.settings`).

    Raises:
        UserError: if the address or the key cannot be used.
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
        self._url = api_request.address(base_url)
        self._where = api_request.shown(self._url)
        self._model = model
        self._key = _key(key_env)
        self._fields = api_request.settings(extra or {})
        self._concurrency = concurrency
        self._timeout = timeout
        self._attempts = attempts
        self._first_wait = first_wait
        self._pace = Pace(per_minute)
        self._luck = Luck()

    @property
    def identity(self) -> dict[str, Any]:
        """Address without credentials, model, settings; the same before and after the questions."""
        return {"answerer": "api", "model": self._model, "address": self._where, "settings": dict(self._fields)}

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """Replies as they come in.

        Raises:
            UserError: if a server cannot be asked such questions, or answers none.
        """
        for question in asked:
            _refuse(question)
        return _from_thread(lambda give: self._ask_all(asked, give))

    async def _ask_all(self, asked: Sequence[Asked], give: Callable[[Reply], None]) -> None:
        questions = iter(asked)
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self._key}"} if self._key else {})
        timeout = httpx2.Timeout(self._timeout, connect=min(CONNECT_SECONDS, self._timeout))
        limits = httpx2.Limits(max_connections=self._concurrency)
        async with httpx2.AsyncClient(headers=headers, timeout=timeout, limits=limits) as client:

            async def work() -> None:
                for question in questions:  # the workers share the iterator
                    give(await self._ask(client, question))

            try:
                async with asyncio.TaskGroup() as workers:
                    for _ in range(min(self._concurrency, len(asked))):
                        workers.create_task(work())
            except ExceptionGroup as group:  # the first one cancelled the other workers
                raise group.exceptions[0] from None

    async def _ask(self, client: httpx2.AsyncClient, question: Asked) -> Reply:
        try:
            reply = await self._until_answered(client, question)
        except (Trouble, Refused) as error:
            self._luck.bad(error, self._where)
            return Reply(question.id, "", error=str(error))
        self._luck.good()
        return reply

    async def _until_answered(self, client: httpx2.AsyncClient, question: Asked) -> Reply:
        content = api_request.body(question, self._model, self._fields)
        attempt = 1
        while True:
            await self._pace.turn()
            try:
                return await self._once(client, content, question.id)
            except Trouble as trouble:
                if attempt == self._attempts or (trouble.wait or 0.0) > LONGEST_HOLD:
                    raise
                if trouble.wait:
                    self._pace.hold(trouble.wait)
            await asyncio.sleep(backoff(attempt, self._first_wait))
            attempt += 1

    async def _once(self, client: httpx2.AsyncClient, content: bytes, question: str) -> Reply:
        try:
            async with (
                asyncio.timeout(self._timeout),
                client.stream("POST", self._url, content=content, headers={"Content-Type": "application/json"}) as got,
            ):
                received = await _read(got)
            return api_reply.read(got.status_code, got.headers, received, question, self._key)
        except TimeoutError:
            raise Trouble(f"no answer within {self._timeout:g} s") from None
        except httpx2.RequestError as error:
            raise Trouble(api_reply.scrubbed(f"{type(error).__name__} {error}", self._key)) from None
        except UserError as error:
            raise UserError(f"{self._where}, model {self._model}: {error}") from None


def _key(name: str) -> str:
    key = os.environ.get(name, "").strip()
    if not key and name != KEY_ENV:
        raise UserError(f"the environment variable {name}, which is to hold the key, is not set")
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the key in the environment variable {name} has characters that no key has; set it again")
    return key


def _refuse(question: Asked) -> None:
    if question.prompt.whole:
        raise UserError(
            "a chat server puts its own template around a prompt, and this prompt profile brings one; ask it with "
            "--prompts plain or llava"
        )
    if question.options:
        raise UserError("option likelihoods need a model on this machine; a server is asked for answers only")


async def _read(response: httpx2.Response) -> bytes:
    received = bytearray()
    async for piece in response.aiter_bytes():
        received += piece
        if len(received) > MOST_BYTES:
            raise Trouble(f"the answer is larger than {MOST_BYTES // 2**20} MiB")
    return bytes(received)


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
