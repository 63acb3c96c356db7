"""Scoring profiles: from a raw answer to what was extracted and its score, as a named harness does it."""

from blindspot.benchmarks.scoring.base import Profile, Scored
from blindspot.benchmarks.scoring.registry import DEFAULT, PROFILES, profile

__all__ = ["DEFAULT", "PROFILES", "Profile", "Scored", "profile"]
