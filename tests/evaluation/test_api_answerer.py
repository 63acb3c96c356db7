"""What `ApiAnswerer` sends, and that it keeps its promises, against a server on this machine."""

import asyncio
import base64
import io
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply
from blindspot.evaluation.models.api import ApiAnswerer

KEY = "sk-very-secret-0123"
Answering = Callable[[dict[str, Any]], dict[str, Any]]


def completion(text: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "model": "toy-0615",
        "system_fingerprint": "fp_1",
        "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": finish}],
    }


def question_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


class Toy(ThreadingHTTPServer):
    """Remembers what it is sent; answers with the question itself, or as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        self.paths: list[str] = []
        self.answering: Answering = lambda body: completion(question_of(body))
        self.now = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away


class Handler(BaseHTTPRequestHandler):
    server: Toy  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.requests.append(body)
            self.server.headers.append(self.headers)
            self.server.paths.append(self.path)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        content = json.dumps(self.server.answering(body)).encode()
        with self.server.lock:
            self.server.now -= 1
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def toy() -> Iterator[Toy]:
    server = Toy()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def asked(name: str, *pictures: bytes, **prompt: Any) -> Asked:
    return Asked(name, Prompt((*[PICTURE] * len(pictures), name), **prompt), pictures)


def picture(form: str) -> bytes:
    file = io.BytesIO()
    extra = {"save_all": True, "append_images": [Image.new("RGB", (9, 5))]} if form == "MPO" else {}
    Image.new("RGB", (9, 5), "red").save(file, form, **extra)
    return file.getvalue()


def by_id(replies: Iterator[Reply]) -> dict[str, Reply]:
    return {reply.id: reply for reply in replies}


@pytest.mark.parametrize(
    ("form", "mime"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp"), ("GIF", "image/gif"), ("MPO", "image/jpeg")],
)
def test_pictures_travel_as_published_under_the_type_that_their_bytes_say(toy: Toy, form: str, mime: str) -> None:
    published = picture(form)
    list(ApiAnswerer(toy.url, "toy").answer([asked("what?", published)]))
    (part, text) = toy.requests[0]["messages"][0]["content"]
    head, _, data = part["image_url"]["url"].partition(",")
    assert (part["type"], head, base64.b64decode(data)) == ("image_url", f"data:{mime};base64", published)
    assert text == {"type": "text", "text": "what?"}


def test_a_request_is_greedy_and_says_what_the_prompt_says(toy: Toy) -> None:
    prompt = Prompt(("one ", "two ", PICTURE, "three", PICTURE), system="be brief", longest=7)
    replies = ApiAnswerer(toy.url, "toy", extra={"seed": 3}).answer([Asked("q", prompt, (picture("PNG"),) * 2)])
    toy.answering = lambda body: completion("yes", "length")
    assert list(replies) == [Reply("q", "yes", "length")]
    (request,) = toy.requests
    system, user = request.pop("messages")
    assert request == {"model": "toy", "max_tokens": 7, "temperature": 0, "seed": 3}
    assert system == {"role": "system", "content": "be brief"}
    assert [part.get("text") for part in user["content"]] == ["one two ", None, "three", None]
    assert toy.paths == ["/v1/chat/completions"]


def test_a_question_without_pictures_is_sent_as_a_plain_text(toy: Toy) -> None:
    list(ApiAnswerer(toy.url, "toy").answer([Asked("q", Prompt(("a ", "b")))]))
    assert toy.requests[0]["messages"] == [{"role": "user", "content": "a b"}]


def test_fields_are_taken_away_with_null_and_the_essential_ones_are_refused(toy: Toy) -> None:
    extra = {"temperature": None, "max_tokens": None, "max_completion_tokens": 5}
    list(ApiAnswerer(toy.url, "toy", extra=extra).answer([asked("q")]))
    assert set(toy.requests[0]) == {"model", "messages", "max_completion_tokens"}
    with pytest.raises(UserError, match="'messages' is set by Blindspot"):
        ApiAnswerer(toy.url, "toy", extra={"messages": []})


def test_every_question_gets_one_reply_while_no_more_than_allowed_are_under_way(toy: Toy) -> None:
    def slowly(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.01)
        return completion(question_of(body).upper())

    toy.answering = slowly
    questions = [asked(f"q{number}") for number in range(60)]
    replies = list(ApiAnswerer(toy.url, "toy", concurrency=5).answer(questions))
    assert sorted((reply.id, reply.raw) for reply in replies) == sorted((one.id, one.id.upper()) for one in questions)
    assert 1 < toy.most <= 5


def test_requests_keep_the_rate_over_several_calls(toy: Toy) -> None:
    answerer = ApiAnswerer(toy.url, "toy", per_minute=1200)
    begin = time.monotonic()
    for call in range(2):
        list(answerer.answer([asked(f"{call}-{number}") for number in range(4)]))
    assert time.monotonic() - begin > 7 * 0.05


def test_what_cannot_be_asked_through_chat_is_refused_before_anything_is_sent(toy: Toy) -> None:
    answerer = ApiAnswerer(toy.url, "toy")
    with pytest.raises(UserError, match="--prompts plain"):
        list(answerer.answer([asked("good"), Asked("bad", Prompt(("USER: hi ASSISTANT:",), whole=True))]))
    with pytest.raises(UserError, match="likelihoods need a model on this machine"):
        list(answerer.answer([Asked("q", Prompt(("q",)), options={"A": "A"})]))
    assert not toy.requests


def test_a_picture_of_no_known_format_costs_only_its_own_question(toy: Toy) -> None:
    replies = by_id(ApiAnswerer(toy.url, "toy").answer([asked("bad", b"no picture"), asked("good", picture("PNG"))]))
    assert replies["bad"].error and "no known format" in replies["bad"].error
    assert replies["good"] == Reply("good", "good")


def test_the_key_goes_to_the_server_and_nowhere_else(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("TOY_KEY", f" {KEY}\n")
    toy.answering = lambda body: {"error": {"code": 400, "message": f"Bearer {KEY} is fine, the question is not"}}
    answerer = ApiAnswerer(toy.url, "toy", key_env="TOY_KEY")
    (reply,) = answerer.answer([asked("q")])
    assert toy.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert reply.error and "the question is not" in reply.error
    toy.answering = lambda body: {"error": {"code": 401, "message": f"unknown key {KEY}"}}
    with pytest.raises(UserError) as stopped:
        list(answerer.answer([asked("q")]))
    everything = [str(stopped.value), json.dumps(answerer.identity), repr(reply), caplog.text]
    assert not [text for text in everything if KEY in text]
    assert answerer.identity == {
        "answerer": "api",
        "model": "toy",
        "address": toy.url,
        "settings": {"temperature": 0},
    }


@pytest.mark.parametrize("status", [400, 401, 500])
def test_a_key_at_the_edge_of_what_is_shown_is_not_shown_in_part(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("TOY_KEY", KEY)
    toy.answering = lambda body: {"error": {"code": status, "message": "x" * 290 + KEY}}
    answerer = ApiAnswerer(toy.url, "toy", key_env="TOY_KEY", attempts=1)
    try:
        (reply,) = answerer.answer([asked("q")])
    except UserError as error:
        shown = str(error)
    else:
        shown = reply.error or ""
    assert "x***" in shown and KEY[:3] not in shown


def test_without_a_key_none_is_sent(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    list(ApiAnswerer(toy.url, "toy").answer([asked("q")]))
    assert "Authorization" not in toy.headers[0]
    with pytest.raises(UserError, match="NO_SUCH_KEY, which is to hold the key, is not set"):
        ApiAnswerer(toy.url, "toy", key_env="NO_SUCH_KEY")


@pytest.mark.parametrize("key", ["sk-a\nb", "sk-ü", "sk-\x1b[0m"])
def test_a_key_that_no_header_can_carry_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(UserError, match="set it again") as refused:
        ApiAnswerer("http://127.0.0.1:1/v1", "toy")
    assert "sk-" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://user:hush@host/v1",
        "http://u:hush@[::1/v1",
        "http://host/v1?key=hush",
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_showing_passwords(address: str) -> None:
    with pytest.raises(UserError) as refused:
        ApiAnswerer(address, "toy")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_addresses_are_taken_as_people_copy_them(toy: Toy, ending: str) -> None:
    answerer = ApiAnswerer(toy.url + ending, "toy")
    assert [reply.raw for reply in answerer.answer([asked("q")])] == ["q"]
    assert answerer.identity["address"] == toy.url


def test_identity_stays_whatever_the_server_says_of_itself(toy: Toy) -> None:
    answerer = ApiAnswerer(toy.url, "toy")
    before = answerer.identity
    list(answerer.answer([asked("a"), asked("b")]))
    assert answerer.identity == before


def test_it_can_be_used_from_within_an_event_loop(toy: Toy) -> None:
    async def notebook() -> list[Reply]:
        return list(ApiAnswerer(toy.url, "toy").answer([asked("q")]))

    assert asyncio.run(notebook()) == [Reply("q", "q")]


def test_leaving_early_drops_what_is_under_way(toy: Toy) -> None:
    release = threading.Event()

    def hang(body: dict[str, Any]) -> dict[str, Any]:
        if question_of(body) != "first":
            release.wait(5)
        return completion("x")

    toy.answering = hang
    replies = ApiAnswerer(toy.url, "toy").answer([asked("first"), *(asked(f"q{number}") for number in range(4))])
    begin = time.monotonic()
    assert next(iter(replies)).id == "first"
    replies.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert time.monotonic() - begin < 2
    release.set()
    assert not [thread for thread in threading.enumerate() if thread.name == "blindspot-api"]


@pytest.mark.parametrize("per_minute", [0.0, -1.0, float("nan")])
def test_requests_a_minute_are_above_zero(per_minute: float) -> None:
    with pytest.raises(UserError, match="requests a minute must be above zero"):
        ApiAnswerer("http://localhost:1/v1", "m", per_minute=per_minute)
