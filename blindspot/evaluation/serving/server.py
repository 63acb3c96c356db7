"""A model behind the protocol of OpenAI's chat completions, on the standard library's HTTP server."""

import errno
import ipaddress
import json
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from queue import Empty, SimpleQueue
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import unquote, urlsplit

from blindspot.errors import UserError
from blindspot.evaluation.base import Answerer, Asked, Picture, Reply
from blindspot.evaluation.serving import protocol
from blindspot.evaluation.serving.protocol import Refusal
from blindspot.files import fingerprint, parse_json

MOST_BYTES = 64 * 2**20
"""Of a request."""
MOST_PIXELS = 2 * protocol.MOST_PIXELS
"""Of all requests that are answered at a time; further ones wait."""
READ_SECONDS = 60.0
"""For each read from a client, and for a connection that is kept open."""
LEAVING_SECONDS = 5.0
LOOKING_SECONDS = 0.2
"""Between looks whether a client that waits is still there."""
GATHERING_SECONDS = 0.01
"""That an idle model waits for the questions that come with the first one."""
TOGETHER = 8
"""Batches of questions that are handed over at a time, to be sorted by length and by picture."""
CHAT, MODELS, HEALTH = "/v1/chat/completions", "/v1/models", "/health"


def run(model: str, host: str, port: int, batch: int, name: str | None = None) -> None:
    """Serve a model until Ctrl-C or SIGTERM."""
    import torch

    from blindspot.evaluation.models.local import LocalAnswerer
    from blindspot.model import load

    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with ChatServer(host, port) as server:  # before the model, which takes its time
            load.quiet()
            opened, processor = load.load(model)
            name = name or os.path.basename(os.path.abspath(model))  # of a link, its own name
            device = torch.accelerator.current_accelerator(check_available=True)
            answerer = KnownWords(LocalAnswerer(opened, processor, batch=batch, device=device), processor)
            server.start(answerer, name, TOGETHER * batch)
            print(f"Serving {name} at {server.address}; Ctrl-C stops it", flush=True)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                print("stopping when the batch under way is answered; Ctrl-C again stops at once", file=sys.stderr)
            try:
                server.stop()
            except KeyboardInterrupt:
                os._exit(130)  # a thread inside torch cannot be ended otherwise
    finally:
        signal.signal(signal.SIGTERM, before)


class KnownWords:
    """Another answerer, whose model is asked in words that it knows, as `blindspot ask` does, or not at all."""

    def __init__(self, answerer: Answerer, processor: Any) -> None:
        self._answerer, self._processor = answerer, processor
        self.identity = answerer.identity

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        """See `Answerer`; a question with other words gets an error."""
        from blindspot.model.load import in_known_words

        known: list[Asked] = []
        for one in asked:
            parts = one.prompt.content
            try:
                parts = [part if isinstance(part, Picture) else in_known_words(self._processor, part) for part in parts]
                known.append(replace(one, prompt=replace(one.prompt, content=tuple(parts))))
            except UserError as error:
                yield Reply(one.id, "", error=str(error))
        yield from self._answerer.answer(known)


