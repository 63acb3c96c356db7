"""Where a model says that something is: how it is asked, what it sees of a picture, what it found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from blindspot.benchmarks.base import Collection
from blindspot.benchmarks.boxes import CONVENTION, CONVENTIONS, VIEW, Box, Convention, Located, Size, View, locate
from blindspot.benchmarks.scoring import without_thoughts
from blindspot.errors import UserError
from blindspot.evaluation.adapters import ADAPTERS, Adapter, adapter_of
from blindspot.evaluation.base import PICTURE, Asked, Prompt, Reply
from blindspot.evaluation.prompts import PROFILES, Profile
from blindspot.model import images
from blindspot.question import Question

KIND = "boxes"
PHRASE = "{phrase}"
LONGEST = 256
"""Tokens of an answer; five boxes in Qwen's JSON."""


@dataclass(frozen=True)
class Form:
    """How a model says where something is."""

    convention: Convention  # of its boxes or points
    prompt: str  # what it is asked; ``{phrase}`` stands for what is looked for
    view: Callable[[Size], View]  # from the size of a picture to what it sees of it

    def ask(self, phrase: str) -> str:
        """The prompt for a phrase."""
        return self.prompt.replace(PHRASE, phrase)


def form_of(model: Any, processor: Any, adapter: Adapter | None = None, boxes: str | None = None) -> Form | None:
    """The form of a model: the miniature's if its tokenizer knows whole words only, else its family's.

    Args:
        processor: of the model, whose image processor decides what the model sees.
        adapter: by default that of the config.
        boxes: the convention that it answers in, if not its family's.

    Returns:
        None where neither the family nor ``boxes`` says how it writes boxes, and of a model that sees no picture.
    """
    from blindspot.model.load import knows_words_only

    if processor.image_processor is None and boxes is None:
        return None
    if knows_words_only(processor):
        edge = model.config.vision_config.image_size
        return Form(CONVENTIONS["canvas"], f"box of {PHRASE}", partial(View.whole, input=(edge, edge)))
    adapter = adapter or adapter_of(model.config.model_type)
    tower = getattr(model.config, "vision_config", None)
    if (
        adapter.boxes is None or getattr(tower, "model_type", None) == "pixtral"
    ):  # a LLaVA to transformers, no other way
        return None if boxes is None else told(boxes, adapter)
    known = "qwen-1000" if model.config.model_type == "qwen2_vl" else adapter.boxes
    form = Form(CONVENTIONS[known], adapter.box_prompt, partial(view_of, adapter, processor.image_processor))
    return form if boxes is None else replace(told(boxes, adapter), view=form.view)


def told(boxes: str, adapter: Adapter) -> Form:
    """The form of a model of which no more is known than its convention.

    It is asked as the family that writes so. Its boxes are in the whole picture, LLaVA's in the padded square.
    """
    prompt = next((other.box_prompt for other in ADAPTERS.values() if other.boxes == boxes), adapter.box_prompt)
    return Form(CONVENTIONS[boxes], prompt, partial(View.prepared, pad=boxes == ADAPTERS["llava"].boxes))


def view_of(adapter: Adapter, image_processor: Any, picture: Size) -> View:
    """What a family sees of a picture of this size."""

    def set_of(size: Any) -> Mapping[str, int]:  # whatever type it has, without what is not set
        return {name: int(value) for name, value in dict(size or {}).items() if value is not None}

    if adapter.sees == "whole":
        return View.whole(picture)
    if adapter.sees == "padded":
        return View.prepared(picture, pad=True)
    if adapter.sees == "resized":
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

        bounds = set_of(adapter.bounds.get("size", image_processor.size))
        height, width = smart_resize(
            picture[1],
            picture[0],
            factor=image_processor.patch_size * image_processor.merge_size,
            min_pixels=bounds["shortest_edge"],
            max_pixels=bounds["longest_edge"],
        )
        return View.whole(picture, (width, height))
    size, crop = (set_of(getattr(image_processor, name, None)) for name in ("size", "crop_size"))
    cropped = getattr(image_processor, "do_center_crop", False) and {"height", "width"} <= crop.keys()
    return View.prepared(
        picture,
        pad=bool(getattr(image_processor, "do_pad", False)),
        shortest=size.get("shortest_edge"),
        crop=(crop["width"], crop["height"]) if cropped else None,
    )


def window_of(adapter: Adapter, image_processor: Any, picture: Size) -> Box:
    """What a family sees of a picture of this size, in its pixels: beyond it where the image processor pads. All others
    see the whole, also where their boxes are in a padded one."""
    view = view_of(adapter, image_processor, picture) if adapter.sees == "processor" else View.whole(picture)
    return view.window


