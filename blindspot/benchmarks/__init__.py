"""Benchmarks: rows to questions, raw answers to scores. Knows nothing of models."""
