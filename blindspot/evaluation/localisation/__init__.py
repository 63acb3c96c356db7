"""Where is it: models asked for a phrase, their answers brought back to the picture's pixels, and drawn."""

from blindspot.evaluation.localisation.form import Form, form_of
from blindspot.evaluation.localisation.questions import asking_for_boxes, with_form
from blindspot.evaluation.localisation.single import Subject, names, open_subject

__all__ = ["Form", "Subject", "asking_for_boxes", "form_of", "names", "open_subject", "with_form"]