def with_form(collection: Collection, form: Form | None) -> Collection:
    """The collection with its questions for boxes in a model's form; the others are untouched.

    The prompt becomes the form's; the groups get the convention and the view, so that answers can be scored later
    without the model. Refused if no form is known, or one that counts the pixels of an input whose size is not known.

    Args:
        form: the model's; None: it has none that is known.
    """
    if not any(question.kind == KIND for question in collection.questions):
        return collection
    if form is None:
        raise _unknown(f"{collection.benchmark.name} asks for boxes")

    def in_form(question: Question) -> Question:
        if question.kind != KIND:
            return question
        width, height = question.groups["picture"].split("x")
        view = form.view((int(width), int(height)))
        form.convention.units(view)
        labels = {CONVENTION: form.convention.name, VIEW: str(view)}
        return replace(question, prompt=form.ask(question.prompt), groups=question.groups | labels)

    return replace(collection, questions=tuple(map(in_form, collection.questions)))


def _unknown(what: str) -> UserError:
    return UserError(
        f"{what}, and how this model writes them is not known: say it with --boxes (one of "
        f"{', '.join(CONVENTIONS)}), or name a model on this machine whose family is known"
    )


def asking_for_boxes(profile: Profile) -> Profile:
    """The prompt profile, except that questions for boxes are asked as they stand: nothing about letters or words."""
    return lambda question: (PROFILES["plain"] if question.kind == KIND else profile)(question)


@dataclass(frozen=True)
class Subject:
    """A model on its device, ready to be asked one thing about one picture, as its family is asked."""

    name: str
    model: Any
    processor: Any
    form: Form | None

    def ask(self, picture: Path, question: str) -> Reply:
        """The greedy answer; a question that a miniature has no words for is refused with those that it knows."""
        from blindspot.evaluation.models.local import LocalAnswerer
        from blindspot.model import load

        if load.knows_words_only(self.processor):
            return Reply("", load.ask(self.model, self.processor, images.open_image(picture), question))
        asked = Asked("", Prompt((PICTURE, question), longest=LONGEST), (picture.read_bytes(),), ("",))
        (reply,) = LocalAnswerer(self.model, self.processor, batch=1, share=False).answer([asked])
        if reply.error is not None:
            raise UserError(f"{self.name}: {reply.error}")
        return replace(reply, raw=reply.raw.strip())


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
        boxes: the convention that it answers in, if not its family's.
    """
    import torch

    from blindspot.model import load

    load.quiet()
    opened, processor = load.load(model, trust_remote_code)
    if torch.cuda.is_available() and not load.knows_words_only(processor):
        opened = opened.to("cuda")
    return Subject(name or model, opened, processor, form_of(opened, processor, boxes=boxes))


@dataclass(frozen=True)
class Finding:
    """What a model, by its name, found when it was asked ``prompt``; its answer raw and, by its convention, read.

    ``stopped`` is ``end``, or ``length`` if the answer was cut off.
    """

    model: str
    convention: str
    prompt: str
    raw: str
    stopped: str
    located: Located

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is wrong or unusual, one line each."""
        several = len(self.located.places) - 1
        return (
            *self.located.problems,
            *([f"{several} more, not counted"] if several > 0 else ()),
            *(["cut off at its longest"] if self.stopped == "length" else ()),
        )

    def to_dict(self, gold: Box | None) -> dict[str, Any]:
        """As JSON: ``boxes`` and ``points`` in pixels of the picture; with a gold box ``iou`` and ``right``."""
        places, first = self.located.places, self.located.first
        scores: dict[str, Any] = {}
        if gold is not None:
            scores = {"iou": first and first.overlap(gold), "right": first is not None and first.hits(gold)}
        return {
            **{name: getattr(self, name) for name in ("model", "prompt", "raw", "stopped", "convention")},
            "boxes": [list(place.numbers) for place in places if place.box],
            "points": [list(place.numbers) for place in places if place.point],
            "problems": list(self.located.problems),
            **scores,
        }


def find(subject: Subject, picture: Path, phrase: str, prompt: str | None = None) -> Finding:
    """Ask a model where the phrase is, in ``prompt``'s words instead of the family's own if there is one."""
    if subject.form is None:
        raise _unknown(f"{subject.name} is asked for boxes")
    form = subject.form if prompt is None else replace(subject.form, prompt=prompt)
    asked = form.ask(phrase)
    reply = subject.ask(picture, asked)
    view = form.view(images.open_image(picture).size)
    located = locate(without_thoughts(reply.raw), form.convention, view)
    return Finding(subject.name, form.convention.name, asked, reply.raw, reply.stopped, located)
