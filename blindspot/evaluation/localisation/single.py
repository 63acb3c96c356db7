"""A model that is asked one thing about one picture, as its family is asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from blindspot.errors import UserError
from blindspot.evaluation.answerers.local import LocalAnswerer
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply
from blindspot.evaluation.localisation.form import Form, form_of, is_miniature
from blindspot.evaluation.prompts.marks import harmless
from blindspot.model import images, load

LONGEST = 256
"""Tokens of an answer; five boxes in Qwen's JSON."""


class Subject:
    """A model, ready to be asked.

    Args:
        name: for people.
        model: on its device.
        processor: of the model.
        boxes: the convention that it answers in, if not its family's.
    """

    def __init__(self, name: str, model: Any, processor: Any, boxes: str | None = None) -> None:
        self.name = name
        self.form: Form | None = form_of(model, processor, boxes=boxes)
        self._model, self._processor = model, processor

    def ask(self, picture: Path, question: str) -> Reply:
        """The greedy answer.

        Raises:
            UserError: if the picture or the question cannot be put to the model; a model of the miniature names the
                words that it knows.
        """
        if is_miniature(self._processor):
            return Reply("", load.ask(self._model, self._processor, images.open_image(picture), question))
        asked = Asked("", Prompt((PICTURE, harmless(question)), longest=LONGEST), (picture.read_bytes(),), ("",))
        (reply,) = LocalAnswerer(self._model, self._processor, batch=1, share=False).answer([asked])
        if reply.error is not None:
            raise UserError(f"{self.name}: {reply.error}")
        return Reply("", reply.raw.strip(), reply.stopped)


def names(models: Sequence[str]) -> list[str]:
    """What to call models: folders by their last part, unless two of them share it."""
    short = [Path(model).name if Path(model).is_dir() else model for model in models]
    return short if len(set(short)) == len(short) else list(models)


def open_subject(
    model: str, name: str | None = None, trust_remote_code: bool = False, boxes: str | None = None
) -> Subject:
    """Open a model of any format; on a GPU if there is one, unless it is a miniature.

    Args:
        model: a folder, or a Hugging Face id.
        name: for people; by default ``model``.
        trust_remote_code: whether code that the checkpoint brings along may run.
        boxes: see `Subject`.

    Raises:
        UserError: if it cannot be opened.
    """
    load.quiet()
    opened, processor = load.load(model, trust_remote_code)
    if torch.cuda.is_available() and not is_miniature(processor):
        opened = opened.to("cuda")
    return Subject(name or model, opened, processor, boxes)
