"""The positions that the family was built with: a learned table, or what it computes by itself."""

from blindspot.positions.encoder.scheme import Scheme

SCHEME = Scheme(
    base=100.0,
    named={"learned": ("learned positions", {}), "none": ("no encoder positions", {"table": "replace"})},
)
