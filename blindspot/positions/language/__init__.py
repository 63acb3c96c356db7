"""Positional schemes of the language model: where image tokens are among the text, and how that turns q and k.

`LanguagePositions` names a scheme, `check` refuses it where it can't be; neither loads torch. `position_ids.place`
computes the positions of a batch, `masking.mask` its attention mask, and `rotation.install` makes a transformers
language model take them. Adding a scheme means a file beside this one with a `Scheme`, and a line in `SCHEMES`
(``config.py``).
"""

from blindspot.positions.language.config import SCHEMES, LanguagePositions, check

__all__ = ["SCHEMES", "LanguagePositions", "check"]
