"""Evaluation: what answers questions, and the statistics of the scores."""
