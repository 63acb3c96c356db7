"""The registry of diagnostics. A new one is one file, one line here and one in `names`."""

from blindspot.diagnostics import (
    attention,
    behaviour,
    coherence,
    consistency,
    counterfactuals,
    norms,
    patching,
    probes,
)
from blindspot.diagnostics.base import Diagnostic

DIAGNOSTICS: dict[str, Diagnostic] = {
    module.DIAGNOSTIC.name: module.DIAGNOSTIC
    for module in (probes, counterfactuals, consistency, coherence, attention, norms, patching, behaviour)
}
"""In the order of `names.NAMES`."""
