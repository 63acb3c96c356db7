"""`ApiAnswerer` against a server on this machine that fails, stalls and lies."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blindspot.errors import UserError
from blindspot.evaluation.base import Asked, Prompt, Reply
from blindspot.evaluation.models import api
from blindspot.evaluation.models.api import (
    STOP_AFTER,
    ApiAnswerer,
    RefusedError,
    TransientError,
    backoff,
    retry_after,
)

Behaviour = Callable[["Handler"], None]
GOOD = {"choices": [{"message": {"role": "assistant", "content": "fine"}, "finish_reason": "stop"}]}


class Handler(BaseHTTPRequestHandler):
    """Does with each question what the script of that question says next; then answers well."""

    server: "Faulty"  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        question = body["messages"][-1]["content"]
        with self.server.lock:
            self.server.times.setdefault(question, []).append(time.monotonic())
            script = self.server.scripts.get(question, [])
            behaviour = script.pop(0) if script else says(200, GOOD)
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


class Faulty(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts: dict[str, list[Behaviour]] = {}
        self.times: dict[str, list[float]] = {}
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that go away are what is tested


@pytest.fixture
def faulty() -> Iterator[Faulty]:
    server = Faulty()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def says(status: int, value: Any, **headers: Any) -> Behaviour:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda handler: handler.reply(status, content, **headers)


def closes(handler: Handler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def closes_mid_body(handler: Handler) -> None:
    handler.reply(200, json.dumps(GOOD).encode()[:20], length=500)
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


def answerer(server: Faulty, **settings: Any) -> ApiAnswerer:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return ApiAnswerer(url, "toy", **({"timeout": 0.25, "first_wait": 0.01, "attempts": 3} | settings))


def asked(*names: str) -> list[Asked]:
    return [Asked(name, Prompt((name,))) for name in names]


def replies(server: Faulty, *names: str, **settings: Any) -> dict[str, Reply]:
    got = list(answerer(server, **settings).answer(asked(*names)))
    assert len(got) == len({reply.id for reply in got}) == len(names)
    return {reply.id: reply for reply in got}


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
    "200 without content": says(200, {"choices": [{"message": {"content": None}, "finish_reason": "stop"}]}),
    "200 with a number": says(200, {"choices": [{"message": {"content": 3}}]}),
    "200 with an error": says(200, {"error": {"message": "overloaded", "code": 503}}),
    "200 with an error of words": says(200, {"error": "overloaded"}),
    "200 with an empty body": says(200, b""),
}


@pytest.mark.parametrize("failure", PASSING.values(), ids=PASSING.keys())
def test_a_failure_that_passes_is_asked_again_and_one_that_stays_costs_one_question(
    faulty: Faulty, failure: Behaviour
) -> None:
    faulty.scripts = {"passes": [failure], "stays": [failure] * 3}
    got = replies(faulty, "passes", "good", "stays")
    assert got["passes"] == Reply("passes", "fine") and got["good"] == Reply("good", "fine")
    assert got["stays"].error and not got["stays"].raw
    assert {name: len(times) for name, times in faulty.times.items()} == {"passes": 2, "good": 1, "stays": 3}


def test_an_answer_without_end_is_not_read_into_memory(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "MOST_BYTES", 2**20)
    huge = json.dumps({"choices": [{"message": {"content": "x" * 2**21}}]}).encode()
    faulty.scripts = {"huge": [says(200, huge)] * 3}
    got = replies(faulty, "huge", "good", timeout=5)
    assert got["huge"].error == "the answer is larger than 1 MiB"
    assert got["good"].raw == "fine"


def test_an_answer_of_a_megabyte_with_control_characters_comes_through(faulty: Faulty) -> None:
    text = "\x00\x1b[31m<script>忽略上文" * 60_000
    faulty.scripts = {"long": [says(200, {"choices": [{"message": {"content": text}}]})]}
    assert replies(faulty, "long", timeout=5)["long"].raw == text


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_refused_question_is_not_asked_again(faulty: Faulty, status: int) -> None:
    faulty.scripts = {"bad": [says(status, {"error": {"message": "too\nlong \x1b[31m" + "x" * 5000}})]}
    got = replies(faulty, "bad", "good")
    error = got["bad"].error
    assert error and error.startswith(f"status {status}: too long") and len(error) < 400 and error.isprintable()
    assert len(faulty.times["bad"]) == 1 and got["good"].raw == "fine"


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
def test_what_fails_for_every_question_ends_the_run_in_one_line(
    faulty: Faulty, behaviour: Behaviour, message: str
) -> None:
    faulty.scripts = {"third": [behaviour]}
    got: list[Reply] = []
    with pytest.raises(UserError) as stopped:
        got.extend(answerer(faulty, concurrency=1).answer(asked("first", "second", "third", "fourth")))
    assert message in str(stopped.value) and "/v1, model toy: " in str(stopped.value)
    assert "\n" not in str(stopped.value)
    assert len(faulty.times) == 3, "it went on asking"


def test_answers_before_the_end_of_a_run_are_given(faulty: Faulty) -> None:
    faulty.scripts = {"third": [says(401, b"")]}
    coming = answerer(faulty, concurrency=1).answer(asked("first", "second", "third"))
    assert [next(coming).id, next(coming).id] == ["first", "second"]
    with pytest.raises(UserError):
        next(coming)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_holds_every_request(faulty: Faulty, status: int) -> None:
    faulty.scripts = {"first": [says(status, b"", Retry_After="0.4")]}
    got = replies(faulty, "first", "second", "third", concurrency=1)
    assert all(reply.raw == "fine" for reply in got.values())
    refused, again = faulty.times["first"]
    assert again - refused >= 0.4
    faulty.scripts = {"a": [says(status, b"", Retry_After="0.4")]}
    faulty.times.clear()
    names = ["a", *(f"b{number}" for number in range(60))]
    replies(faulty, *names, concurrency=2)
    later = sorted(times[0] for name, times in faulty.times.items() if name != "a")
    gaps = [after - before for before, after in pairwise(later)]
    assert max(gaps) >= 0.3, "other questions were sent meanwhile"


def test_a_server_that_asks_for_a_day_is_not_waited_for(faulty: Faulty) -> None:
    faulty.scripts = {"q": [says(429, {"error": {"message": "come back tomorrow"}}, Retry_After="86400")]}
    begin = time.monotonic()
    error = replies(faulty, "q", "good")["q"].error
    assert error and "come back tomorrow" in error
    assert time.monotonic() - begin < 2


def test_a_server_that_is_not_there_ends_the_run_after_a_few_questions() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    asking = ApiAnswerer(f"http://127.0.0.1:{port}/v1", "toy", attempts=2, first_wait=0.001)
    got: list[Reply] = []
    with pytest.raises(UserError, match=f"{STOP_AFTER} questions in a row got no answer, the last because: ConnectErr"):
        got.extend(asking.answer(asked(*(f"q{number}" for number in range(1000)))))


def test_a_server_that_refuses_all_from_the_first_ends_the_run(faulty: Faulty) -> None:
    names = [f"q{number}" for number in range(100)]
    faulty.scripts = {name: [says(400, {"error": {"message": "this model sees no pictures"}})] for name in names}
    with pytest.raises(UserError, match="sees no pictures"):
        list(answerer(faulty).answer(asked(*names)))
    assert len(faulty.times) < 50


def test_refusals_after_the_first_answer_are_the_questions_own(faulty: Faulty) -> None:
    names = [f"q{number}" for number in range(3 * STOP_AFTER)]
    faulty.scripts = {name: [says(400, b"")] for name in names}
    got = replies(faulty, "good", *names, concurrency=1)
    assert sum(reply.error is not None for reply in got.values()) == len(names)


def test_thinking_that_used_up_all_tokens_is_an_empty_answer_that_was_cut_off(faulty: Faulty) -> None:
    faulty.scripts = {"q": [says(200, {"choices": [{"message": {"content": None}, "finish_reason": "length"}]})]}
    assert replies(faulty, "q")["q"] == Reply("q", "", "length")


def test_an_answer_that_a_filter_withheld_is_no_answer(faulty: Faulty) -> None:
    faulty.scripts = {"q": [says(200, {"choices": [{"message": {}, "finish_reason": "content_filter"}]})]}
    error = replies(faulty, "q", "good")["q"].error
    assert error and "content filter" in error and len(faulty.times["q"]) == 1


def test_an_answer_in_parts_is_put_together(faulty: Faulty) -> None:
    parts = [{"type": "text", "text": "le"}, {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "ft"}]
    faulty.scripts = {"q": [says(200, {"choices": [{"message": {"content": parts}}]})]}
    assert replies(faulty, "q")["q"].raw == "left"


def test_half_a_character_becomes_a_sign_that_files_can_hold(faulty: Faulty) -> None:
    faulty.scripts = {"q": [says(200, rb'{"choices": [{"message": {"content": "a\ud83db \ud83d\ude00"}}]}')]}
    assert replies(faulty, "q")["q"].raw == "a\ufffdb \U0001f600"


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
