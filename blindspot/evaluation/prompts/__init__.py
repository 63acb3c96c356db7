"""Prompt profiles: from a question to what a model is asked."""
