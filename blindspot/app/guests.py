"""Models that a page asks: each opened once, and asked one thing at a time in a thread of its own."""

import io
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import permutations
from pathlib import Path
from tempfile import NamedTemporaryFile
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from blindspot.benchmarks.boxes import Box
from blindspot.diagnostics.base import Budget, Photo
from blindspot.diagnostics.core.hooked_vlm import HookedVLM
from blindspot.diagnostics.probes.inner import InnerPlaces, middle
from blindspot.diagnostics.registry import PHOTO
from blindspot.diagnostics.run import claim, diagnose
from blindspot.errors import UserError
from blindspot.evaluation.adapters import adapter_of
from blindspot.evaluation.base import PICTURE, Asked, Prompt
from blindspot.evaluation.boxes import Finding, Subject, find, form_of, window_of
from blindspot.evaluation.run.opening import Opened, default_device, open_model, opened
from blindspot.model import load
from blindspot.reporting.diagnosis import write_diagnosis
from blindspot.scenes.relations import relation
from blindspot.scenes.render import render
from blindspot.scenes.world import Scene, Thing

LONGEST = 64
SCALE = 14
"""Pixels a pixel of the drawn world has for models that were not trained on it."""
AS_IT_IS, MIRRORED, BLIND, EXCHANGED = "as it is", "mirrored", "blind", "sides exchanged"
_PAIRS = (("left", "right"), ("above", "below"), ("nearer", "farther"), ("in front of", "behind"))
_OTHER = {word: other for pair in _PAIRS for word, other in (pair, pair[::-1])}
_SIDE = re.compile(rf"\b({'|'.join(sorted(_OTHER, key=len, reverse=True))})\b", re.IGNORECASE)
_DRAWING = Lock()
"""matplotlib's settings are those of the whole process."""


@dataclass(frozen=True)
class Shown:
    """A picture that is asked about; of a drawn one its scene, which each model sees in its own size."""

    name: str
    picture: Image.Image
    scene: Scene | None = None

    @classmethod
    def of(cls, scene: Scene) -> "Shown":
        return cls("scene.png", Image.fromarray(render(scene, SCALE)), scene)


@dataclass(frozen=True)
class Said:
    """An answer under a condition; ``shares`` are the options' likelihoods, made to add up to 1."""

    condition: str
    raw: str
    shares: dict[str, float]


@dataclass(frozen=True)
class Inside:
    """How places were read in a model, and of each object its middle and the place read, in pixels as shown."""

    said: str
    lines: list[Box]


def beside(scene: Scene) -> tuple[Thing, Thing, str] | None:
    """The first two objects of which one is clearly on one side of the other, and that side."""
    for a, b in permutations(scene.things, 2):
        if (side := relation(a.cell, b.cell)) is not None:
            return a, b, {"left": "left of", "right": "right of"}.get(side, side)
    return None


def exchanged(question: str) -> str | None:
    """The question with left for right, above for below, ...; None if it has no such word."""
    turned = _SIDE.sub(lambda found: _OTHER[found[0].lower()], question)
    return turned if turned != question else None


