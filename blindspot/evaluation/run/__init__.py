"""Puts benchmarks to a model, in a run folder that can be killed and continued."""