class Batcher:
    """Hands questions of many threads to an answerer in one thread, all that are waiting at a time.

    While it works, the next batch of at most ``most`` gathers. A batch that fails is repeated question by question, so
    that a request harms no other.
    """

    def __init__(self, answerer: Answerer, most: int) -> None:
        self._answerer, self._most, self._closed = answerer, most, False
        self._queue: SimpleQueue[tuple[Asked, Future[Reply]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="blindspot-model", daemon=True)
        self._thread.start()

    def ask(self, asked: Asked) -> Future[Reply]:
        """The reply to come; cancelled if the model stops before its turn."""
        reply: Future[Reply] = Future()
        self._queue.put((asked, reply))
        if self._closed:
            reply.cancel()
        return reply

    def close(self) -> None:
        """Finish the batch under way and cancel the questions behind it."""
        self._closed = True
        self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        while not self._closed:
            waiting = [self._queue.get()]
            until = time.monotonic() + GATHERING_SECONDS
            with suppress(Empty):
                while waiting[-1] is not None and len(waiting) < self._most:
                    waiting.append(self._queue.get(timeout=max(0.0, until - time.monotonic())))
            batch = [one for one in waiting if one is not None]
            for _, reply in batch if self._closed else ():
                reply.cancel()
            if batch := [one for one in batch if one[1].set_running_or_notify_cancel()]:
                self._answer(batch)
        while not self._queue.empty():
            if one := self._queue.get():
                one[1].cancel()

    def _answer(self, batch: list[tuple[Asked, Future[Reply]]]) -> None:
        left = {asked.id: (asked, reply) for asked, reply in batch}
        error: Exception = RuntimeError("the model gave no reply")
        try:
            for reply in self._answerer.answer([asked for asked, _ in batch]):
                left.pop(reply.id)[1].set_result(reply)
        except Exception as raised:
            error = raised
        for asked, reply in left.values():
            if len(batch) == 1:
                reply.set_exception(error)
            else:
                self._answer([(asked, reply)])


class ChatServer(ThreadingMixIn, TCPServer):
    """Listens as soon as `start` gives it a model; until then it only holds the port.

    Args:
        port: 0: any that is free.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler, bind_and_activate=False)
        try:
            self.server_bind()
        except (OSError, OverflowError) as error:
            self.server_close()
            said = f"cannot listen on {host}, port {port}: {error}; see --host and --port"
            if isinstance(error, PermissionError):
                said = f"port {port} needs a privileged user; choose one from 1024 on with --port"
            elif isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
                said = f"port {port} of {host} is taken by another program; choose another with --port"
            raise UserError(said) from error
        own = socket.gethostname().lower()
        self._names = {"localhost", host.lower(), own, own.split(".")[0]}
        self._under_way = self._pixels = 0
        self._changed = threading.Condition()

    def start(self, answerer: Answerer, name: str, batch: int) -> None:
        """Accept requests to a model under a name, of which at most ``batch`` are handed to it at a time."""
        self.name = name
        model = {"id": name, "object": "model", "created": int(time.time()), "owned_by": "blindspot"}
        self.pages: dict[str, dict[str, Any]] = {
            HEALTH: {"status": "ok", "model": name},
            MODELS: {"object": "list", "data": [model]},
            f"{MODELS}/{name}": model,
        }
        self.fingerprint = f"blindspot-{fingerprint(answerer.identity)[:16]}"
        self.batches = Batcher(answerer, batch)
        self.server_activate()

    @property
    def address(self) -> str:
        """What a client is told."""
        host, port = self.server_address[:2]
        return f"http://[{host!s}]:{port}/v1" if ":" in str(host) else f"http://{host!s}:{port}/v1"

    def stop(self) -> None:
        """Finish the batch under way, refuse what waits behind it, and close."""
        self.batches.close()
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, LEAVING_SECONDS)
        self.server_close()

    def is_called(self, host: str) -> bool:
        """Whether a Host header names this server: by an address, which no web page can make its own, or by name."""
        found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^][:@/]+)(:\d+)?", host.lower())
        if found is None:
            return False
        name = found[1].strip("[]")
        with suppress(ValueError):
            return bool(ipaddress.ip_address(name))
        return name in self._names

    @contextmanager
    def room(self, pixels: int, gone: Callable[[], bool]) -> Iterator[None]:
        """Wait until all that is answered at a time has few enough pixels with these, or nobody waits any more."""
        with self._changed:
            while self._pixels + pixels > MOST_PIXELS:
                if gone():
                    raise ConnectionAbortedError
                self._changed.wait(LOOKING_SECONDS)
            self._pixels += pixels
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Holds `stop` back until an answer is sent."""
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no event; anything else is a bug, and is shown."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            traceback.print_exc()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "blindspot"
    sys_version = ""
    timeout = READ_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1
    server: ChatServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def parse_request(self) -> bool:
        """Refuse what another reader could take for another request, and what is meant for another host."""
        if not super().parse_request():
            return False
        lengths, hosts = (self.headers.get_all(name, []) for name in ("Content-Length", "Host"))
        if self.headers.defects or len(lengths) > 1 or len(hosts) != 1:
            self.send_error(400, "the headers are not those of one request: one Host, one Content-Length")
        elif "Transfer-Encoding" in self.headers:
            self.send_error(411, "say the request's length (Content-Length); Transfer-Encoding is not taken")
        elif self.command != "POST" and lengths not in ([], ["0"]):
            self.send_error(400, f"a {self.command} carries nothing")
        elif not self.server.is_called(hosts[0]):
            self.send_error(421, "this server is not called so; ask for it by its address")
        else:
            return True
        return False

    def finish(self) -> None:
        """Hang up once the client has heard: closing on what it still sends would take the answer from it."""
        with suppress(OSError):
            super().finish()
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(1)
            until = time.monotonic() + LEAVING_SECONDS
            while time.monotonic() < until and self.connection.recv(2**20):
                pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path in self.server.pages:
            self._send(200, self.server.pages[path])
        else:
            self._refuse(Refusal(404, f"there is no {path} here; there are {CHAT}, {MODELS} and {HEALTH}"))

    def do_POST(self) -> None:
        with self.server.counted():
            try:
                self._chat()
            except Refusal as refusal:
                self._refuse(refusal)

    def _chat(self) -> None:
        content = self._body()
        if urlsplit(self.path).path != CHAT:
            raise Refusal(404, f"there is no {self.path} here; questions go to {CHAT}")
        if self.headers.get_content_type() != "application/json":  # which a web page may not send unasked
            raise Refusal(415, "send the request as application/json")
        try:
            body = parse_json(content)
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error
        wanted = protocol.read(body, self.server.name)
        with self.server.room(wanted.pixels, self._gone):
            answer = self.server.batches.ask(wanted.asked)
            while not answer.done():
                wait([answer], LOOKING_SECONDS)
                if self._gone():
                    answer.cancel()  # unless it is being computed
            try:
                reply = answer.result()
            except CancelledError:
                raise Refusal(503, "this server is being stopped") from None
            except UserError as error:
                raise Refusal(400, str(error)) from error
            except Exception as error:
                traceback.print_exc()
                raise Refusal(500, f"the model failed: {type(error).__name__}") from error
        if reply.error is not None:
            raise Refusal(400, reply.error)
        said = protocol.cut(reply, wanted.stop)
        answered = protocol.completion(self.server.name, self.server.fingerprint, reply, *said, wanted.stream)
        self._send(200, answered, "text/event-stream" if wanted.stream else "application/json")

    def _gone(self) -> bool:
        """Whether the client has hung up."""
        self.connection.settimeout(0)
        try:
            return not self.connection.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.connection.settimeout(self.timeout)

    def _body(self) -> bytes:
        """What the client sends, whatever it is: a connection is used again only behind it."""
        said = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,18}", said):
            self.close_connection = True
            raise Refusal(411, "say the request's length (Content-Length)")
        length = int(said)
        if length > MOST_BYTES:
            self.close_connection = True
            raise Refusal(413, f"a request may have {MOST_BYTES // 2**20} MiB")
        content = self.rfile.read(length)
        if len(content) < length:
            raise ConnectionAbortedError
        return content

    def _refuse(self, refusal: Refusal) -> None:
        self._send(refusal.status, refusal.to_dict())

    def _send(self, status: int, value: dict[str, Any] | bytes, kind: str = "application/json") -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)
        self.wfile.flush()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library says of requests that are no HTTP, in this protocol's shape."""
        self.close_connection = True
        self._refuse(Refusal(int(code), message or "bad request"))

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: they hold other people's questions."""
