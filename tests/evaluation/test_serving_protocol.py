"""What the server takes and refuses, request by request."""

import base64
import io
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply
from blindspot.evaluation.models import api
from blindspot.evaluation.serving import protocol
from blindspot.evaluation.serving.protocol import Refusal


def png(width: int = 3, height: int = 2) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "blue").save(file, "PNG")
    return file.getvalue()


def url(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


HELLO = [{"role": "user", "content": "hello"}]


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "toy", "messages": HELLO, **fields}


def shown(*parts: Any) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": list(parts)}])


def test_a_request_becomes_the_question_that_was_asked() -> None:
    content = [{"type": "text", "text": "in "}, {"type": "image_url", "image_url": {"url": url(png())}}]
    system = {"role": "system", "content": [{"type": "text", "text": "be brief"}]}
    wanted = protocol.read(body(messages=[system, {"role": "user", "content": content}], max_tokens=9), "toy")
    assert wanted.asked.prompt == Prompt(("in ", PICTURE), system="be brief", longest=9)
    assert wanted.asked.pictures == (png(),)
    assert (wanted.stop, wanted.stream) == ((), False)


def test_equal_pictures_have_equal_keys_and_requests_never_equal_names() -> None:
    part, other = ({"type": "image_url", "image_url": url(png(width))} for width in (3, 4))
    first, second = (protocol.read(shown(part, other, part), "toy").asked for _ in range(2))
    assert first.id != second.id
    assert first.picture_keys == second.picture_keys
    assert [first.picture_keys.index(key) for key in first.picture_keys] == [0, 1, 0]


TEXTS = st.text(min_size=1, max_size=10).filter(lambda text: "<image>" not in text)


@given(
    pieces=st.lists(st.none() | TEXTS, min_size=1, max_size=6),
    system=st.none() | TEXTS,
    longest=st.integers(1, 4096),
)
@settings(max_examples=50)
def test_what_our_client_sends_our_server_reads(pieces: list[str | None], system: str | None, longest: int) -> None:
    content = tuple(PICTURE if piece is None else piece for piece in pieces)
    pictures = tuple(png(number + 1) for number in range(content.count(PICTURE)))
    asked = Asked("q", Prompt(content, system, longest=longest), pictures)
    sent = json.loads(api.body(asked, "toy"))
    read = protocol.read(sent, "toy").asked
    assert str(replace(read.prompt, system=None, whole=True)) == str(Prompt(content, whole=True))
    assert (read.pictures, read.prompt.system, read.prompt.longest) == (pictures, system, longest)


