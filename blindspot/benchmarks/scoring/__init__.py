"""Scoring profiles: from a raw answer to what was extracted and its score, as a named harness does it."""
