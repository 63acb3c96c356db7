"""The registry of diagnostics. A new one is one file, one line here and one in `names`."""

from blindspot.diagnostics.base import Diagnostic

DIAGNOSTICS: dict[str, Diagnostic] = {}