@pytest.mark.parametrize(
    "fields",
    [
        *({"temperature": 0}, {"temperature": 0.0}, {"temperature": None}, {"top_p": 0.5}),
        {"temperature": 0.01, "top_k": 1, "top_p": 0.001},  # from one token
        {"n": 1, "presence_penalty": 0.0, "tools": [], "response_format": {"type": "text"}, "user": "me", "seed": 1},
        {"min_tokens": 0, "ignore_eos": False, "stop_token_ids": [], "logit_bias": {}, "dataset": "MMVP"},
    ],
)
def test_what_changes_nothing_is_taken(fields: dict[str, Any]) -> None:
    protocol.read(body(**fields), "toy")


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"model": "gpt-7"}, 404, "serves 'toy', not 'gpt-7'"),
        ({"temperature": 0.7}, 400, "decodes greedily"),
        ({"temperature": float("nan")}, 400, "decodes greedily"),
        ({"n": 2}, 400, "does not do 'n'"),
        ({"frequency_penalty": 0.1}, 400, "does not do 'frequency_penalty'"),
        ({"tools": [{}]}, 400, "does not do 'tools'"),
        ({"logprobs": True}, 400, "does not do 'logprobs'"),
        ({"response_format": {"type": "json_object"}}, 400, "does not do 'response_format'"),
        ({"min_tokens": 5}, 400, "does not do 'min_tokens'"),
        ({"ignore_eos": True}, 400, "does not do 'ignore_eos'"),
        ({"structured_outputs": {"choice": ["A", "B"]}}, 400, "does not do 'structured_outputs'"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, 400, "does not do 'chat_template_kwargs'"),
        ({"n": 0}, 400, "does not do 'n'"),
        ({"max_tokens": 0}, 400, "max_tokens must be a whole number"),
        ({"max_tokens": True}, 400, "max_tokens must be a whole number"),
        ({"max_completion_tokens": 1.5}, 400, "max_completion_tokens must be"),
        ({"stop": [1]}, 400, "stop must be"),
        ({"stream": "yes"}, 400, "stream must be"),
        ({"messages": None}, 400, "messages must be a list"),
        ({"messages": []}, 400, "one user message"),
        ({"messages": ["hi"]}, 400, "messages must be a list of objects"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, 400, "one user"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, 400, "one user message"),
        ({"messages": [{"role": "system", "content": "a"}]}, 400, "one user message"),
        ({"messages": [{"role": "user"}]}, 400, "content must be"),
        ({"messages": [{"role": "user", "content": []}]}, 400, "content must be"),
        ({"messages": [{"role": "user", "content": ["a"]}]}, 400, "of type text"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, 400, "of type text"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, 400, "of type text"),
        ({"messages": [{"role": "user", "content": "see <image>"}]}, 400, "send pictures as image_url"),
        ({"messages": [{"role": "system", "content": [{"type": "image_url"}]}, *HELLO]}, 400, "pictures belong to"),
    ],
)
def test_what_is_not_done_is_refused(fields: dict[str, Any], status: int, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        protocol.read(body(**fields), "toy")
    error = refused.value.to_dict()["error"]
    assert refused.value.status == status
    assert error["type"] == "invalid_request_error" and error["message"] == str(refused.value)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://example.org/cat.png", "fetches nothing"),
        ("file:///etc/passwd", "fetches nothing"),
        ("data:image/png,rawbytes", "fetches nothing"),
        (None, "fetches nothing"),
        ("data:image/png;base64,%%%%", "cannot be decoded"),
        (url(b""), "no known image format"),
        (url(b"<svg/>"), "no known image format"),
        (url(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"), "no known image format"),
    ],
)
def test_a_picture_is_a_whole_file_in_a_data_url(address: Any, message: str) -> None:
    with pytest.raises(Refusal, match=message) as refused:
        protocol.read(shown({"type": "image_url", "image_url": {"url": address}}), "toy")
    assert "0x" not in str(refused.value)


def test_a_request_has_most_pixels_and_most_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = ({"type": "image_url", "image_url": url(png(width, 10))} for width in (5, 6))
    with pytest.raises(Refusal, match="33 pictures"):
        protocol.read(shown(*[small] * 33), "toy")
    monkeypatch.setattr(protocol, "MOST_PIXELS", 100)
    assert protocol.read(shown(small, small), "toy").pixels == 100
    with pytest.raises(Refusal, match="110 pixels together; 100 are the most"):
        protocol.read(shown(small, large), "toy")


def test_line_breaks_in_the_data_are_no_matter() -> None:
    data = base64.encodebytes(png(60, 60)).decode()
    assert protocol.picture(f"data:image/png;base64,{data}") == png(60, 60)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    ["model", "messages", "temperature", "max_tokens", "stop", "stream", "n", "tools", "logit_bias", "top_k"]
)


@given(fields=st.dictionaries(FIELDS, JSON, max_size=4), content=JSON)
@settings(max_examples=50)
def test_any_json_is_a_question_or_refused(fields: dict[str, Any], content: Any) -> None:
    for value in (fields, body(**fields), body(messages=[{"role": "user", "content": content}]), content):
        try:
            assert protocol.read(value, "toy").asked.prompt.content
        except Refusal as refusal:
            assert refusal.status in (400, 404)


@given(raw=st.text("abc\n", max_size=12), stop=st.lists(st.text("abc\n", min_size=1, max_size=2), max_size=3))
@settings(max_examples=50)
def test_an_answer_ends_before_the_first_stop(raw: str, stop: list[str]) -> None:
    text, finish = protocol.cut(Reply("q", raw, "length"), tuple(stop))
    assert raw.startswith(text)
    assert not [end for end in stop if end in text]
    assert (finish == "length") == (text == raw and not [end for end in stop if end in raw])
    if text != raw:
        assert any(raw[len(text) :].startswith(end) for end in stop)


@given(text=st.text(max_size=20), finish=st.sampled_from(["stop", "length"]))
@settings(max_examples=50)
def test_what_our_server_says_our_client_reads(text: str, finish: str) -> None:
    said = protocol.completion("toy", "fp", Reply("c1", text, tokens=(12, 3)), text, finish)
    assert api.read(200, {}, said, "q") == Reply("q", text, "length" if finish == "length" else "end", tokens=(12, 3))


def test_events_carry_the_same_answer() -> None:
    *chunks, last = (
        protocol.completion("toy", "fp", Reply("c1", "left\n"), "left\n", "length", stream=True).strip().split(b"\n\n")
    )
    choices = [json.loads(chunk.removeprefix(b"data: "))["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"].get("content", "") for choice in choices) == "left\n"
    assert [choice["finish_reason"] for choice in choices] == [None, "length"]
    assert last == b"data: [DONE]"
