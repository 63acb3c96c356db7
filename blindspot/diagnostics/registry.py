"""The diagnostics by name, for whoever may not import torch: a new one is one folder and one line here."""

from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

from blindspot.plugins import extend


class Diagnostic(NamedTuple):
    """A diagnostic.

    Attributes:
        question: that it answers.
        run: ``run(vlm, budget, report)``, which gives its `Findings`; None: that of its folder here.
        rows: the type of the rows of each table, as its ``plots.py`` has it as ``ROWS``.
        draw: from tables and pictures to its figures.
    """

    question: str
    run: Callable[..., Any] | None = None
    rows: Mapping[str, type] = MappingProxyType({})
    draw: Callable[..., Iterator[Any]] = lambda tables, pictures: iter(())


DIAGNOSTICS: dict[str, Diagnostic] = {
    "probes": Diagnostic("At which stage can position, relation, count and existence be read?"),
    "counterfactuals": Diagnostic("Do answers follow what is in the picture, or where tokens are said to be?"),
    "consistency": Diagnostic("Do answers turn with the picture, and agree with themselves?"),
    "coherence": Diagnostic("Do features of neighbouring patches agree more than those of distant ones?"),
    "attention": Diagnostic("Does the language model look at the objects that it is asked about?"),
    "norms": Diagnostic("How large are image tokens beside text tokens, and does their order matter?"),
    "patching": Diagnostic("Which tokens in which layers carry the answer?"),
    "behaviour": Diagnostic("Where, how far apart and how small may objects be?"),
}
"""By name, in the order of the page."""
extend("diagnostics", DIAGNOSTICS, Diagnostic)
PHOTO = "photo"
_PHOTO = Diagnostic("Where in the picture, and where in the model, does the answer come from?")


def diagnostic(name: str) -> Diagnostic:
    """One of `DIAGNOSTICS`, or `PHOTO`: that of the user's own picture, which is none of those that draw theirs."""
    return _PHOTO if name == PHOTO else DIAGNOSTICS[name]


def run_of(name: str) -> Any:
    """``run(vlm, budget, report)`` of a diagnostic, which gives its `Findings`. Loads torch."""
    return diagnostic(name).run or import_module(f"blindspot.diagnostics.{name}.run").run


def plots_of(name: str) -> Any:
    """The module of a diagnostic's figures: ``ROWS`` (the type of the rows of each table) and ``draw``. No torch."""
    own = diagnostic(name)
    return (
        SimpleNamespace(ROWS=own.rows, draw=own.draw)
        if own.run
        else import_module(f"blindspot.diagnostics.{name}.plots")
    )
