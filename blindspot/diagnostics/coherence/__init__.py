"""Whether features of neighbouring patches agree."""
