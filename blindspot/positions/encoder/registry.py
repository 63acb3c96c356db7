"""The registry of positional schemes at the encoder site: one file and one line each."""

from blindspot.positions.encoder import (
    axial,
    learned,
    mixed,
    released_concat,
    released_sqfreq,
    released_sum,
    rope1d,
    sincos,
)
from blindspot.positions.encoder.scheme import Scheme

SCHEMES: dict[str, Scheme] = {
    "learned": learned.SCHEME,
    "sincos": sincos.SCHEME,
    "rope1d": rope1d.SCHEME,
    "axial": axial.SCHEME,
    "mixed": mixed.SCHEME,
    "released_concat": released_concat.SCHEME,
    "released_sum": released_sum.SCHEME,
    "released_sqfreq": released_sqfreq.SCHEME,
}
