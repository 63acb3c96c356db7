"""Blindspot's models in lmms-eval: ``--model blindspot --model_args pretrained=MODEL``.

lmms-eval finds `manifest` through the entry point group ``lmms_eval.models``.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from blindspot.errors import UserError
from blindspot.evaluation.base import PICTURE, Asked, Part, Reply
from blindspot.evaluation.serving import protocol

try:
    from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
except ImportError:  # without the extra, this module is imported by nobody but can be
    lmms: Any = object

PORTION = 512
"""Questions whose pictures are in memory at a time."""
DEFAULT_TOKENS = 1024
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


def manifest() -> Any:
    """What lmms-eval 0.7.3 registers."""
    from lmms_eval.models.registry_v2 import ModelManifest  # pyright: ignore[reportMissingImports]

    return ModelManifest("blindspot", chat_class_path=f"{__name__}.{Blindspot.__name__}")


class Blindspot(lmms):
    """Any model that Blindspot opens, asked by its family's template, in batches, greedily.

    Args:
        pretrained: a model folder of any format, or a Hugging Face id.
        batch_size: most questions at a time.
        device: as torch names it; by default what accelerate chooses for this process.
        max_batch_size: lmms-eval always says it; not used.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 32,
        device: str | None = None,
        max_batch_size: int | None = None,
    ) -> None:
        super().__init__()
        from accelerate import Accelerator

        from blindspot.evaluation.models.local import LocalAnswerer
        from blindspot.model.load import load

        self.accelerator = Accelerator()
        self._rank, self._world_size = self.accelerator.process_index, self.accelerator.num_processes
        self.device = self.accelerator.device if device is None or self._world_size > 1 else device
        model, processor = load(pretrained)
        self._answerer: Any = LocalAnswerer(model, processor, batch=int(batch_size), device=self.device)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Greedy answers, in the order of the requests, each up to the first text of its ``until``."""
        answers: list[str] = []
        for start in range(0, len(requests), PORTION):
            portion = [request.args for request in requests[start : start + PORTION]]
            asked = [
                question(str(number), doc_to_messages(self.task_dict[task][split][doc_id]), _longest(settings))
                for number, (_, doc_to_messages, settings, doc_id, task, split) in enumerate(portion)
            ]
            replies: dict[str, Reply] = {reply.id: reply for reply in self._answerer.answer(asked)}
            for number, (context, _, settings, doc_id, task, _) in enumerate(portion):
                reply, until = replies[str(number)], settings.get("until") or ()
                if reply.error is not None:
                    raise UserError(f"{task}, document {doc_id}: {reply.error}")
                answers.append(protocol.cut(reply, (until,) if isinstance(until, str) else tuple(until))[0])
                self.cache_hook.add_partial("generate_until", (context, settings), answers[-1])
        return answers

    def loglikelihood(self, requests: Sequence[Any]) -> Any:
        """lmms-eval also asks whether a continuation is what greedy decoding gives; that is not computed here."""
        raise NotImplementedError("blindspot does not answer loglikelihood requests; choose a task that generates")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> Any:
        """Several turns are not done."""
        raise NotImplementedError("blindspot answers one turn; choose a task of one round")


def question(name: str, messages: Sequence[Mapping[str, Any]], longest: int) -> Asked:
    """lmms-eval's messages as a question: system messages, if any, then one of the user, of texts and images."""
    *before, last = messages
    if last["role"] != "user" or any(message["role"] != "system" for message in before):
        raise UserError("blindspot answers one user message, after system messages if any; use no few-shot examples")
    content: list[Part] = []
    pictures: list[bytes] = []
    for part in last["content"]:
        if part["type"] == "text":
            content.append(part["text"])
        elif part["type"] == "image":
            content.append(PICTURE)
            pictures.append(_file(part["url"]))
        else:
            raise UserError(f"blindspot sees texts and pictures only, and this task has a part of type {part['type']}")
    system = [part["text"] for message in before for part in message["content"]]
    return protocol.question(name, system, content, pictures, longest)


def _file(picture: Any) -> bytes:
    """A picture as the bytes of a file: lmms-eval hands over decoded pixels, and PNG keeps them."""
    if not isinstance(picture, Image.Image):
        return Path(picture).read_bytes()
    file = io.BytesIO()
    (picture if picture.mode in PNG_MODES else picture.convert("RGB")).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _longest(settings: Mapping[str, Any]) -> int:
    """Most tokens, from a task's generation settings, which must be greedy."""
    samples, temperature = settings.get("do_sample"), settings.get("temperature")
    if temperature is not None:
        samples = temperature > 0 and samples is not False
    if samples or (settings.get("num_beams") or 1) > 1:
        raise UserError(
            "blindspot decodes greedily, and this task samples or searches; set do_sample=False, num_beams=1"
        )
    return int(settings.get("max_new_tokens") or DEFAULT_TOKENS)
