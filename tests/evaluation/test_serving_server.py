"""The server as clients meet it, with an answerer that does what it is told."""

import base64
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import pytest
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Prompt, Reply
from blindspot.evaluation.models.api import ApiAnswerer
from blindspot.evaluation.serving import server as serving
from blindspot.evaluation.serving.server import ChatServer


class Toy:
    """Says what it is asked, in the order that it likes; waits, and fails, where the question says so."""

    identity: dict[str, Any] = {"answerer": "toy"}  # noqa: RUF012

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free = threading.Event()
        self.free.set()

    def answer(self, asked: Sequence[Asked]) -> Iterator[Reply]:
        texts = [str(question.prompt) for question in asked]
        self.batches.append(texts)
        assert self.free.wait(10)
        if any(text.startswith("crash") for text in texts):
            raise RuntimeError("secret details of the machine")
        if any(text.startswith("cannot") for text in texts):
            raise UserError("this cannot be asked")
        for question, text in sorted(zip(asked, texts, strict=True), key=lambda pair: pair[1], reverse=True):
            error = "the picture is broken" if text.startswith("broken") else None
            yield Reply(question.id, "" if error else text, "length" if text == "long" else "end", error=error)


@contextmanager
def served(toy: Toy, batch: int = 8, host: str = "127.0.0.1") -> Iterator[ChatServer]:
    server = ChatServer(host, 0)
    server.start(toy, "toys/toy", batch)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        toy.free.set()
        server.shutdown()
        thread.join()
        server.stop()


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def server(toy: Toy) -> Iterator[ChatServer]:
    with served(toy) as server:
        yield server


def body(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "toys/toy", "messages": [{"role": "user", "content": text}], **fields}


def post(server: ChatServer, value: Any, **more: Any) -> httpx2.Response:
    return httpx2.post(f"{server.address}/chat/completions", json=value, timeout=10, trust_env=False, **more)


def get(server: ChatServer, path: str) -> httpx2.Response:
    return httpx2.get(server.address.removesuffix("/v1") + path, trust_env=False)


def connected(server: ChatServer, wait: float = 5) -> socket.socket:
    return socket.create_connection(server.server_address[:2], timeout=wait)  # pyright: ignore[reportArgumentType]


def wire(server: ChatServer, request: bytes, wait: float = 5) -> bytes:
    """What the server sends until it hangs up, or for as long as it is waited for."""
    heard = b""
    with connected(server, wait) as client:
        client.sendall(request)
        with suppress(TimeoutError):
            while piece := client.recv(2**16):
                heard += piece
            return heard + b"END"
    return heard


def raw(text: str, *headers: str) -> bytes:
    """A question as bytes; of its own headers it has all but the length."""
    content = json.dumps(body(text)).encode()
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers)
    return "\r\n".join(lines).format(len(content)).encode() + b"\r\n\r\n" + content


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.005)


def test_it_answers_lists_its_model_and_is_healthy(server: ChatServer) -> None:
    said = post(server, body("left of")).json()
    assert said["object"] == "chat.completion" and said["model"] == "toys/toy"
    message = {"role": "assistant", "content": "left of"}
    assert said["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    assert [model["id"] for model in get(server, "/v1/models").json()["data"]] == ["toys/toy"]
    for name in ("toys/toy", "toys%2Ftoy"):
        assert get(server, f"/v1/models/{name}").json()["id"] == "toys/toy"
    assert get(server, "/health").json() == {"status": "ok", "model": "toys/toy"}


def test_the_fingerprint_is_the_models(server: ChatServer, toy: Toy) -> None:
    first, second = (post(server, body(text)).json()["system_fingerprint"] for text in "ab")
    assert first == second
    toy.identity = {"answerer": "another toy"}
    with served(toy) as other:
        assert post(other, body("a")).json()["system_fingerprint"] != first


def test_length_stop_and_streaming(server: ChatServer) -> None:
    assert post(server, body("long")).json()["choices"][0]["finish_reason"] == "length"
    choice = post(server, body("one\ntwo", stop="\n")).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one", "stop")
    streamed = post(server, body("one\ntwo", stream=True, stop=["two"]))
    assert streamed.headers["content-type"] == "text/event-stream"
    assert streamed.text.endswith("data: [DONE]\n\n") and '"one\\n"' in streamed.text


def together(toy: Toy, batch: int, *texts: str) -> dict[str, httpx2.Response]:
    """Answers to texts that wait while a first question is under way, and to that."""
    toy.free.clear()
    with served(toy, batch) as server, ThreadPoolExecutor(9) as pool:
        first = pool.submit(post, server, body("first"))
        until(lambda: toy.batches)
        rest = {text: pool.submit(post, server, body(text)) for text in texts}
        until(lambda: server.batches._queue.qsize() == len(texts))
        toy.free.set()
        return {text: future.result() for text, future in {"first": first, **rest}.items()}


def test_requests_that_arrive_together_are_one_batch(toy: Toy) -> None:
    answers = together(toy, 5, *(f"q{number}" for number in range(8)))
    assert [answer.json()["choices"][0]["message"]["content"] for answer in answers.values()] == list(answers)
    assert [len(batch) for batch in toy.batches] == [1, 5, 3]


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("crash", 500, "the model failed: RuntimeError"),
        ("cannot", 400, "this cannot be asked"),
        ("broken", 400, "the picture is broken"),
    ],
)
def test_a_request_harms_no_other_of_its_batch(toy: Toy, text: str, status: int, message: str) -> None:
    answers = together(toy, 8, *(f"q{number}" for number in range(4)), text)
    bad = answers.pop(text)
    assert all(answer.status_code == 200 for answer in answers.values())
    assert (bad.status_code, bad.json()["error"]["message"]) == (status, message)


