"""Real models of a few thousand weights behind real servers: ours, and transformers' where it is installed."""

import io
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from blindspot.evaluation.base import PICTURE, Asked, Prompt
from blindspot.evaluation.models.api import ApiAnswerer
from blindspot.evaluation.models.local import LocalAnswerer
from blindspot.evaluation.serving.server import ChatServer, KnownWords
from blindspot.model.load import ask, load
from blindspot.positions import EncoderPositions

from .local_toy import png, questions, saved
from .tiny_families import checkpoint

pytestmark = pytest.mark.usefixtures("one_thread")


WORDS = ["red", "blue", "left-of", "box", "of", "yes", "no"]
MODELS: dict[str, Callable[[Path], Path]] = {
    # with 2D-RoPE, which transformers alone cannot open
    "ours": lambda folder: saved(folder, WORDS, EncoderPositions("axial", 100.0, "replace")),
    "llava": lambda folder: checkpoint("llava", folder),
    "qwen2_5_vl": lambda folder: checkpoint("qwen2_5_vl", folder),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name) / "model") for name, make in MODELS.items()}


def asking(*counts: int) -> list[Asked]:
    """About as many pictures as there are counts, and two questions about none."""
    blind = [
        Asked(f"blind {number}", Prompt(("red left-of blue" + " of red" * number,), longest=4)) for number in (0, 1)
    ]
    return [*questions(counts, longest=4, words=WORDS), *blind]


@pytest.mark.parametrize("name", MODELS)
def test_a_model_behind_our_server_answers_as_it_does_here(name: str, folders: dict[str, Path]) -> None:
    local = LocalAnswerer(*load(folders[name]))
    asked = asking(7, 6, 6)
    expected = {reply.id: reply for reply in local.answer(asked)}
    server = ChatServer("127.0.0.1", 0)
    server.start(LocalAnswerer(*load(folders[name]), batch=8), name, 64)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        answers = list(ApiAnswerer(server.address, name, concurrency=12).answer(asked))
    finally:
        server.shutdown()
        thread.join()
        server.stop()
    assert {reply.id: reply for reply in answers} == expected
    assert not [reply for reply in answers if reply.error] and len({reply.raw for reply in answers}) > 1


def test_a_served_model_is_asked_in_the_words_that_ask_knows(folders: dict[str, Path]) -> None:
    model, processor = load(folders["ours"])
    texts = ("Red LEFT-OF blue?", "red hat")
    asked = [Asked(text, Prompt((PICTURE, text), longest=4), (png(0),)) for text in texts]
    replies = {reply.id: reply for reply in KnownWords(LocalAnswerer(model, processor), processor).answer(asked)}
    shown = Image.open(io.BytesIO(png(0)))
    assert replies[texts[0]].raw == ask(model, processor, shown, texts[0], longest=4)
    assert str(replies["red hat"].error).startswith("this model does not know the word 'hat'; it knows: blue, box")
    (other,) = KnownWords(LocalAnswerer(*load(folders["llava"])), load(folders["llava"])[1]).answer(asked[1:])
    assert other.error is None


@contextmanager
def running(*command: str, port: int) -> Iterator[str]:
    """A server in its own process, from when it is healthy."""
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < end, "the server did not start"
            try:
                httpx2.get(f"http://127.0.0.1:{port}/health", trust_env=False).raise_for_status()
                break
            except httpx2.HTTPError:
                time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(20)


def test_transformers_own_server_is_understood(folders: dict[str, Path]) -> None:
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason=f"transformers serve needs {package} (transformers[serving])")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = str(folders["llava"])
    asked = asking(2, 2)
    serve = "from transformers.cli.transformers import main; main()"
    with running("-c", serve, "serve", folder, "--port", str(port), "--host", "127.0.0.1", port=port) as address:
        replies = {reply.id: reply for reply in ApiAnswerer(address, folder, concurrency=3).answer(asked)}
    model, processor = (kind.from_pretrained(folder) for kind in (AutoModelForImageTextToText, AutoProcessor))
    assert {name: (reply.raw, reply.error) for name, reply in replies.items()} == {
        one.id: (generated(model, processor, one), None) for one in asked
    }


def generated(model: Any, processor: Any, asked: Asked) -> str:
    """What transformers itself makes of a question."""
    pictures = [Image.open(io.BytesIO(content)) for content in asked.pictures]
    parts = [{"type": "text", "text": asked.prompt.content[-1]}]
    content = [*({"type": "image", "image": one} for one in pictures), *parts]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    ids = model.generate(**inputs, max_new_tokens=asked.prompt.longest, do_sample=False)
    return processor.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
