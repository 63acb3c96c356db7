"""The option that the model finds likeliest: no generation, no parsing, so no answer is lost to its form."""

from blindspot.benchmarks.scoring.base import Profile, Scored
from blindspot.benchmarks.scoring.rows import BENCHMARKS, KINDS, Item
from blindspot.benchmarks.scoring.words import overlap


def _likeliest(item: Item) -> Scored:
    """Labels are compared without regard to case; of equally likely ones the first in the row counts."""
    likelihood = item.likelihood or {}
    label = max(likelihood, key=likelihood.__getitem__)
    match = None
    if item.benchmark == "topviewrs":
        match = overlap(item.choices.get(label, ""), item.choices[item.gold])
    return Scored(label, float(label.strip().lower() == item.gold.strip().lower()), True, partial=match)


LIKELIHOOD = Profile(
    "likelihood",
    dict.fromkeys((*BENCHMARKS, *KINDS), _likeliest),
    needs_likelihood=True,
)