def test_a_client_that_goes_away_is_no_event(server: ChatServer, toy: Toy, capfd: pytest.CaptureFixture[str]) -> None:
    toy.free.clear()
    whole = raw("whole", "Content-Length: {}")
    for request_ in (whole[:-20], whole):
        with connected(server) as client:
            client.sendall(request_)
            until(lambda half=request_ != whole: toy.batches or half)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # a reset, not a farewell
    toy.free.set()
    assert post(server, body("next")).status_code == 200
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("content", "kind", "status", "message"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b"\xff\xfe", "application/json", 400, "not JSON"),
        (b"[" * 100_000, "application/json", 400, "not JSON"),
        (b"[]", "application/json", 400, "must be a JSON object"),
        (b"{}", "text/plain", 415, "application/json"),
    ],
)
def test_a_body_that_cannot_be_read_is_refused_in_the_protocols_shape(
    server: ChatServer, content: bytes, kind: str, status: int, message: str
) -> None:
    answer = httpx2.post(
        f"{server.address}/chat/completions", content=content, headers={"Content-Type": kind}, trust_env=False
    )
    assert answer.status_code == status
    assert message in answer.json()["error"]["message"] and answer.json()["error"]["type"] == "invalid_request_error"


def test_refusals_do_not_end_a_connection(server: ChatServer) -> None:
    with httpx2.Client(trust_env=False) as client:
        answers = [
            client.post(f"{server.address}/chat/completions", json=body(text, n=1 + (text == "b"))) for text in "abc"
        ]
    assert [answer.status_code for answer in answers] == [200, 400, 200]
    assert not [answer for answer in answers if answer.headers.get("connection") == "close"]


def test_paths_and_methods_that_are_not_there(server: ChatServer) -> None:
    assert get(server, "/v1/other").status_code == 404
    assert get(server, "/v1/models/other").status_code == 404
    answer = httpx2.post(f"{server.address}/completions", json={}, trust_env=False)
    assert answer.status_code == 404 and "/v1/chat/completions" in answer.json()["error"]["message"]
    answer = httpx2.delete(f"{server.address}/models", trust_env=False)
    assert answer.status_code == 501 and answer.json()["error"]["message"]


def test_a_request_has_a_largest_size(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "MOST_BYTES", 2**20)
    answer = post(server, body("x" * 2**21))
    assert answer.status_code == 413 and "1 MiB" in answer.json()["error"]["message"]
    assert post(server, body("small")).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Transfer-Encoding", "chunked"),
        *(("Content-Length", length) for length in ("", "-1", "+2", "1_0", "²", "9" * 5000)),
    ],
)
def test_a_length_that_is_no_number_of_bytes_is_refused(server: ChatServer, name: str, value: str) -> None:
    connection = http.client.HTTPConnection(*server.server_address[:2], timeout=5)  # pyright: ignore[reportArgumentType]
    connection.putrequest("POST", "/v1/chat/completions")
    connection.putheader(name, value.encode())
    connection.endheaders()  # and no body: the server may hang up before it is written
    assert connection.getresponse().status == 411


def test_a_client_that_never_finishes_is_left(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving._Handler, "timeout", 0.1)
    with served(toy) as server, connected(server) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
        assert client.recv(100) == b""


def test_clients_that_have_gone_are_not_computed(server: ChatServer, toy: Toy) -> None:
    toy.free.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(post, server, body("first"))
        until(lambda: toy.batches)
        assert wire(server, raw("gone", "Content-Length: {}"), wait=0.2) == b""
        time.sleep(0.5)
        toy.free.set()
        assert first.result().status_code == 200
    assert post(server, body("next")).status_code == 200
    assert toy.batches == [["first"], ["next"]]


HIDDEN = raw("hidden", "Content-Length: {}")


