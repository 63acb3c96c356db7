"""From answers to numbers with intervals, and comparisons of models."""
