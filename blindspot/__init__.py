"""Blindspot: a laboratory for spatial reasoning in vision-language models.

Importing the package loads neither torch nor transformers, so that the command line answers at once. The names in
``__all__`` load them when first used, which also registers the model type ``blindspot`` with transformers' Auto
classes; so does ``import blindspot.model.variant``.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blindspot.model.load import ask, load
    from blindspot.model.variant import BlindspotConfig, BlindspotForConditionalGeneration

__version__ = "0.1.0"
__all__ = ["BlindspotConfig", "BlindspotForConditionalGeneration", "ask", "load"]

_HOMES = {
    "BlindspotConfig": "blindspot.model.variant",
    "BlindspotForConditionalGeneration": "blindspot.model.variant",
    "ask": "blindspot.model.load",
    "load": "blindspot.model.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
