"""Checkpoint formats, one file each: what a folder holds -> a model and its processor, and back."""
