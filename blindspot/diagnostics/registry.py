"""The diagnostics by name, for whoever may not import torch: a new one is one folder and one line here."""

from importlib import import_module
from typing import Any

DIAGNOSTICS = {
    "probes": "At which stage can position, relation, count and existence be read?",
    "counterfactuals": "Do answers follow what is in the picture, or where tokens are said to be?",
    "consistency": "Do answers turn with the picture, and agree with themselves?",
    "coherence": "Do features of neighbouring patches agree more than those of distant ones?",
    "attention": "Does the language model look at the objects that it is asked about?",
    "norms": "How large are image tokens beside text tokens, and does their order matter?",
    "patching": "Which tokens in which layers carry the answer?",
    "behaviour": "Where, how far apart and how small may objects be?",
}
"""Name to question, in the order of the page."""


def run_of(name: str) -> Any:
    """``run(vlm, budget, report)`` of a diagnostic, which gives its `Findings`. Loads torch."""
    return import_module(f"blindspot.diagnostics.{name}.run").run


def plots_of(name: str) -> Any:
    """The module of a diagnostic's figures: ``ROWS`` (the type of the rows of each table) and ``draw``. No torch."""
    return import_module(f"blindspot.diagnostics.{name}.plots")
