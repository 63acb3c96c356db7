"""`ApiAnswerer` against a server on this machine that answers, fails, stalls and lies as it is told."""

import asyncio
import base64
import io
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply, Sampling
from blindspot.evaluation.models import api
from blindspot.evaluation.models.api import STOP_AFTER, ApiAnswerer, RefusedError, TransientError, backoff, retry_after

from .run_toy import collection, evaluation

KEY = "sk-very-secret-0123"
Behaviour = Callable[["Handler"], None]


def completion(text: Any, finish: str = "stop") -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {
        "model": "toy-0615",
        "system_fingerprint": "fp_1",
        "choices": [{"message": message, "finish_reason": finish}],
    }


def question_of(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1].get("text", "")


class Toy(ThreadingHTTPServer):
    """Remembers what it is sent; does with each question what its script says next, then answers it with itself."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[Message] = []
        self.paths: list[str] = []
        self.times: dict[str, list[float]] = {}
        self.scripts: dict[str, list[Behaviour]] = {}
        self.answering: Callable[[dict[str, Any]], Any] = lambda body: completion(question_of(body))
        self.now = self.most = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away


class Handler(BaseHTTPRequestHandler):
    server: Toy  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = question_of(body)
        with self.server.lock:
            self.server.requests.append(body)
            self.server.headers.append(self.headers)
            self.server.paths.append(self.path)
            self.server.times.setdefault(question, []).append(time.monotonic())
            script = self.server.scripts.get(question)
            self.server.now += 1
            self.server.most = max(self.server.most, self.server.now)
        behaviour = script.pop(0) if script else says(200, self.server.answering(body))
        with self.server.lock:
            self.server.now -= 1
        behaviour(self)

    def reply(self, status: int, content: bytes, length: int | None = None, **headers: Any) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving() -> Iterator[Toy]:
    server = Toy()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def toy() -> Iterator[Toy]:
    with serving() as server:
        yield server


def says(status: int, value: Any, **headers: Any) -> Behaviour:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda handler: handler.reply(status, content, **headers)


def closes(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def closes_mid_body(handler: Handler) -> None:
    handler.reply(200, json.dumps(completion("fine")).encode()[:20], length=500)
    handler.wfile.flush()
    closes(handler)


def hangs(handler: Handler) -> None:
    time.sleep(1.0)


def drips(handler: Handler) -> None:
    """Sends often enough for any timeout between two reads."""
    handler.reply(200, b"", length=1000)
    for _ in range(50):
        handler.wfile.write(b" ")
        time.sleep(0.02)


def asked(name: str, *pictures: bytes, **prompt: Any) -> Asked:
    return Asked(name, Prompt((*[PICTURE] * len(pictures), name), **prompt), pictures)


def picture(form: str) -> bytes:
    file = io.BytesIO()
    extra = {"save_all": True, "append_images": [Image.new("RGB", (9, 5))]} if form == "MPO" else {}
    Image.new("RGB", (9, 5), "red").save(file, form, **extra)
    return file.getvalue()


def named(*names: str) -> list[Asked]:
    return [asked(name) for name in names]


def failing(toy: Toy, **settings: Any) -> ApiAnswerer:
    return ApiAnswerer(toy.url, "toy", **({"timeout": 5, "first_wait": 0.01, "attempts": 3} | settings))


def replies(toy: Toy, *names: str, **settings: Any) -> dict[str, Reply]:
    got = list(failing(toy, **settings).answer(named(*names)))
    assert len(got) == len({reply.id for reply in got}) == len(names)
    return {reply.id: reply for reply in got}


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


def test_an_answer_that_is_drawn_has_its_seed_and_its_cost_is_told(toy: Toy) -> None:
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    toy.answering = lambda body: {**completion("yes"), "usage": usage}
    one = Asked("q sample 2", Prompt(("q",), longest=9), draw=Sampling(0.7, 0.9, 5))
    assert list(ApiAnswerer(toy.url, "toy").answer([one])) == [Reply("q sample 2", "yes", tokens=(12, 3))]
    (request,) = toy.requests
    assert [request[name] for name in ("temperature", "top_p", "seed", "max_tokens")] == [0.7, 0.9, 5, 9]


@pytest.mark.parametrize("usage", [None, [], {}, {"prompt_tokens": 1}, {"prompt_tokens": "1", "completion_tokens": -2}])
def test_a_cost_that_is_no_number_costs_no_answer(toy: Toy, usage: Any) -> None:
    toy.answering = lambda body: {**completion("yes"), "usage": usage}
    assert list(ApiAnswerer(toy.url, "toy").answer([asked("q")])) == [Reply("q", "yes")]


def test_thoughts_are_turned_off_by_what_templates_call_the_switch(toy: Toy) -> None:
    list(ApiAnswerer(toy.url, "toy").answer([asked("q", thinking=False), asked("r")]))
    told = {question_of(body): body.get("chat_template_kwargs") for body in toy.requests}
    assert told == {"q": {"enable_thinking": False, "thinking": False}, "r": None}


# --- several servers


@pytest.fixture
def second() -> Iterator[Toy]:
    with serving() as server:
        yield server


def nowhere() -> str:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


def test_servers_share_the_questions_and_each_is_asked_as_fast_as_it_answers(toy: Toy, second: Toy) -> None:
    def slowly(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.2)
        return completion(question_of(body))

    second.answering = slowly
    answerer = ApiAnswerer(toy.url, "toy", others=[second.url, f"{toy.url}/"], concurrency=2)
    names = [f"q{number}" for number in range(60)]
    assert sorted(reply.raw for reply in answerer.answer(named(*names))) == sorted(names)
    assert len(toy.requests) + len(second.requests) == 60 and 0 < 2 * len(second.requests) < len(toy.requests)
    assert (answerer.identity["address"], answerer.identity["others"]) == (toy.url, [second.url])


@pytest.mark.parametrize(
    ("behaviour", "lost"),
    [
        (says(503, b""), False),
        (closes_mid_body, False),
        (says(200, {"nonsense": 1}), False),
        (says(401, {"error": {"message": "no"}}), True),
    ],
)
def test_a_server_that_fails_gives_its_questions_to_the_others(
    toy: Toy, second: Toy, behaviour: Behaviour, lost: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"q{number}" for number in range(30)]
    toy.scripts = {name: [behaviour] * 9 for name in names}
    got = replies(toy, *names, others=[second.url, nowhere()], concurrency=4)
    assert {reply.raw for reply in got.values()} == set(names) and not any(reply.error for reply in got.values())
    assert len(second.requests) == 30
    assert (f"{toy.url} is asked no more, the other servers are: " in capsys.readouterr().err) == lost


def test_without_any_server_left_the_run_ends_in_one_line(toy: Toy, second: Toy) -> None:
    for server in (toy, second):
        server.scripts = {f"q{number}": [says(401, {"error": {"message": "no"}})] for number in range(9)}
    coming = failing(toy, others=[second.url], concurrency=1).answer(named("good", "fine", *server.scripts))
    assert {next(coming).id, next(coming).id} == {"good", "fine"}
    with pytest.raises(UserError, match=r"no server is left, the last because: .*what was answered is kept"):
        list(coming)
    with pytest.raises(UserError, match=r"no server is left|questions in a row got no answer") as stopped:
        list(
            ApiAnswerer(nowhere(), "toy", others=[nowhere()], attempts=1, first_wait=0.01).answer(
                named(*"abcdefgh" * 6)
            )
        )
    assert "\n" not in str(stopped.value)


def test_a_run_whose_servers_all_fail_goes_on_and_tells_its_cost(toy: Toy, second: Toy, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2}
    down = threading.Event()
    answered: list[str] = []

    def answering(body: dict[str, Any]) -> dict[str, Any]:
        if down.is_set():
            return {"error": {"code": 404, "message": "gone"}}
        answered.append(question_of(body))
        if len(answered) == 12:
            down.set()
        return {**completion("Yes"), "usage": usage}

    toy.answering = second.answering = answering

    def go() -> dict[str, dict[str, str]]:
        asking = ApiAnswerer(toy.url, "toy", others=[second.url], concurrency=2)
        return evaluation(asking, collection("one")).run(tmp_path / "run")  # pyright: ignore[reportArgumentType]

    with pytest.raises(UserError, match="no server is left"):
        go()
    down.clear()
    assert go() == {}
    assert 40 <= len(answered) <= 40 + 4, "what was answered is asked no second time, but for what was under way"
    told = json.loads((tmp_path / "run/run.json").read_text())["benchmarks"]["one"]["tokens"]
    assert told == {"answers": 40, "read": 400, "said": 80}


def test_engines_are_told_in_their_own_words_and_only_if_asked(toy: Toy) -> None:
    one = Asked("q", Prompt(("see ", PICTURE, "which?")), (picture("PNG"),), options={"A": "A", "B": "B."})
    list(ApiAnswerer(toy.url, "toy", engine="vllm", guided=True, processor={"max_pixels": 9}).answer([one]))
    list(ApiAnswerer(toy.url, "toy", engine="sglang", guided=True, pictures_first=True).answer([one]))
    vllm, sglang = toy.requests
    assert vllm["structured_outputs"] == {"choice": ["A", "B."]} and vllm["mm_processor_kwargs"] == {"max_pixels": 9}
    assert sglang["regex"] == r"(A|B\.)"
    kinds = [[part["type"] for part in body["messages"][0]["content"]] for body in toy.requests]
    assert kinds == [["text", "image_url", "text"], ["image_url", "text"]]
    list(ApiAnswerer(toy.url, "toy", engine="vllm").answer([asked("q")]))
    assert set(toy.requests[-1]) == {"model", "messages", "max_tokens", "temperature"}
    with pytest.raises(UserError, match="only vLLM is told max_pixels"):
        ApiAnswerer(toy.url, "toy", engine="sglang", processor={"max_pixels": 9})
    with pytest.raises(UserError, match="--guided is asked of each kind of server in its own way"):
        ApiAnswerer(toy.url, "toy", guided=True)


def test_a_thought_that_took_all_tokens_is_told(toy: Toy) -> None:
    message = {"role": "assistant", "content": None, "reasoning_content": "Let me see"}
    toy.answering = lambda body: {"choices": [{"message": message, "finish_reason": "length"}]}
    assert list(ApiAnswerer(toy.url, "toy").answer([asked("q")])) == [Reply("q", "", "thought")]


def test_a_question_without_pictures_is_sent_as_a_plain_text(toy: Toy) -> None:
    list(ApiAnswerer(toy.url, "toy").answer([Asked("q", Prompt(("a ", "b")))]))
    assert toy.requests[0]["messages"] == [{"role": "user", "content": "a b"}]


def test_fields_are_taken_away_with_null_and_the_essential_ones_are_refused(toy: Toy) -> None:
    extra = {"temperature": None, "max_tokens": None, "max_completion_tokens": 5}
    list(ApiAnswerer(toy.url, "toy", extra=extra).answer([asked("q")]))
    assert set(toy.requests[0]) == {"model", "messages", "max_completion_tokens"}
    with pytest.raises(UserError, match="'messages' is set by Blindspot"):
        ApiAnswerer(toy.url, "toy", extra={"messages": []})
    for per_minute in (0.0, -1.0, float("nan")):
        with pytest.raises(UserError, match="requests a minute must be above zero"):
            ApiAnswerer(toy.url, "toy", per_minute=per_minute)


def test_every_question_gets_one_reply_while_no_more_than_allowed_are_under_way(toy: Toy) -> None:
    def slowly(body: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.01)
        return completion(question_of(body).upper())

    toy.answering = slowly
    questions = named(*(f"q{number}" for number in range(60)))
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
    asking = ApiAnswerer(toy.url, "toy").answer([asked("bad", b"no picture"), asked("good", picture("PNG"))])
    got = {reply.id: reply for reply in asking}
    assert got["good"] == Reply("good", "good") and "no known format" in str(got["bad"].error)


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
    expected = {"answerer": "api", "model": "toy", "address": toy.url, "settings": {"temperature": 0}}
    assert answerer.identity == expected


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
        *("", "localhost:8000/v1", "ftp://host/v1", "http://"),
        *("http://user:hush@host/v1", "http://u:hush@[::1/v1", "http://host/v1?key=hush"),
    ],
)
def test_addresses_that_cannot_be_used_are_refused_without_showing_passwords(address: str) -> None:
    with pytest.raises(UserError) as refused:
        ApiAnswerer(address, "toy")
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("ending", ["", "/", "/chat/completions", "/chat/completions/"])
def test_addresses_are_taken_as_people_copy_them(toy: Toy, ending: str) -> None:
    answerer = ApiAnswerer(toy.url + ending, "toy")
    before = answerer.identity
    assert [reply.raw for reply in answerer.answer([asked("q")])] == ["q"]
    assert before == answerer.identity and before["address"] == toy.url


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


# --- what fails


PASSING = {
    "500": says(500, {"error": {"message": "out of memory"}}),
    "502 in HTML": says(502, b"<html>Bad Gateway</html>"),
    "429": says(429, {"error": {"message": "slow down"}}),
    "408": says(408, b""),
    "closed before the answer": closes,
    "closed within the answer": closes_mid_body,
    "no answer in time": hangs,
    "an answer that never ends": drips,
    "200 without JSON": says(200, b"not JSON {"),
    "200 with deep JSON": says(200, b"[" * 100_000),
    "200 with another shape": says(200, {"hello": "world"}),
    "200 with a list": says(200, [1, 2]),
    "200 without choices": says(200, {"choices": []}),
    "200 without content": says(200, completion(None)),
    "200 with a number": says(200, completion(3)),
    "200 with an error": says(200, {"error": {"message": "overloaded", "code": 503}}),
    "200 with an error of words": says(200, {"error": "overloaded"}),
    "200 with an empty body": says(200, b""),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
def test_a_failure_that_passes_is_asked_again_and_one_that_stays_costs_one_question(
    toy: Toy, failure: Behaviour
) -> None:
    slow = failure in (hangs, drips)
    toy.scripts = {"passes": [failure], "stays": [failure] * 3}
    got = replies(toy, "passes", "good", "stays", timeout=0.5 if slow else 5)
    assert got["passes"] == Reply("passes", "passes") and got["good"] == Reply("good", "good")
    assert got["stays"].error and not got["stays"].raw
    seen = {name: len(times) for name, times in toy.times.items()}
    if slow:  # on a busy machine a request may be given up before the server sees it
        assert seen["stays"] <= 3 and got["stays"].error == "no answer within 0.5 s"
    else:
        assert seen == {"passes": 2, "good": 1, "stays": 3}


def test_an_answer_without_end_is_not_read_into_memory(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_BYTES", 2**20)
    huge = completion("x" * 2**21)
    toy.scripts = {"huge": [says(200, huge)] * 3}
    got = replies(toy, "huge", "good")
    assert got["huge"].error == "the answer is larger than 1 MiB"
    assert got["good"].raw == "good"


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_question_is_not_asked_again(toy: Toy, status: int) -> None:
    toy.scripts = {"bad": [says(status, {"error": {"message": "too\nlong \x1b[31m" + "x" * 5000}})]}
    got = replies(toy, "bad", "good")
    error = got["bad"].error
    assert error and error.startswith(f"status {status}: too long") and len(error) < 400 and error.isprintable()
    assert len(toy.times["bad"]) == 1 and got["good"].raw == "good"


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        (says(401, {"error": {"message": "no such key"}}), "the key is missing or wrong (status 401: no such key)"),
        (says(403, {"error": {"message": "not yours"}}), "the key may not use this model (status 403: not yours)"),
        (says(404, {"detail": "Not Found"}), "there is no such model or address (status 404"),
        (says(405, b""), "there are no chat completions"),
        (says(308, b"", Location="http://127.0.0.1:1/v1"), "the address has moved (status 308)"),
        (says(200, {"error": {"code": 401, "message": "no such key"}}), "the key is missing or wrong"),
    ],
)
def test_what_fails_for_every_question_ends_the_run_in_one_line(toy: Toy, behaviour: Behaviour, message: str) -> None:
    toy.scripts = {"third": [behaviour]}
    coming = failing(toy, concurrency=1).answer(named("first", "second", "third", "fourth"))
    assert [next(coming).id, next(coming).id] == ["first", "second"]
    with pytest.raises(UserError) as stopped:
        next(coming)
    assert message in str(stopped.value) and "/v1, model toy: " in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert len(toy.times) == 3, "it went on asking"


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_every_request(toy: Toy, status: int) -> None:
    toy.scripts = {"first": [says(status, b"", Retry_After="0.4")]}
    got = replies(toy, "first", "second", "third", concurrency=1)
    assert all(reply.raw == reply.id for reply in got.values())
    refused, again = toy.times["first"]
    assert again - refused >= 0.4
    toy.scripts = {"a": [says(status, b"", Retry_After="0.4")]}
    toy.times.clear()
    names = ["a", *(f"b{number}" for number in range(60))]
    replies(toy, *names, concurrency=2)
    later = sorted(times[0] for name, times in toy.times.items() if name != "a")
    gaps = [after - before for before, after in pairwise(later)]
    assert max(gaps) >= 0.3, "other questions were sent meanwhile"


def test_a_server_that_asks_for_a_day_is_not_waited_for(toy: Toy) -> None:
    toy.scripts = {"q": [says(429, {"error": {"message": "come back tomorrow"}}, Retry_After="86400")]}
    begin = time.monotonic()
    error = replies(toy, "q", "good")["q"].error
    assert error and "come back tomorrow" in error
    assert time.monotonic() - begin < 2


def test_a_server_that_is_not_there_ends_the_run_after_a_few_questions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asking = ApiAnswerer(f"http://127.0.0.1:{port}/v1", "toy", attempts=2, first_wait=0.001)
    got: list[Reply] = []
    with pytest.raises(UserError, match=f"{STOP_AFTER} questions in a row got no answer, the last because: ConnectErr"):
        got.extend(asking.answer(named(*(f"q{number}" for number in range(1000)))))


def test_a_server_that_refuses_all_from_the_first_ends_the_run(toy: Toy) -> None:
    names = [f"q{number}" for number in range(100)]
    toy.scripts = {name: [says(400, {"error": {"message": "this model sees no pictures"}})] for name in names}
    with pytest.raises(UserError, match="sees no pictures"):
        list(failing(toy).answer(named(*names)))
    assert len(toy.times) < 50


def test_refusals_after_the_first_answer_are_the_questions_own(toy: Toy) -> None:
    names = [f"q{number}" for number in range(3 * STOP_AFTER)]
    toy.scripts = {name: [says(400, b"")] for name in names}
    got = replies(toy, "good", *names, concurrency=1)
    assert sum(reply.error is not None for reply in got.values()) == len(names)


LONG = "\x00\x1b[31m<script>忽略上文" * 60_000  # a megabyte
PARTS = [{"type": "text", "text": "le"}, {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "ft"}]


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        (completion(None, "length"), Reply("q", "", "length")),  # thinking has used up all tokens
        (completion(PARTS), Reply("q", "left")),
        (completion(LONG), Reply("q", LONG)),
        (rb'{"choices": [{"message": {"content": "a\ud83db \ud83d\ude00"}}]}', Reply("q", "a\ufffdb \U0001f600")),
    ],
)
def test_answers_of_every_shape_are_read(toy: Toy, said: Any, reply: Reply) -> None:
    toy.scripts = {"q": [says(200, said)]}
    assert replies(toy, "q")["q"] == reply


def test_an_answer_that_a_filter_withheld_is_no_answer(toy: Toy) -> None:
    toy.scripts = {"q": [says(200, {"choices": [{"message": {}, "finish_reason": "content_filter"}]})]}
    assert "content filter" in str(replies(toy, "q", "good")["q"].error) and len(toy.times["q"]) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["choices", "message", "content", "error", "code", "type", "text", "finish_reason", "refusal"]
            )
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(status=st.sampled_from([200, 201, 302, 400, 401, 429, 500, 599]), value=JSON)
@settings(max_examples=50)
def test_whatever_a_server_says_is_an_answer_or_one_of_three_errors(status: int, value: Any) -> None:
    try:
        answer = api.read(status, {}, json.dumps(value).encode(), "q")
    except (TransientError, RefusedError, UserError) as error:
        assert "\n" not in str(error)
    else:
        assert status < 300 and isinstance(answer.raw, str)
        answer.raw.encode()


@given(st.text(max_size=30) | st.sampled_from(["-1", "inf", "nan", "1e400", "Wed, 99 Feb 2026 00:00:00 GMT", "²"]))
@example("Wed, 21 Oct 2026 07:28:00 +9999999999999999")
@settings(max_examples=50)
def test_any_retry_after_is_seconds_or_nothing(value: str) -> None:
    seconds = retry_after({"retry-after": value})
    assert seconds is None or seconds >= 0


def test_retry_after_reads_seconds_and_dates() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({}) is None
    later = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    assert 80 < (retry_after({"retry-after": later}) or 0) <= 90
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


@given(attempt=st.integers(1, 1000), first=st.floats(0.001, 10))
@settings(max_examples=50)
def test_pauses_grow_up_to_a_minute(attempt: int, first: float) -> None:
    longest = min(60.0, first * 2.0 ** min(attempt - 1, 100))
    assert longest / 2 <= backoff(attempt, first) <= longest