class Guest:
    """A model by its name: a folder, a Hugging Face id, or the address of a server."""

    def __init__(self, model: str, name: str, served: str | None = None, device: str = "auto") -> None:
        self.model, self.name, self._served, self._device = model, name, served, device
        self.thread = ThreadPoolExecutor(1)
        """Whoever asks the model does it there."""

    @property
    def local(self) -> bool:
        """Whether it runs here, so that one can look into it."""
        return self._served is None

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        load.quiet()
        model, processor = load.load(self.model)
        return model.to(default_device() if self._device == "auto" else self._device).eval(), processor

    @cached_property
    def _opened(self) -> Opened:
        if not self.local:
            return open_model(self.model, [], served=self._served)
        model, processor = self._loaded
        if (pictures := getattr(model.config, "images_per_question", 1)) != 1:
            raise UserError(f"{self.name} was trained on {pictures} pictures a question and cannot be asked about one")
        return opened(model, processor, str(model.device))

    @cached_property
    def _vlm(self) -> HookedVLM:
        model, processor = self._loaded
        return HookedVLM(model, processor, adapter_of(model.config.model_type))

    def _in_words(self, text: str) -> str:
        return load.in_known_words(self._loaded[1], text) if self.local else text

    def _seen(self, shown: Shown) -> Image.Image:
        """The picture as the model is to see it: a miniature the drawn world in the size that it was trained on."""
        return shown.picture if shown.scene is None or not self.says_words else Image.fromarray(render(shown.scene))

    def open(self) -> None:
        """Load it, before it is asked."""
        _ = self._opened

    @property
    def says_words(self) -> bool:
        """Whether it is there and knows a closed set of words alone."""
        return "_loaded" in self.__dict__ and load.knows_words_only(self._loaded[1])

    def ask(self, shown: Shown, question: str, options: Sequence[str] = ()) -> list[Said]:
        """Answers as it is, with the picture mirrored or in its mean colour, and with sides exchanged in the question.

        The last is left out of a question that names none. With options also what the model thinks of each.
        """
        if not question.strip():
            raise UserError("the question is empty")
        options = options if self.local else ()  # a server gives no likelihoods
        picture = self._seen(shown)
        mean = tuple(np.asarray(picture).mean(axis=(0, 1)).round().astype(int).tolist())
        asked = {
            AS_IT_IS: (picture, question),
            MIRRORED: (ImageOps.mirror(picture), question),
            BLIND: (Image.new("RGB", picture.size, mean), question),
        }
        if turned := exchanged(question):
            asked[EXCHANGED] = picture, turned
        labels = {option: self._in_words(option) for option in options}
        sent = []
        for condition, (pixels, text) in asked.items():
            prompt = Prompt((PICTURE, self._in_words(text)), longest=LONGEST)
            key = AS_IT_IS if pixels is picture else condition
            sent += [Asked(condition, prompt, (_png(pixels),), (key,))]
            sent += [Asked(f"{condition}?", prompt, (_png(pixels),), (key,), labels)] if options else []
        replies = {reply.id: reply for reply in self._opened.answerer.answer(sent)}
        for reply in replies.values():
            if reply.error is not None:
                raise UserError(f"{self.name}: {reply.error}")
        said = []
        for condition in asked:
            found = replies[f"{condition}?"].likelihood or {} if options else {}
            weights = np.exp(np.array([*found.values()]) - max(found.values(), default=0.0))
            shares: list[float] = (weights / weights.sum()).tolist()
            said.append(Said(condition, replies[condition].raw.strip(), dict(zip(found, shares, strict=True))))
        return said

    def find(self, shown: Shown, phrase: str) -> Finding:
        """Where it says that something is, in pixels of what it sees."""
        if not self.local:
            raise UserError("a server's convention of boxes is not known")
        model, processor = self._loaded
        subject = Subject(self.name, model, processor, form_of(model, processor))
        with NamedTemporaryFile(suffix=".png") as file:
            self._seen(shown).save(file, "png")
            file.flush()
            return find(subject, Path(file.name), self._in_words(phrase))

    def scale(self, shown: Shown) -> float:
        """Pixels of the picture as it is shown for each that the model sees."""
        return shown.picture.width / self._seen(shown).width

    def look(self, shown: Shown, question: str, folder: Path, told: Callable[[str, int, int], None]) -> list[str]:
        """What `blindspot diagnose --image` leaves in a folder, page and all; returns its sentences."""
        if not self.local:
            raise UserError("one can look only into a model that runs here")
        photo = Photo.of(shown.name, self._seen(shown), question)
        if shown.scene is not None and (pair := beside(shown.scene)):
            a, b, _ = pair
            others = [thing for thing in shown.scene.things if thing not in (a, b)]
            photo = replace(photo, scene=Scene((a, b, *others), shown.scene.background))
        budget = Budget(photo=photo)
        diagnose(self._vlm, claim(folder, self.name, "", [PHOTO], budget), budget, folder, told)
        with _DRAWING:
            return write_diagnosis(folder)[1]

    @cached_property
    def _inner(self) -> InnerPlaces:
        return InnerPlaces(self._vlm, Budget())

    def inner(self, shown: Shown) -> Inside:
        """Where it takes the objects of a drawn scene to be."""
        if shown.scene is None or not self.local:
            raise UserError("a place is read of drawn scenes, in models that run here")
        lines = [(*middle(thing)[::-1], *place) for thing, place in self._inner(shown.scene).items()]
        off, layer = self._inner.error, self._inner.layer
        said = f"places read in front of layer {layer}: {off:.1f} cells off in the mean, on other scenes"
        return Inside(said, [(SCALE * x0, SCALE * y0, SCALE * x1, SCALE * y1) for x0, y0, x1, y1 in lines])

    def window(self, shown: Shown) -> Box:
        """What the model sees of the picture, in pixels as it is shown: beyond it where the model pads."""
        x0, y0, x1, y1 = window_of(self._vlm.family, self._loaded[1].image_processor, self._seen(shown).size)
        scale = self.scale(shown)
        return x0 * scale, y0 * scale, x1 * scale, y1 * scale


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    return buffer.getvalue()
