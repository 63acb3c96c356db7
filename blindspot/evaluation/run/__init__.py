"""Puts benchmarks to an answerer, in a run folder that can be killed and continued."""

from blindspot.evaluation.run.answers import anything_finished
from blindspot.evaluation.run.conditions import BLIND, Condition
from blindspot.evaluation.run.folder import default_folder
from blindspot.evaluation.run.opening import Opened, open_api, open_data, open_local, open_recorded
from blindspot.evaluation.run.runner import Outcome, evaluate, preview
from blindspot.evaluation.run.terminal import Bars, show_plan, why_unanswered

__all__ = [
    "BLIND",
    "Bars",
    "Condition",
    "Opened",
    "Outcome",
    "anything_finished",
    "default_folder",
    "evaluate",
    "open_api",
    "open_data",
    "open_local",
    "open_recorded",
    "preview",
    "show_plan",
    "why_unanswered",
]
