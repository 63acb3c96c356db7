"""Motion: several pictures a question, in order of time; see `solid`."""

from blindspot.benchmarks.solid import drawn

MOTION = drawn("motion", "Solids that move, drawn")
