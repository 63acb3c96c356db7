"""Positional schemes of the language model: where image tokens are among the text, and how that turns q and k.

`LanguagePositions` names a scheme, `check` refuses it where it can't be, `place` computes the positions of a batch,
`mask` its attention mask, and `install` makes a transformers language model take them. Adding a scheme means a file
beside this one with a `Scheme`, and a line in `SCHEMES` (``config.py``).
"""

from blindspot.positions.language.config import SCHEMES, LanguagePositions, check
from blindspot.positions.language.masking import mask
from blindspot.positions.language.placing import Grid, Placement, place, tokens_per_image
from blindspot.positions.language.rotation import angles, install, remove

__all__ = [
    "SCHEMES",
    "Grid",
    "LanguagePositions",
    "Placement",
    "angles",
    "check",
    "install",
    "mask",
    "place",
    "remove",
    "tokens_per_image",
]