@pytest.mark.parametrize(
    "request_",
    [
        raw("q", "Content-Length: {}", "Transfer-Encoding: chunked").replace(b"\r\n\r\n", b"\r\n\r\n0\r\n\r\n"),
        raw("q", "Content-Length: {}", "Content-Length: 5"),
        raw("q", "Content-Length: 5", "Content-Length: {}"),
        raw("q", "Content-Length: {}, 5"),
        raw("q", "Content-Length: {}", "Content-Length : 5"),
        raw("q", "X", "Content-Length: {}"),
        raw("q", "Content-Length: {}", "Host: localhost"),
        raw("q", "Content-Length: {}").replace(b"Host: localhost\r\n", b""),
    ],
)
def test_what_two_readers_could_take_for_different_requests_ends_the_connection(
    server: ChatServer, toy: Toy, request_: bytes
) -> None:
    answer = wire(server, request_ + HIDDEN)
    assert answer.startswith(b"HTTP/1.1 4") and answer.count(b"HTTP/1.1") == 1 and answer.endswith(b"END")
    assert toy.batches == []


@pytest.mark.parametrize("framing", ["Content-Length: {}", "Transfer-Encoding: chunked"])
def test_what_a_get_carries_is_no_request(server: ChatServer, toy: Toy, framing: str) -> None:
    head = f"GET /health HTTP/1.1\r\nHost: localhost\r\n{framing}\r\n\r\n".format(len(HIDDEN)).encode()
    assert wire(server, head + HIDDEN, wait=0.5).count(b"HTTP/1.1") == 1
    assert toy.batches == []


@pytest.mark.parametrize(
    ("bound", "host", "taken"),
    [
        ("127.0.0.1", "LocalHost:80", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "rebound.example", False),
        ("127.0.0.1", "127.0.0.1.rebound.example:8000", False),
        ("127.0.0.1", "localhost@rebound.example", False),
        ("127.0.0.1", "", False),
        ("localhost", "localhost", True),
        ("0.0.0.0", "192.0.2.7:8000", True),
        ("0.0.0.0", f"{socket.gethostname()}:8000", True),
        ("0.0.0.0", "rebound.example", False),
        ("", "", False),
    ],
)
def test_it_answers_to_addresses_and_its_own_names_alone(toy: Toy, bound: str, host: str, taken: bool) -> None:
    """A web page can make a name of its own lead here, and could then read the answers."""
    with served(toy, host=bound) as server:
        request_ = HIDDEN.replace(b"Host: localhost", f"Host: {host}".encode()) + HIDDEN
        answer = wire(server, request_, wait=0.5)
    assert (answer.startswith(b"HTTP/1.1 200"), bool(toy.batches)) == (taken, taken)
    assert taken or (answer.startswith(b"HTTP/1.1 4") and answer.endswith(b"END"))


def test_a_request_has_most_pixels_and_so_have_all_together(toy: Toy) -> None:
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")  # 64 million pixels in 8 kB
    url = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"

    def shown(count: int) -> dict[str, Any]:
        content = [{"type": "image_url", "image_url": url}] * count
        return body("", messages=[{"role": "user", "content": content}])

    toy.free.clear()
    with served(toy, batch=50) as server, ThreadPoolExecutor(9) as pool:
        refused = post(server, shown(2))
        assert refused.status_code == 400 and "64,000,000" in refused.json()["error"]["message"]
        first = pool.submit(post, server, body("first"))
        until(lambda: toy.batches)
        rest = [pool.submit(post, server, shown(1)) for _ in range(5)]
        time.sleep(1)
        toy.free.set()
        assert {future.result().status_code for future in [first, *rest]} == {200}
    assert sum(map(len, toy.batches)) == 6 and max(map(len, toy.batches)) <= 2


def test_stopping_finishes_the_batch_under_way_and_refuses_the_rest(toy: Toy) -> None:
    toy.free.clear()
    with ThreadPoolExecutor(4) as pool, served(toy) as server:
        under_way = pool.submit(post, server, body("under way"))
        until(lambda: toy.batches)
        waiting = [pool.submit(post, server, body("waiting")) for _ in range(3)]
        until(lambda: server.batches._queue.qsize() == 3)
        threading.Timer(0.1, toy.free.set).start()
        server.stop()
        assert under_way.result().status_code == 200
        assert [future.result().status_code for future in waiting] == [503] * 3
    assert toy.batches == [["under way"]]


def test_a_port_that_is_taken_and_a_host_that_is_none_are_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is taken"):
            ChatServer("127.0.0.1", port)
    with pytest.raises(UserError, match="cannot listen on 192"):
        ChatServer("192.0.2.1", 8000)
    with pytest.raises(UserError, match="cannot listen on"):
        ChatServer("127.0.0.1", 70_000)


def test_our_client_and_our_server_keep_every_question_and_its_answer(server: ChatServer, toy: Toy) -> None:
    questions = [Asked(f"id{number}", Prompt((f"q{number}",))) for number in range(300)]
    answerer = ApiAnswerer(server.address, "toys/toy", concurrency=16)
    replies = list(answerer.answer(questions))
    assert sorted((reply.id, reply.raw) for reply in replies) == sorted(
        (one.id, one.prompt.content[0]) for one in questions
    )
    assert len(toy.batches) < 150, "hardly anything was batched"
    with pytest.raises(UserError, match=r"no such model.*serves 'toys/toy', not 'other'"):
        list(ApiAnswerer(server.address, "other").answer(questions))
