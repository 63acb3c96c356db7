"""Questions for boxes in a run: put in the model's own words, and kept with what it takes to read their answers."""

from dataclasses import replace
from typing import TYPE_CHECKING

from blindspot.benchmarks.base import Collection
from blindspot.benchmarks.boxes import CONVENTION, CONVENTIONS, VIEW
from blindspot.errors import UserError
from blindspot.evaluation.base import Prompt
from blindspot.evaluation.prompts import PROFILES, Profile
from blindspot.question import Question

if TYPE_CHECKING:
    from blindspot.evaluation.localisation.form import Form

KIND = "boxes"


def with_form(collection: Collection, form: "Form | None") -> Collection:
    """The collection with its questions for boxes in a model's form; the others are untouched.

    The prompt becomes the form's; the groups get the convention and the view, so that answers can be scored later
    without the model.

    Args:
        collection: any.
        form: the model's; None: it has none that is known.

    Raises:
        UserError: if it asks for boxes and no form is known, or one that counts the pixels of an input whose size is
            not known.
    """
    if not any(question.kind == KIND for question in collection.questions):
        return collection
    if form is None:
        raise UserError(unknown(f"{collection.benchmark.name} asks for boxes"))
    return replace(collection, questions=tuple(_in_form(question, form) for question in collection.questions))


def unknown(what: str) -> str:
    """One line for a model of which it is not known how it writes boxes."""
    return (
        f"{what}, and how this model writes them is not known: say it with --boxes (one of "
        f"{', '.join(CONVENTIONS)}), or name a model on this machine whose family is known"
    )


def asking_for_boxes(profile: Profile) -> Profile:
    """The prompt profile, except that questions for boxes are asked as they stand: nothing about letters or words."""

    def ask(question: Question) -> Prompt:
        return (PROFILES["plain"] if question.kind == KIND else profile)(question)

    return ask


def _in_form(question: Question, form: "Form") -> Question:
    if question.kind != KIND:
        return question
    width, height = question.groups["picture"].split("x")
    view = form.view((int(width), int(height)))
    form.convention.units(view)
    labels = {CONVENTION: form.convention.name, VIEW: str(view)}
    return replace(question, prompt=form.ask(question.prompt), groups=question.groups | labels)
